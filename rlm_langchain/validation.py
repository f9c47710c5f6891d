"""Validates options: their names, their types, and numbers. NaN is refused, because a NaN limit never triggers."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rlm_langchain.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

T = TypeVar("T")


class NumberRule(NamedTuple):
    """The rule for one numeric field of a dataclass."""

    field: str
    least: float = 0
    """The smallest allowed value."""
    whole: bool = False
    """Whether only integers are allowed."""


MAX_WHOLE = 2**63 - 1
"""The largest whole number of an option: what databases can store."""


def check_numbers(options: Any, rules: Iterable[NumberRule]) -> None:
    """Check the numeric fields of a dataclass. None is allowed where the annotation allows it.

    Raises `ConfigurationError` for a value that is not a finite number of at least `least`. Booleans are refused.
    """
    optional = {field.name for field in fields(options) if "None" in str(field.type)}
    for rule in rules:
        value = getattr(options, rule.field)
        if value is None and rule.field in optional:
            continue
        if problem := _problem(value, rule):
            raise ConfigurationError(
                f"{type(options).__name__}({rule.field}={shown(value)}): {rule.field} {problem}"
            )


def _problem(value: object, rule: NumberRule) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int if rule.whole else (int, float)):
        return f"must be a {'whole ' * rule.whole}number"
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        return f"must not be more than {MAX_WHOLE}"
    if not isfinite(value):
        return "must be a finite number"
    return f"must not be less than {rule.least:g}" if value < rule.least else None


def shown(value: object) -> str:
    """Return a value for a message, shortened; its type if it cannot be shown."""
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001 - whatever the `__repr__` of another's object raises
        return f"<{type(value).__name__}>"


def check_types(what: str, kinds: type | tuple[type, ...], **given: object) -> None:
    """Raise `ConfigurationError` for the first of the `given` options that has none of the types `kinds`.

    `what` names the object with these options in the message.
    """
    for name, value in given.items():
        if not isinstance(value, kinds):
            named = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
            wanted = " or ".join("None" if kind == "NoneType" else kind for kind in named)
            raise ConfigurationError(f"{what}: {name}={shown(value)} cannot be used; give {wanted}")


def check_names(given: Iterable[str], known: Collection[str]) -> None:
    """Raise `ConfigurationError` for the first unknown option. The message suggests the nearest known one."""
    from difflib import get_close_matches  # imported at the first mistake, to keep `import rlm_langchain` fast

    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise ConfigurationError(f"there is no option {name!r}; {meant}")


def checked_arguments(cls: type[T]) -> type[T]:
    """Make a dataclass raise `ConfigurationError` for unknown arguments and texts and numbers of a wrong type."""
    check_keywords(cls)
    return cls


def check_keywords(cls: type[Any], replaced: Mapping[str, str] = {}) -> None:
    """Do what `checked_arguments` does. `replaced` maps removed arguments to what to give instead."""
    make: Any = cls.__init__
    known = {field.name: str(field.type) for field in fields(cls)}

    @wraps(make)
    def made(self: Any, *args: Any, **options: Any) -> None:
        for name in options.keys() & replaced.keys():
            raise ConfigurationError(f"{cls.__name__} has no {name!r} any more: {replaced[name]}")
        check_names(options, known)
        try:
            make(self, *args, **options)
        except TypeError as error:
            raise ConfigurationError(f"{cls.__name__}: {str(error).partition('() ')[2] or error}") from error
        for name, kind in known.items():
            if (kinds := _KINDS.get(kind)) is not None:
                check_types(cls.__name__, kinds, **{name: getattr(self, name)})

    cls.__init__ = made


_KINDS: Mapping[str, tuple[type, ...]] = {"str": (str,), "float": (int, float)}
"""The accepted types of a field, by its annotation. Fields with other annotations are not checked."""


@contextmanager
def option_errors(model: type[BaseModel]) -> Iterator[None]:
    """Turn a `ValidationError` of pydantic about the options of `model` into a `ConfigurationError`."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else model.__name__
        if fault["type"] == "extra_forbidden":
            check_names([name], {field.alias or name for name, field in model.model_fields.items()})
        if fault["type"] == "missing":
            raise ConfigurationError(f"{model.__name__} needs the option {name!r}") from None
        given, alone = fault["input"], fault["type"] == "is_instance_of" and "Sequence" in fault["msg"]
        raise ConfigurationError(
            f"{name}={given.__name__} is a class: give one of it, {given.__name__}(...)"
            if isinstance(given, type)
            else f"{name}={given!r} cannot be used: give a list, {name}=[...]"
            if alone
            else f"{name}={given!r} cannot be used: {_wanted(error, name)}"
        ) from None


def _wanted(error: ValidationError, name: str) -> str:
    """Return what pydantic says of an option. Where it may be of several types, it says something of each."""
    told = [fault["msg"] for fault in error.errors(include_url=False) if str(fault["loc"][:1]) == f"({name!r},)"]
    return " or: ".join(dict.fromkeys(told)) or error.errors(include_url=False)[0]["msg"]
