"""Real texts that every Python has, or that come with our own dependencies: nothing is downloaded."""

from __future__ import annotations

import ast
import shutil
import sysconfig
import unicodedata
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STDLIB = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "email", "http", "importlib", "json", "logging", "sqlite3", "unittest", "urllib", "xml")


@cache
def library() -> dict[str, str]:
    """Part of the standard library: relative path to source."""
    paths = [*STDLIB.glob("*.py"), *(path for package in PACKAGES for path in (STDLIB / package).rglob("*.py"))]
    # Some versions have tests among them, others elsewhere.
    paths = sorted(path for path in paths if "test" not in path.parts)
    return {path.relative_to(STDLIB).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@cache
def reference() -> str:
    """The language reference as `help()` shows it: one text of about 500,000 characters."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics.values())


@cache
def characters() -> str:
    """Unicode's table of characters up to U+FFFF, a line each: code|name|category|numeric value."""
    lines = ["code|name|category|value"]
    for code in range(0x10000):
        name = unicodedata.name(chr(code), "")
        if name:
            value = unicodedata.numeric(chr(code), None)
            number = "" if value is None else f"{value:g}"
            lines.append(f"U+{code:04X}|{name}|{unicodedata.category(chr(code))}|{number}")
    return "\n".join(lines)


@cache
def modules() -> list[dict[str, Any]]:
    """What is in each file of the library, counted."""
    return [_counted(path, text) for path, text in library().items()]


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse(library()[path])


def _counted(path: str, text: str) -> dict[str, Any]:
    nodes = [*ast.walk(_tree(path))]
    package, slash, _ = path.rpartition("/")
    return {
        "file": path,
        "package": package.split("/")[0] if slash else "",
        "lines": len(text.splitlines()),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "functions": sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        "docstring": bool(ast.get_docstring(_tree(path))),
    }


@cache
def frameworks() -> dict[str, str]:
    """The sources of LangChain's core, which is always installed with this package."""
    root = _folder("langchain_core")
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))
    }


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def docstrings() -> str:
    """A manual made of the docstrings of the library's functions: `== module.name ==`, then what it says."""
    parts = []
    for path in library():
        for node in _tree(path).body:
            said = isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node)
            if said:
                module = path.removesuffix(".py").replace("/", ".")
                parts.append(f"== {module}.{node.name} ==\n{said}")
    return "\n\n".join(parts)


@cache
def entities() -> str:
    """HTML's named characters as CSV: name,code points."""
    from html.entities import html5

    rows = [f"{name},{' '.join(f'U+{ord(char):04X}' for char in chars)}" for name, chars in sorted(html5.items())]
    return "\n".join(["name,code points", *rows])


@cache
def topics() -> list[str]:
    """The language reference as a list of articles."""
    from pydoc_data.topics import topics

    return list(topics.values())


def written(files: dict[str, str], folder: Path) -> Path:
    """The files as a folder on disk, as a user would have them."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder
