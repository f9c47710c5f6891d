"""Real texts that every Python has."""

from __future__ import annotations

import ast
import html.entities
import locale
import pydoc
import re
import sysconfig
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

STDLIB = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "collections", "concurrent", "email", "http", "json", "logging", "unittest", "urllib", "xml")


@cache
def stdlib() -> dict[str, str]:
    """Path -> source, of some packages of the standard library and all its top-level modules."""
    files = sorted(STDLIB.glob("*.py"))
    for package in PACKAGES:
        files += sorted((STDLIB / package).rglob("*.py"))
    return {f.relative_to(STDLIB).as_posix(): f.read_text(encoding="utf-8", errors="replace") for f in files}


@cache
def topics() -> str:
    """The chapters of the language reference that `help()` shows, as one text: half a megabyte of prose."""
    from pydoc_data.topics import topics as chapters

    return "\n\n".join(f"=== {name} ===\n\n{text}" for name, text in sorted(chapters.items()))


@cache
def characters() -> str:
    """All named Unicode characters up to U+FFFF, one per line: code;category;name."""
    lines = []
    for code in range(0x10000):
        if name := unicodedata.name(chr(code), ""):
            lines.append(f"U+{code:04X};{unicodedata.category(chr(code))};{name}")
    return "\n".join(lines)


@cache
def definitions() -> list[str]:
    """A record for each class and function of the standard library: file:line kind name args=N."""
    records = []
    for path, source in stdlib().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                records.append(f"{path}:{node.lineno} class {node.name} bases={len(node.bases)}")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                records.append(f"{path}:{node.lineno} def {node.name} args={len(node.args.args)}")
    return records


@cache
def entities() -> dict[str, str]:
    """HTML's named entities."""
    return dict(html.entities.html5)


@cache
def aliases() -> str:
    """What `locale` knows: one 'alias = locale' per line."""
    return "\n".join(f"{name} = {value}" for name, value in sorted(locale.locale_alias.items()))


@cache
def manual() -> str:
    """What `help()` says of the built-in types, as one text."""
    types = (str, bytes, int, float, list, dict, set, tuple, memoryview, complex)
    return "\n\n".join(re.sub(".\b", "", pydoc.render_doc(kind)) for kind in types)


CONTEXTS: dict[str, Any] = {
    "stdlib": stdlib,
    "topics": topics,
    "characters": characters,
    "definitions": definitions,
    "entities": entities,
    "aliases": aliases,
    "manual": manual,
}
