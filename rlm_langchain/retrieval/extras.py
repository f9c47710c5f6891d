"""The libraries of the extra, found when they are needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rlm_langchain.errors import MissingDependency

PACKAGES = {"numpy": "numpy", "bm25s": "bm25s", "faiss": "faiss-cpu"}
"""By module, the package that it comes in."""


def check() -> None:
    """Raise `MissingDependency` unless everything is there. Imports nothing."""
    for module in PACKAGES:
        if find_spec(module) is None:
            raise MissingDependency(_sentence(module))


def library(module: str) -> Any:
    """One of the libraries. Raises `MissingDependency`."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(_sentence(module)) from error


def _sentence(module: str) -> str:
    package = PACKAGES.get(module, module)
    return f'retrieval needs {package}, which is not installed: pip install "rlm-langchain[retrieval]"'
