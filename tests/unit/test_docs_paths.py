"""Paths and modules that the documentation names: each exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["CONTRIBUTING.md", "AGENTS.md", "docs/explanation/architecture.md", "docs/explanation/security.md"]
PATH = re.compile(r"`((?:[\w.<>*-]+/)+[\w.<>*-]*|\w+\.py)`")
MODULE = re.compile(r"\brlm_langchain(?:\.\w+)+")
GROUPS = {
    f"rlm_langchain.{group}" for group in ("arms", "sandboxes", "strategies", "contexts", "calls", "providers")
}
"""Entry point groups, as `rlm_langchain/protocols.py` and `rlm_langchain/bench/arms/arm.py` name them."""
MADE = {"build/docs"}
"""Folders that a command makes."""


def missing_paths(text: str) -> list[str]:
    """Return the backticked paths that exist neither in the package nor in the repository."""
    return [path for path in PATH.findall(text) if path not in MADE and not exists(path)]


def exists(path: str) -> bool:
    """Return whether a path exists. Of one with a placeholder (`<name>.py`), its folder has to."""
    pattern = path.partition("<")[0].rpartition("/")[0] if "<" in path else path.rstrip("/")
    return any(next(base.glob(pattern), None) for base in (ROOT, ROOT / "rlm_langchain"))


def missing_modules(text: str) -> list[str]:
    """Return the dotted names below `rlm_langchain` that are no module, attribute or entry point group."""
    return [name for name in MODULE.findall(text) if name not in GROUPS and not resolves(name)]


def resolves(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute of one."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return bool(module) and resolves(module) and hasattr(importlib.import_module(module), attribute)
    return True


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_pages_for_contributors_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert PATH.search(text)
    assert missing_paths(text) == []


def test_modules_in_the_documentation_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    named = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.name != "CHANGELOG.md")
    assert missing_modules(named) == []


def test_a_path_or_module_that_is_gone_is_found() -> None:
    text = "see `models/prices.py`, `graph/nodes/`, rlm_langchain.models.prices, rlm_langchain.models.pricing.cost"
    assert missing_paths(text) == ["models/prices.py"]
    assert missing_modules(text) == ["rlm_langchain.models.prices"]
