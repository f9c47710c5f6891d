"""Converts the results of tools to JSON, for code in the REPL. An object that cannot be converted becomes a dict
with its type and its text.

`docs/how-to/tools.md` has a table of all conversions. No library is imported for them: arrays and frames are
recognised by their methods.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Set,
    ValuesView,
)
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from io import IOBase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any
from uuid import UUID

from langgraph.types import Command, Send
from pydantic import AnyUrl, BaseModel
from pydantic_core import Url

from rlm_langchain.context.sanitize import clip
from rlm_langchain.types import Plain

NO_DATA = "not_data"
"""The key of a dict that stands for an object which is no data. Its value is the object's type; `text` is its
text."""
MAX_DEPTH = 100
"""The most levels of nested lists and dicts."""
_MAX_TEXT_CHARS = 2_000
"""The most characters of the text of an object that is no data."""
_AS_TEXT = (
    UUID,
    PurePath,
    Fraction,
    complex,
    AnyUrl,
    Url,
    IPv4Address,
    IPv6Address,
    IPv4Network,
    IPv6Network,
)
"""Types whose values become text without loss."""
_BLOCK_KEYS = frozenset(("type", "text", "id", "annotations", "extras", "index"))
"""The keys that a content block with text may have."""
_LISTS = (list, tuple, deque, range, KeysView, ValuesView, ItemsView)


class UnusableResult(Exception):
    """A result that code cannot get. The text says why, as the end of a sentence about the tool."""


def as_json(result: Any, most: int) -> str:
    """Return a result as JSON of at most `most` bytes. Raises `UnusableResult`, and the errors of foreign
    objects."""
    text = json.dumps(_Converter(most).convert(result, 0))
    if len(text) > most:
        raise UnusableResult(too_big_message(most))
    return text


def text_of_blocks(result: Any, *, is_content: bool = False) -> Any:
    """Return the joined text of a result that is a list of text blocks, as from MCP servers and models. Return any
    other result as it is.

    A dict with other keys, too, is a text block in the content of a message (`is_content`). Elsewhere it is data.
    """
    if not isinstance(result, list) or not result:
        return result
    if all(_is_text(block) and (is_content or block.keys() <= _BLOCK_KEYS) for block in result):
        return "\n".join(block["text"] for block in result)
    return result


def _is_text(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)


def too_big_message(most: int) -> str:
    """Return the error message for a result of more than `most` bytes, as the end of a sentence about the tool."""
    return f"its result is over {most:,} bytes, the most that a call brings back (Limits.value): ask for less"


class _Converter:
    """Converts one result. Raises `UnusableResult` as soon as it would be longer than `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def convert(self, value: Any, depth: int) -> Plain:
        """Return a value as JSON types."""
        if depth > MAX_DEPTH:
            raise UnusableResult(f"its result is nested deeper than {MAX_DEPTH} levels, or holds itself")
        self._spend(2)  # a digit and a comma
        match value:
            case enum.Enum():
                return self.convert(value.value, depth + 1)
            case None | bool():
                return value
            case str():
                self._spend(len(value))
                return _without_surrogates(str.__str__(value))
            case int():
                return int(value)
            case float():
                return float(value)
        simple = _scalar(value)
        return self._compound(value, depth) if simple is _UNKNOWN else self.convert(simple, depth + 1)

    def _compound(self, value: Any, depth: int) -> Plain:
        if isinstance(value, Command | Send):
            raise UnusableResult(
                f"it returned a {type(value).__name__}, which only the graph of an agent could follow"
            )
        if isinstance(value, AsyncIterator | Awaitable):
            raise UnusableResult(
                f"it returned a {type(value).__name__}: let it await that, and return what comes of it"
            )
        if (fields := _fields(value)) is not None:
            return self.convert(fields, depth + 1)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, set | frozenset | Set) and not isinstance(value, KeysView | ItemsView):
            return sorted(self._list(value, depth), key=_sort_key)
        if isinstance(value, _LISTS) or (isinstance(value, Iterator) and not isinstance(value, IOBase)):
            return self._list(value, depth)
        table = self._table(value)
        if table is not _UNKNOWN:
            return self.convert(table, depth + 1)
        return {NO_DATA: type(value).__name__, "text": clip(str(value), _MAX_TEXT_CHARS)}

    def _list(self, items: Iterable[Any], depth: int) -> list[Any]:
        return [self.convert(item, depth + 1) for item in items]

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        converted: dict[str, Any] = {}
        for key, item in value.items():
            name = self._key(key)
            if name in converted:
                raise UnusableResult(
                    f"its result holds a dict with two keys that are {clip(repr(name), 60)} as text"
                )
            converted[name] = self.convert(item, depth + 1)
        return converted

    def _key(self, key: Any) -> str:
        if isinstance(key, tuple):
            return str(key)
        plain = self.convert(key, 0)
        return plain if isinstance(plain, str) else json.dumps(plain)

    def _table(self, value: Any) -> Any:
        """Return an array or a frame as lists and dicts. `_UNKNOWN` for other values."""
        if isinstance(value, type):
            return _UNKNOWN
        size = getattr(value, "size", 0)
        self._spend(2 * size if isinstance(size, int) else 0)
        if _has_all(value, "to_dict", "columns", "index", "itertuples"):
            return _frame(value)
        if _has_all(value, "to_dict", "index", "tolist"):
            return _series(value)
        for method in ("to_dicts", "to_list", "to_pylist"):  # of polars, and of Arrow
            if _has_all(value, method):
                return getattr(value, method)()
        if _has_all(value, "tolist", "dtype"):
            return _array(value)
        return _UNKNOWN

    def _spend(self, size: int) -> None:
        """Subtract `size` from the bytes that are left. An endless iterator ends here."""
        self._left -= size
        if self._left < 0:
            raise UnusableResult(too_big_message(self._most))


_UNKNOWN = object()
"""The result of a conversion that does not know the type of the value."""


def _scalar(value: Any) -> Any:
    """Return a value that is no container as text or a number. `_UNKNOWN` for other values."""
    match value:
        case _ if type(value).__name__ in ("NaTType", "NAType"):  # missing values of pandas
            return None
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return _decimal(value)
        case bytes() | bytearray() | memoryview():
            return _bytes(bytes(value))
    return str(value) if isinstance(value, _AS_TEXT) else _UNKNOWN


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates in a text: the JSON of the sandboxes and databases do not accept them."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _decimal(value: Decimal) -> float | str:
    """Return a float, or text if a float would change the number."""
    number = float(value)
    return number if math.isfinite(number) and Decimal(repr(number)) == value else str(value)


def _bytes(value: bytes) -> str | dict[str, str]:
    from base64 import b64encode

    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _fields(value: Any) -> Any:
    """Return the fields of a pydantic model, a dataclass or a named tuple. None for other values."""
    if isinstance(value, type):
        return None
    if isinstance(value, BaseModel):
        return value.model_dump()
    if _has_all(value, "__fields__", "dict"):  # a model of pydantic 1
        return value.dict()
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return None


def _sort_key(item: Any) -> tuple[int, Any]:
    """Return a key that sorts the items of a set: numbers by size, then others by their text.

    Sets have no order of their own, and a replay needs the same one.
    """
    if isinstance(item, int | float):
        return (0, item)
    return (1, item if isinstance(item, str) else json.dumps(item))


def _has_all(value: Any, *names: str) -> bool:
    return all(hasattr(type(value), name) or hasattr(value, name) for name in names)


def _array(value: Any) -> Any:
    """Return a scalar or an array of numpy, or of a similar library. Dates are text in numpy's format, because
    numpy's own conversion gives nanoseconds. Durations are in seconds."""
    names, kind = getattr(value.dtype, "names", None), getattr(value.dtype, "kind", "")
    if names:
        fields = [_array(value[name]) for name in names]
        return _rows(names, fields) if value.shape else dict(zip(names, fields, strict=True))
    if kind == "M":
        return _without_nat(value.astype(str).tolist())
    if kind == "m":
        import numpy

        return (value / numpy.timedelta64(1, "s")).tolist()
    return value.tolist()


def _rows(names: Iterable[str], columns: list[Any]) -> list[Any]:
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _without_nat(times: Any) -> Any:
    if isinstance(times, list):
        return [_without_nat(time_text) for time_text in times]
    return None if times == "NaT" else times


def _frame(value: Any) -> Any:
    """Return the rows of a pandas frame as dicts, with the index unless it only numbers the rows."""
    rows = value if _is_default_index(value.index) else value.reset_index()
    if not rows.columns.is_unique:
        raise UnusableResult("its result is a table with two columns of one name")
    return rows.to_dict("records")


def _series(value: Any) -> Any:
    """Return a pandas series as a list, or as a dict by its index unless that only numbers the entries."""
    if _is_default_index(value.index):
        return value.tolist()
    if not value.index.is_unique:
        raise UnusableResult("its result is a series with two entries of one name")
    return value.to_dict()


def _is_default_index(index: Any) -> bool:
    """Return whether a pandas index only counts from 0."""
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1
