"""The options that several commands share: what an RLM is made of, and what is shown of its work."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from pydantic import ConfigDict, TypeAdapter, ValidationError

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limits import LIMITS
from rlm_langchain.errors import JournalError

T = TypeVar("T")


def limit_options() -> dict[str, Any]:
    """Return the type and the flag of each parameter that sets limits, by its name, in the order of `Budget`."""
    rows = {limit.field: limit for limit in LIMITS}
    found: dict[str, Any] = {}
    for limit in (rows[field.name] for field in fields(Budget) if field.name in rows):
        if (option := limit.option) is not None:
            kind = str if option.text else int if limit.whole else float
            least = None if option.text else limit.least
            told = typer.Option(option.flag, metavar=option.metavar, min=least, help=option.help)
            found[option.name] = Annotated[kind | None, told]
    return found


def _with_limits(cls: type[T]) -> type[T]:
    """Give a class that becomes a dataclass a field for each parameter that sets limits; None: it was not given."""
    for name, hint in limit_options().items():
        cls.__annotations__.pop(name, None)
        cls.__annotations__[name] = hint
        setattr(cls, name, None)
    return cls


@dataclass(frozen=True, slots=True)
@_with_limits
class Setup:
    """What an RLM is made of, as far as it was said. It holds names only, so it may be kept beside a run."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="The model that writes the code. Default: RLM_MODEL."),
    ] = None
    sub_model: Annotated[
        str | None,
        typer.Option(
            "--sub-model", metavar="NAME", help="Answers sub-calls. Default: RLM_SUB_MODEL, else the same model."
        ),
    ] = None
    sandbox: Annotated[
        str | None,
        typer.Option("--sandbox", metavar="NAME", help="Where the code runs: auto (the default), cpython, monty."),
    ] = None
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", metavar="NAME", help="A way to work, see `rlm strategies`; auto, or a folder of skills."
        ),
    ] = None
    schema: Annotated[
        str | None,
        typer.Option("--schema", metavar="FILE", help="JSON schema of the answer: a file, or the schema itself."),
    ] = None
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            metavar="IN:OUT",
            help="Dollars per million input and output tokens, if no price is known; NAME=IN:OUT for one model.",
        ),
    ] = None
    approve_above_calls: str | None = None
    approve_above_usd: str | None = None
    """A number or `off`, as it was typed. The other limits are fields, too, without being written here."""

    def over(self, before: Setup) -> Setup:
        """These options, and for what they leave open those of before. Strategies come beside those of before."""
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        ways = list(dict.fromkeys([*(before.strategy or ()), *(self.strategy or ())]))
        return replace(before, **{**given, "strategy": ways or None})


def write_setup(setup: Setup) -> str:
    """As a checkpoint keeps it."""
    return TypeAdapter(Setup).dump_json(setup, exclude_none=True).decode()


def read_setup(text: str | None) -> Setup:
    """As a checkpoint kept it; None for a run that another program began. Raises `JournalError`."""
    try:
        return Setup() if text is None else TypeAdapter(Setup).validate_json(text)
    except ValidationError as error:
        raise JournalError("the options of this run are damaged in its checkpoint: ask on a new thread") from error


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command shows, and keeps, of a run."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the answer.")] = False
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Keep every step in this file, as JSON Lines.")
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but the answer.")] = False


def grouped(command: Callable[..., Any]) -> Callable[..., None]:
    """Give a command the options of its parameters that are dataclasses like those above, each in its place."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
    options = [one for p in own for one in (_options(groups[p.name]) if p.name in groups else [p])]

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    vars(called)["__signature__"] = inspect.Signature(options)  # what typer reads
    return called


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]
