"""The shape of the code, read from its source: which room may import which, and the public names."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import FrameType

import pytest

import rlm_langchain
from rlm_langchain import create_rlm
from rlm_langchain.testing.models import FunctionModel

ROOT = Path(rlm_langchain.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if "prelude" not in path.parts)
STRATEGIES = ROOT.parent / "strategies"

ROOMS = (
    "errors",
    "validation",
    "types",
    "records",
    "protocols",
    "plugins",
    "budget",
    "context",
    "prompts",
    "sandboxes",
    "trajectory",
    "viewer",
    "export",
    "durability",
    "models",
    "answers",
    "run",
    "retrieval",
    "graph",
    "runnable",
    "batch",
    "bench",
    "integrations",
    "cli",
    "testing",
    "__init__",
    "__main__",
)
"""In the order in which data flows: a room imports itself and the rooms before it."""
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
"""Libraries that `import rlm_langchain` must not load: a program that needs one name should not wait for them."""
MOST_ROOT_FILES = 10
MOST_CROSSINGS = 120
"""How often the path of a question may go from one room to another before its first model call."""


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def room_of(module: str) -> str:
    """The room of a module: the second part of its name."""
    name = module.split(".")[1] if "." in module else "__init__"
    return name if name in ROOMS else "__init__"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that one import statement names. A name imported from a package may be a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in MODULES else node.module


def imports(path: Path) -> set[str]:
    """Every module that a file imports: at its top, inside functions, and for type checkers."""
    return {name for node in ast.walk(parsed(path)) for name in imported(node)}


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from at_import(node)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "rlm_langchain"}


def test_a_room_imports_only_itself_and_the_rooms_before_it() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in ours(path)
        if ROOMS.index(room_of(name)) > ROOMS.index(room_of(module)) and room_of(module) != "__init__"
    ]
    assert wrong == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    lazy = "rlm_langchain.sandboxes.worker.lazy."  # one subject in four files, which know each other's types
    modules = [name for name in MODULES if not name.startswith(lazy) and name != "rlm_langchain"]
    used = {name: ours(MODULES[name]) & set(modules) - {name} for name in modules}
    while free := [module for module, names in used.items() if not names & set(used)]:
        for module in free:
            del used[module]
    assert used == {}


def test_every_room_is_named_in_the_order() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py"}
    rooms |= {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ROOMS)


def test_the_root_holds_rooms_and_few_files() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_ROOT_FILES


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("langgraph", {"graph", "runnable", "batch", "durability", "trajectory", "integrations", "cli"}),
        ("langchain", {"integrations"}),
        ("faiss", {"retrieval"}),
        ("pygments", {"viewer"}),
        ("rich", {"cli", "models"}),
        ("typer", {"cli"}),
        ("sandlock", {"sandboxes"}),
        ("pydantic_monty", {"sandboxes"}),
    ],
)
def test_each_library_has_its_place(package: str, homes: set[str]) -> None:
    found = {
        room_of(module)
        for module, path in MODULES.items()
        for node in at_import(parsed(path))
        for name in imported(node)
        if name.split(".")[0] == package
    }
    assert found <= homes


def test_strategies_know_only_the_public_names() -> None:
    for path in STRATEGIES.rglob("*.py"):
        used = {name for name in imports(path) if name.startswith("rlm_langchain")}
        assert used <= {"rlm_langchain"}, path


def test_nothing_imports_the_strategies() -> None:
    assert not [path for path in FILES if any("rlm_strategies" in name for name in imports(path))]


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


def test_a_question_crosses_few_rooms_before_its_first_model_call() -> None:
    """Values are computed once and passed on: a room that is asked again and again shows here."""
    rooms: list[str] = []
    crossings: list[int] = []
    home = f"{ROOT}/"

    def note_room(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(home) and frame.f_code.co_name != "<module>":
            rooms.append(file.removeprefix(home).partition("/")[0])

    def reply(_: object) -> str:
        crossings.append(sum(one != other for one, other in pairwise(rooms)))
        return "```repl\nFINAL(1)\n```"

    threading.setprofile(note_room)
    sys.setprofile(note_room)
    try:
        create_rlm(FunctionModel(function=reply), sandbox="monty").invoke("What is it?")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert 40 < crossings[0] <= MOST_CROSSINGS


def test_the_contract_fits_on_a_page() -> None:
    assert (ROOT / "protocols.py").read_text().count("\n") <= 90
