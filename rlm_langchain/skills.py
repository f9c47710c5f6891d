"""Strategies from names, folders of skills and values; and which of them suit a context.

A skill folder is the Agent Skills layout: `SKILL.md`, whose front matter has `name` and `description` and whose
body is what the root model reads, and beside it, if there is something to define, `helpers.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import yaml

from rlm_langchain.errors import ConfigurationError, UnknownPlugin
from rlm_langchain.plugins import load, names
from rlm_langchain.protocols import Strategy
from rlm_langchain.types import ContextRef

AUTO = "auto"
MANY = 50
"""Items of a list from which on they are records to label and count rather than documents to read."""


def strategies_of(wanted: str | Path | Strategy | Iterable[str | Path | Strategy]) -> tuple[Strategy, ...]:
    """The strategies that a user means. A folder stands for itself or for the skill folders in it.

    Raises `ConfigurationError` or `UnknownPlugin`, which lists what is installed.
    """
    several = [wanted] if isinstance(wanted, str | Path | Strategy) else wanted
    return tuple(strategy for one in several for strategy in _strategies(one))


def installed() -> tuple[Strategy, ...]:
    """All strategies that are installed. One that is broken is named in a warning and left out."""
    found = []
    for name in names("strategies"):
        try:
            found.append(_loaded(name))
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises when it is loaded
            warnings.warn(f"the strategy {name!r} is broken and is left out: {error!r}", stacklevel=2)
    return tuple(found)


def read_skill(folder: Path) -> Strategy:
    """The strategy in a skill folder. Raises `ConfigurationError` with what is wrong in it."""
    file = folder / "SKILL.md"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{folder} is no skill: {file.name} cannot be read ({error.strerror})") from error
    head, body = _front_matter(text, file)
    helpers = folder / "helpers.py"
    return Strategy(
        name=str(head["name"]),
        description=str(head["description"]),
        guidance=body.strip(),
        prelude=helpers.read_text(encoding="utf-8") if helpers.is_file() else "",
    )


def chosen(context: ContextRef | None) -> tuple[str, ...]:
    """The names of the built-in strategies that suit the shape and size of a context."""
    if context is None:
        return ("long_output", "verify")
    if context["kind"] == "json" and context["length"] >= MANY and context["about"].startswith("list"):
        return ("peek", "grep", "classify_count", "partition_map")
    return ("peek", "grep", "partition_map", "summarise")


def _strategies(one: str | Path | Strategy) -> list[Strategy]:
    if isinstance(one, Strategy):
        return [one]
    if isinstance(one, Path):
        return _in_folder(one)
    return [_loaded(one)]


def _in_folder(folder: Path) -> list[Strategy]:
    if (folder / "SKILL.md").is_file():
        return [read_skill(folder)]
    skills = [read_skill(file.parent) for file in sorted(folder.glob("*/SKILL.md"))]
    if not skills:
        raise ConfigurationError(f"{folder} holds no skill: there is no SKILL.md in it, nor in a folder in it")
    return skills


def _loaded(name: str) -> Strategy:
    try:
        strategy = load("strategies", name)
    except UnknownPlugin as error:
        raise ConfigurationError(f"{error}. A folder of skills is given as a Path") from error
    if not isinstance(strategy, Strategy):
        raise ConfigurationError(f"the plug-in {name!r} is {type(strategy).__name__}, not a Strategy")
    return strategy


def _front_matter(text: str, file: Path) -> tuple[dict[str, object], str]:
    fence, _, rest = text.partition("\n")
    head, closing, body = rest.partition("\n---")
    if fence.strip() != "---" or not closing:
        raise ConfigurationError(f"{file} has no front matter: it begins with '---', name, description, '---'")
    try:
        values = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"the front matter of {file} is no YAML: {error}") from error
    missing = {"name", "description"} - set(values if isinstance(values, dict) else ())
    if missing:
        raise ConfigurationError(f"the front matter of {file} lacks {', '.join(sorted(missing))}")
    return values, body
