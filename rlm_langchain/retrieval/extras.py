"""Imports the libraries of the extra `retrieval` when they are needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rlm_langchain.errors import MissingDependency

PACKAGES = {"numpy": "numpy", "bm25s": "bm25s", "faiss": "faiss-cpu"}
"""The package on PyPI that contains each module."""


def check_installed() -> None:
    """Raise `MissingDependency` unless all libraries are installed. Imports nothing."""
    for module in PACKAGES:
        if find_spec(module) is None:
            raise MissingDependency(_missing_message(module))


def import_library(module: str) -> Any:
    """Import and return one of the libraries. Raises `MissingDependency`."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(_missing_message(module)) from error


def _missing_message(module: str) -> str:
    package = PACKAGES.get(module, module)
    return f'retrieval needs {package}, which is not installed: pip install "rlm-langchain[retrieval]"'
