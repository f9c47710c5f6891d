"""Converts metadata to JSON and back. Loaded values have the types that were saved; other types are refused.

JSON has no dates and no tuples. Such a value is written as `{"$date": "2026-01-31"}`, a dict whose only key names
the type.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Any
from uuid import UUID

from rlm_langchain.errors import InputError

_MAX_DEPTH = 100
"""Maximum nesting of lists and dicts."""
_PLAIN = (str, int, bool, NoneType)
_CONVERTERS: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (lambda value: [value.days, value.seconds, value.microseconds], lambda value: timedelta(*value)),
    Decimal: (str, Decimal),
    UUID: (str, UUID),
    bytes: (lambda value: base64.b64encode(value).decode(), base64.b64decode),
    float: (repr, float),
}
_NUMPY_KINDS = "biufUS"
"""NumPy's codes for the data types that are converted: booleans, numbers and texts."""
_COLLECTIONS: dict[type, Callable[[Any], Any]] = {tuple: tuple, set: set, frozenset: frozenset}
_BY_NAME = {f"${kind.__name__}": kind for kind in (*_CONVERTERS, *_COLLECTIONS)}


def to_python_types(value: Any) -> Any:
    """Return a value with NumPy's numbers and arrays converted to Python's types. Containers are copied."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict) and type(value) is dict:
        return {to_python_types(key): to_python_types(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(to_python_types, value))
    if type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "") in _NUMPY_KINDS:
        return value.tolist()
    return value


def to_json_value(value: Any, depth: int = 0) -> Any:
    """Return a value in JSON's types. Raises `InputError` for a type that could not be restored."""
    kind = type(value)
    if depth > _MAX_DEPTH:
        raise InputError(f"it is nested more than {_MAX_DEPTH} levels deep, or contains itself: flatten it")
    if kind in _PLAIN or (kind is float and isfinite(value)):
        return value
    if kind is list:
        return [to_json_value(item, depth + 1) for item in value]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: to_json_value(item, depth + 1) for key, item in value.items()}
        pairs = [[to_json_value(part, depth + 1) for part in pair] for pair in value.items()]
        return {"$dict": pairs}
    if kind in _CONVERTERS:
        return {f"${kind.__name__}": _CONVERTERS[kind][0](value)}
    if kind in _COLLECTIONS:
        items = value if kind is tuple else sorted(value, key=lambda item: (type(item).__name__, repr(item)))
        return {f"${kind.__name__}": [to_json_value(item, depth + 1) for item in items]}
    raise InputError(
        f"it holds {repr(value)[:100]} of type {kind.__name__}: give text, numbers, booleans, None, dates, times, "
        "Decimal, UUID, bytes, or lists, tuples, sets and dicts of these; for an Enum, its `value`"
    )


def from_json_value(value: Any) -> Any:
    """Return the value that `to_json_value` converted.

    Raises `ValueError`, `KeyError`, `TypeError` or `ArithmeticError` for anything else.
    """
    if isinstance(value, list):
        return [from_json_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    [name, *more] = value or [""]
    if not name.startswith("$"):
        return {key: from_json_value(item) for key, item in value.items()}
    if more:
        raise ValueError(name)
    if name == "$dict":
        return {from_json_value(key): from_json_value(item) for key, item in value[name]}
    kind = _BY_NAME[name]
    return (
        _CONVERTERS[kind][1](value[name])
        if kind in _CONVERTERS
        else _COLLECTIONS[kind](map(from_json_value, value[name]))
    )
