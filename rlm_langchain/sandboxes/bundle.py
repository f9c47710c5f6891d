"""The worker's code, compiled and packed once per process: what a session would otherwise open files for."""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

HERE = Path(__file__).parent

OURS = (
    "rlm_langchain.sandboxes.reserved",
    "rlm_langchain.sandboxes.worker",
    *(
        f"rlm_langchain.sandboxes.worker.{path.stem}"
        for path in sorted((HERE / "worker").glob("*.py"))
        if path.stem not in {"__init__", "boot"}
    ),
)

EMPTY = ("rlm_langchain", "rlm_langchain.sandboxes")
"""Packages that the worker needs as names only."""

STANDARD = """
    __future__ _colorize _opcode_metadata _strptime _weakrefset ast bisect calendar collections
    collections.abc concurrent concurrent.futures concurrent.futures._base concurrent.futures.thread
    contextlib copy copyreg csv ctypes ctypes._endian dataclasses datetime decimal difflib dis enum
    fractions functools heapq inspect json json.decoder json.encoder json.scanner keyword linecache
    locale logging numbers opcode operator pprint queue random re re._casefix re._compiler
    re._constants re._parser reprlib selectors signal statistics string struct textwrap threading
    token tokenize traceback types typing unicodedata warnings weakref
"""
"""Modules that programs import most, and what they import."""

Module = tuple[str, list[str] | None, bytes]
"""The file of a module, the folders of a package, and its code."""


@cache
def bundle() -> bytes:
    """Everything that `boot.py` reads before its first frame: four bytes of length, then the modules."""
    modules = {name: packed for name in (*STANDARD.split(), *OURS) if (packed := _packed(name))}
    modules |= {name: (f"<{name}>", [], marshal.dumps(compile("", name, "exec"))) for name in EMPTY}
    data = marshal.dumps(modules)
    return len(data).to_bytes(4, "big") + data


@cache
def boot() -> str:
    """What `python -c` runs in the worker."""
    return (HERE / "worker" / "boot.py").read_text(encoding="utf-8")


def _packed(name: str) -> Module | None:
    """A module of Python's or ours; None for one that is built in, frozen, or not in this version."""
    spec = _spec(name)
    if spec is None or not isinstance(spec.origin, str) or not spec.origin.endswith(".py"):
        return None
    code = spec.loader.get_code(name)  # type: ignore[union-attr]
    package = [os.path.dirname(spec.origin)] if spec.submodule_search_locations else None
    return spec.origin, package, marshal.dumps(code)


def _spec(name: str) -> ModuleSpec | None:
    known = sys.modules.get(name)
    if known is not None:
        return known.__spec__
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
