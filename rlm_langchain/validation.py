"""Validation of numeric options. NaN is refused: a NaN limit would never trigger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from math import isfinite
from typing import Any, NamedTuple

from rlm_langchain.errors import ConfigurationError


class NumberRule(NamedTuple):
    """What is allowed for one numeric field of a dataclass."""

    field: str
    least: float = 0
    """The smallest allowed value."""
    whole: bool = False
    """Whether only integers are allowed."""


def check_numbers(options: Any, rules: Iterable[NumberRule]) -> None:
    """Validate the numeric fields of a dataclass. None is allowed where the annotation allows it.

    Raises `ConfigurationError` for a value that is not a finite number of at least `least`. Booleans are refused.
    """
    optional = {field.name for field in fields(options) if "None" in str(field.type)}
    for rule in rules:
        value = getattr(options, rule.field)
        if value is None and rule.field in optional:
            continue
        if problem := _problem(value, rule):
            raise ConfigurationError(f"{type(options).__name__}({rule.field}={value!r}): {rule.field} {problem}")


def _problem(value: object, rule: NumberRule) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int if rule.whole else (int, float)):
        return f"must be a {'whole ' * rule.whole}number"
    if not isfinite(value):
        return "must be a finite number"
    return f"must not be less than {rule.least:g}" if value < rule.least else None
