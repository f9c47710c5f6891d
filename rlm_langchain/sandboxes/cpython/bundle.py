"""The worker's code, compiled and packed once per process, so that a session need not open the files."""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

WORKER = Path(__file__).parents[1] / "worker"

PACKAGE = "rlm_langchain.sandboxes"

LATER = {
    "determinism.thread_pool",
    "lazy.file",
    "lazy.lines",
    "lazy.matches",
    "lazy.regex",
    "lazy.text",
    "repl.cell",
    "repl.tracebacks",
}
"""Our modules that no session needs before its first cell."""

ROOMS = ("determinism", "lazy", "repl")
"""Packages inside the worker's package."""

OURS = [
    ".".join(path.relative_to(WORKER).with_suffix("").parts)
    for path in sorted(WORKER.rglob("[a-z]*.py"))
    if path.stem != "boot"
]

STANDARD = """
    _weakrefset ast bisect collections collections.abc contextlib copy copyreg ctypes._endian datetime
    enum functools heapq json json.decoder json.encoder json.scanner keyword linecache operator random re
    re._casefix re._compiler re._constants re._parser reprlib string textwrap token tokenize traceback types
    warnings weakref _colorize _opcode_metadata
"""
"""Standard library modules that most programs use. Together they are not much larger than the pipe's buffer."""

Module = tuple[str, list[str] | None, bytes]
"""The file of a module, the folders if it is a package, and its code."""


@cache
def early_modules() -> bytes:
    """Return what `boot.py` reads first: our modules, and the names of those that come later."""
    modules = _packed(["__future__", *(f"{PACKAGE}.worker.{name}" for name in OURS if name not in LATER)])
    for name in ("rlm_langchain", PACKAGE, f"{PACKAGE}.worker", *(f"{PACKAGE}.worker.{room}" for room in ROOMS)):
        modules[name] = (f"<{name}>", [f"<{name}>"], marshal.dumps(compile("", name, "exec")))
    return _blob((modules, frozenset(_later())))


@cache
def late_modules() -> bytes:
    """Return what follows the first frame: modules that a session without a cell does not need."""
    return _blob(_later())


@cache
def boot() -> str:
    """Return the code that `python -c` runs in the worker."""
    return (WORKER / "boot.py").read_text(encoding="utf-8")


@cache
def _later() -> dict[str, Module]:
    ours = [f"{PACKAGE}.worker.{name}" for name in LATER]
    return _packed([*ours, f"{PACKAGE}.reserved_names", *STANDARD.split()])


def _blob(value: Any) -> bytes:
    data = marshal.dumps(value)
    return len(data).to_bytes(4, "big") + data


def _packed(names: list[str]) -> dict[str, Module]:
    """Return the modules of these names, without those that are built in, frozen, or not in this version."""
    found = ((name, _spec(name)) for name in names)
    return {name: _module(name, spec) for name, spec in found if spec and (spec.origin or "").endswith(".py")}


def _module(name: str, spec: ModuleSpec) -> Module:
    code = spec.loader.get_code(name)  # type: ignore[union-attr]
    package = [os.path.dirname(spec.origin or "")] if spec.submodule_search_locations else None
    return spec.origin or "", package, marshal.dumps(code)


def _spec(name: str) -> ModuleSpec | None:
    known = sys.modules.get(name)
    try:
        return importlib.util.find_spec(name) if known is None else known.__spec__
    except ModuleNotFoundError:
        return None
