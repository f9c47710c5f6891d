"""Finds strategies by name, in skill folders and as values, and chooses those that suit a context.

`auto` stands for the strategies that suit the context of each run, and can be combined with other names.

A skill folder has the Agent Skills layout: `SKILL.md`, whose front matter has `name` and `description` and whose
body is the guidance for the root model, and optionally `helpers.py` with definitions.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from rlm_langchain.errors import ConfigurationError, UnknownPlugin
from rlm_langchain.plugins import load, names
from rlm_langchain.protocols import Strategy

AUTO = "auto"
"""The name that stands for the strategies that suit the context."""

DIRECT = "direct"
"""The strategy for a context that fits into the root model's prompt."""

StrategyOption = str | Path | Strategy | Iterable[str | Path | Strategy]


def strategies_of(option: StrategyOption) -> tuple[Strategy, ...]:
    """Return the strategies that `strategies=` names. A folder is a skill folder, or contains skill folders.

    Raises `ConfigurationError` for an unknown name, listing those that are installed, and for two strategies with
    the same name.
    """
    strategies: dict[str, Strategy] = {}
    for strategy in (strategy for one in _as_list(option) for strategy in _strategies(one)):
        if strategies.setdefault(strategy.name, strategy) != strategy:
            raise ConfigurationError(f"two different strategies are called {strategy.name!r}: rename one")
    return tuple(strategies.values())


def is_auto(option: StrategyOption) -> bool:
    """Return whether strategies are to be chosen by the context, in addition to those that are named."""
    return AUTO in [one for one in _as_list(option) if isinstance(one, str)]


def installed() -> tuple[Strategy, ...]:
    """Return all installed strategies. A broken one is named in a warning and left out."""
    strategies = []
    for name, strategy in each_installed():
        if isinstance(strategy, Exception):
            warnings.warn(f"the strategy {name!r} is broken and is left out: {strategy!r}", stacklevel=2)
        else:
            strategies.append(strategy)
    return tuple(strategies)


def each_installed() -> Iterator[tuple[str, Strategy | Exception]]:
    """Yield the name of each installed strategy, with the strategy or with the error of loading it."""
    for name in names("strategies"):
        try:
            yield name, _load(name)
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises when it is loaded
            yield name, error


def read_skill(folder: Path) -> Strategy:
    """Return the strategy in a skill folder. Raises `ConfigurationError` for a folder that is no valid skill."""
    file = folder / "SKILL.md"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{folder} is not a skill: {file.name} cannot be read ({error.strerror})"
        ) from error
    head, body = _front_matter(text, file)
    name = str(head["name"])
    return Strategy(
        name=name,
        description=str(head["description"]),
        guidance=body.strip(),
        prelude=_helpers(name, folder / "helpers.py"),
        whole=_window_share(head.get("whole", 0.0), file),
    )


def _helpers(name: str, file: Path) -> str:
    """Return the code of a skill's helpers, or "" without a file. Raises `ConfigurationError` for invalid code."""
    if not file.is_file():
        return ""
    try:
        code = file.read_text(encoding="utf-8")
        compile(code, str(file), "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as error:
        raise ConfigurationError(
            f"the helpers of the strategy {name!r} are no Python: {file}, line {error.lineno}: {error.msg}"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the helpers of the strategy {name!r} cannot be read: {file}: {error}") from error
    return code


def _as_list(option: StrategyOption) -> list[str | Path | Strategy]:
    return [option] if isinstance(option, str | Path | Strategy) else [*option]


def _strategies(one: str | Path | Strategy) -> list[Strategy]:
    if isinstance(one, Strategy):
        return [one]
    if isinstance(one, Path):
        return _in_folder(one)
    return [] if one == AUTO else [_load(one)]


def _in_folder(folder: Path) -> list[Strategy]:
    if (folder / "SKILL.md").is_file():
        return [read_skill(folder)]
    skills = [read_skill(file.parent) for file in sorted(folder.glob("*/SKILL.md"))]
    if not skills:
        raise ConfigurationError(f"{folder} contains no skill: there is no SKILL.md in it or in one of its folders")
    return skills


def _load(name: str) -> Strategy:
    try:
        strategy = load("strategies", name)
    except UnknownPlugin as error:
        hint = ". A folder of skills is a Path, for the command ./FOLDER"
        raise UnknownPlugin(error.group, error.name, error.known, hint) from error
    if not isinstance(strategy, Strategy):
        raise ConfigurationError(f"the plug-in {name!r} is {type(strategy).__name__}, not a Strategy")
    return strategy


def _window_share(value: object, file: Path) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"whole in {file} is {value!r}: give a share of the root model's window, 0 to 1")
    return float(value)


def _front_matter(text: str, file: Path) -> tuple[dict[str, object], str]:
    fence, _, rest = text.partition("\n")
    head, closing, body = rest.partition("\n---")
    if fence.strip() != "---" or not closing:
        raise ConfigurationError(f"{file} has no front matter: it begins with '---', name, description, '---'")
    try:
        values = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"the front matter of {file} is not valid YAML: {error}") from error
    missing = {"name", "description"} - set(values if isinstance(values, dict) else ())
    if missing:
        raise ConfigurationError(f"the front matter of {file} lacks {', '.join(sorted(missing))}")
    return values, body
