"""The options that several commands share: those of the RLM, and those of the output."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer
from pydantic import ConfigDict, TypeAdapter, ValidationError

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limits import LIMITS
from rlm_langchain.errors import JournalError

T = TypeVar("T")


def limit_options() -> dict[str, Any]:
    """Return the type and the flag of each parameter that sets a limit, by its name, in the order of `Budget`."""
    rows = {limit.field: limit for limit in LIMITS}
    options: dict[str, Any] = {}
    for limit in (rows[field.name] for field in fields(Budget) if field.name in rows):
        if (option := limit.option) is not None:
            kind = str if option.text else int if limit.whole else float
            least = None if option.text else limit.least
            flag = typer.Option(option.flag, metavar=option.metavar, min=least, help=option.help)
            options[option.name] = Annotated[kind | None, flag]
    return options


def _with_limits(cls: type[T]) -> type[T]:
    """Add to a dataclass a field for each parameter that sets a limit. None: the option was not used."""
    for name, hint in limit_options().items():
        cls.__annotations__.pop(name, None)
        cls.__annotations__[name] = hint
        setattr(cls, name, None)
    return cls


@dataclass(frozen=True, slots=True)
@_with_limits
class Setup:
    """The options of an RLM, as they were typed. They are names and numbers only, and are saved with a run."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME", help="The model that writes the code. Default: the one in RLM_MODEL."
        ),
    ] = None
    sub_model: Annotated[
        str | None,
        typer.Option(
            "--sub-model",
            metavar="NAME",
            help="The model that answers sub-calls. Default: the one in RLM_SUB_MODEL, else the same model.",
        ),
    ] = None
    sandbox: Annotated[
        str | None,
        typer.Option(
            "--sandbox", metavar="NAME", help="Where the code runs: auto, cpython or monty. Default: auto."
        ),
    ] = None
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="A strategy from `rlm strategies`, a folder of skills, or auto. May be repeated.",
        ),
    ] = None
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema", metavar="FILE", help="The answer must fit this JSON schema: a file, or the schema itself."
        ),
    ] = None
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            metavar="IN:OUT",
            help="Dollars per million input and output tokens, for models whose price is unknown. NAME=IN:OUT sets "
            "the price of one model. May be repeated.",
        ),
    ] = None
    approve_above_calls: str | None = None
    approve_above_usd: str | None = None
    """A number or `off`, as it was typed. `_with_limits` adds a field for each of the other limits."""

    def merged_with(self, saved: Setup) -> Setup:
        """Return these options, with those of a saved run for what is not set. Strategies are added to its own."""
        values = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        strategies = list(dict.fromkeys([*(saved.strategy or ()), *(self.strategy or ())]))
        return replace(saved, **{**values, "strategy": strategies or None})


def write_setup(setup: Setup) -> str:
    """Return options as text, for a checkpoint."""
    return TypeAdapter(Setup).dump_json(setup, exclude_none=True).decode()


def read_setup(text: str | None) -> Setup:
    """Return options from the text in a checkpoint. None: another program began the run. Raises `JournalError`."""
    try:
        return Setup() if text is None else TypeAdapter(Setup).validate_json(text)
    except ValidationError as error:
        raise JournalError("the options of this run are damaged in its checkpoint: ask on a new thread") from error


@dataclass(frozen=True, slots=True)
class DisplayOptions:
    """The options of the output of a run."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the answer.")] = False
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Write every step to this file, as JSON Lines.")
    ] = None
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Show no progress, only the answer, errors, and a warning if it may be wrong or incomplete.",
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class DataSetOptions:
    """The options of training data."""

    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="An empty folder, or the name of a new one.")
    ] = Path("dataset")
    form: Annotated[
        Literal["openai", "neutral"],
        typer.Option(
            "--as", metavar="FORM", help="openai: only messages. neutral: question, model, reward and more, too."
        ),
    ] = "openai"
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Right answers as JSON Lines of query and answer: a reward of 1, else 0."
        ),
    ] = None
    min_reward: Annotated[
        float | None, typer.Option(metavar="REWARD", help="Leave out runs with a lower reward. Needs --answers.")
    ] = None
    max_usd: Annotated[
        float | None, typer.Option(metavar="DOLLARS", help="Leave out runs that cost more, or of unknown price.")
    ] = None
    partial: Annotated[
        bool, typer.Option("--partial", help="Take runs that ended early, or whose answer lacks something, too.")
    ] = False
    held_out: Annotated[float, typer.Option(metavar="SHARE", help="Share of the questions to hold out.")] = 0.1


def grouped(helps: Mapping[str, str] = {}) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Return a decorator that replaces each parameter of a command that is a dataclass by its fields, as options.

    `helps` has other help texts, by the name of the field.
    """

    def decorator(command: Callable[..., Any]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
        own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
        options = [option for p in own for option in (_options(groups[p.name], helps) if p.name in groups else [p])]

        @wraps(command)
        def wrapper(**values: Any) -> None:
            for name, group in groups.items():
                values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
            command(**values)

        vars(wrapper)["__signature__"] = inspect.Signature(options)  # read by typer
        return wrapper

    return decorator


def _options(group: Any, helps: Mapping[str, str]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(
            field.name,
            keyword,
            default=field.default,
            annotation=_with_help(hints[field.name], helps.get(field.name)),
        )
        for field in fields(group)
    ]


def _with_help(hint: Any, text: str | None) -> Any:
    """Return the annotation of an option with another help text. None: as it is."""
    if text is None:
        return hint
    option = copy(hint.__metadata__[0])
    option.help = text
    return Annotated[hint.__origin__, option]
