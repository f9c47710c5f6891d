"""The shape of the code, read from its source: who may import whom, the public names, and the sizes."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import rlm_langchain

ROOT = Path(rlm_langchain.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
STRATEGIES = ROOT.parent / "strategies"

LAYERS = (
    {"types", "errors", "demands", "seal"},
    {"protocols", "plugins", "scribe"},
    {"context", "sandboxes", "prompts"},
    {
        "replies",
        "conversation",
        "clients",
        "pools",
        "adopted",
        "marks",
        "compatible",
        "providers",
        "prices",
        "billing",
        "faults",
        "models",
        "local",
    },
)
"""From left to right as data flows: a layer imports itself and those before it. What is not named comes after."""
LAST = {"cli", "demo", "bench", "__main__"}
"""Nothing imports these."""
HEAVY = (
    "openai",
    "faiss",
    "rich",
    "typer",
    "aiohttp",
    "sandlock",
    "tiktoken",
    "genai_prices",
    "langgraph",
    "langchain_core",
)
"""Not imported with the package: whoever only wants a name from it should not wait."""
LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FUNCTION, MOST_PARAMETERS = 600, 40, 9, 8
LISTS = {"rlm_graph", "ask"}
"""Functions that are as long as what they list: the nodes of the graph, the options of a command."""


def module_of(path: Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules imported when this one is, so not inside functions and not for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node)


def parts_used(path: Path) -> set[str]:
    """The parts of our package that a file imports."""
    own = {name.split(".")[1] for name in imports(parsed(path)) if name.startswith("rlm_langchain.")}
    return {name for name in own if (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir()}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def layer(part: str) -> int:
    return next((i for i, parts in enumerate(LAYERS) if part in parts), len(LAYERS))


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_imports_go_from_left_to_right() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {part}"
        for path in FILES
        for part in parts_used(path) - {module_of(path)}
        if layer(part) > layer(module_of(path)) and module_of(path) not in ("__init__", *LAST)
    }
    assert not wrong


def test_nothing_imports_the_command_line() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {part}"
        for path in FILES
        for part in parts_used(path) & LAST
        if module_of(path) not in LAST
    }
    assert not wrong


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    used: dict[str, set[str]] = {}
    for path in FILES:
        used.setdefault(module_of(path), set()).update(parts_used(path) - {module_of(path)})
    while free := [part for part in used if not used[part] & set(used)]:
        for part in free:
            del used[part]
    assert not used


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        (
            "langgraph",
            {
                "graph",
                "recursion",
                "runnable",
                "create",
                "streams",
                "lifecycle",
                "boundary",
                "scribe",
                "cells",
                "turns",
                "approval",
                "tools",
                "serve",
                "guard",
                "threads",
                "middleware",
                "cli",
            },
        ),
        ("langchain", {"middleware"}),
        ("faiss", {"retrieval"}),
        ("rich", {"cli", "demo", "local"}),
        ("typer", {"cli", "demo"}),
        ("sandlock", {"sandboxes"}),
        ("pydantic_monty", {"sandboxes"}),
    ],
)
def test_each_library_has_its_place(package: str, homes: set[str]) -> None:
    found = {
        module_of(path)
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imports(ast.Module([node], []))
        if name.split(".")[0] == package
    }
    assert found <= homes


def test_strategies_know_only_the_public_names() -> None:
    for path in STRATEGIES.rglob("*.py"):
        used = {name for name in imports(parsed(path)) if name.startswith("rlm_langchain")}
        assert used <= {"rlm_langchain", *(f"rlm_langchain.{name}" for name in rlm_langchain.__all__)}, path


def test_nothing_imports_the_strategies() -> None:
    assert not [path for path in FILES if any("rlm_strategies" in name for name in imports(parsed(path)))]


def test_the_public_names_are_sorted_and_all_of_them_are_there() -> None:
    assert list(rlm_langchain.__all__) == sorted(rlm_langchain.__all__)
    assert all(getattr(rlm_langchain, name).__name__ == name for name in rlm_langchain.__all__)
    assert set(rlm_langchain._HOMES) == set(rlm_langchain.__all__) == set(dir(rlm_langchain))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'create_llm'"):
        _ = rlm_langchain.create_llm


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import json, sys, rlm_langchain; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in json.loads(done.stdout)} & set(HEAVY)


def test_files_and_functions_are_small() -> None:
    lengths = {
        name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions() if node.name not in LISTS
    }
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in FILES}
    del lines["types.py"]  # a list of values with their docstrings: it grows and gets no harder to read
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION
    assert {name: size for name, size in lengths.items() if size > LONGEST_FUNCTION} == {}
    assert {name: size for name, size in lines.items() if size > LONGEST_FILE} == {}


def test_no_constructor_takes_a_crowd() -> None:
    crowds = {
        name: len(node.args.args) + len(node.args.kwonlyargs) - 1
        for name, node in functions()
        if node.name == "__init__"
    }
    assert {name: size for name, size in crowds.items() if size > MOST_PARAMETERS} == {}


def test_the_contract_fits_on_a_page() -> None:
    assert (ROOT / "protocols.py").read_text().count("\n") <= 80
