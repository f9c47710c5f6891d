"""What the numbers that a person gives must be: a limit that is none, NaN say, would never apply."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from math import isfinite
from typing import Any, NamedTuple

from rlm_langchain.errors import ConfigurationError


class NumberRule(NamedTuple):
    """What a field of numbers must be."""

    field: str
    least: float = 0
    whole: bool = False
    """Whether it counts things."""


def check_numbers(given: Any, demands: Iterable[NumberRule]) -> None:
    """Hold a dataclass of numbers to these demands; None is as good where the type of its field has it.

    Raises `ConfigurationError` for what is not a finite number of at least the least. True is no number.
    """
    optional = {field.name for field in fields(given) if "None" in str(field.type)}
    for demand in demands:
        value = getattr(given, demand.field)
        if value is None and demand.field in optional:
            continue
        if wrong := _fault(value, demand):
            raise ConfigurationError(f"{type(given).__name__}({demand.field}={value!r}): {demand.field} {wrong}")


def _fault(value: object, demand: NumberRule) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int if demand.whole else (int, float)):
        return f"is a {'whole ' * demand.whole}number"
    if not isfinite(value):
        return "is a finite number"
    return f"cannot be less than {demand.least:g}" if value < demand.least else None
