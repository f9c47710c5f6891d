"""What tools give back, as data that code in the REPL can use. What is no data comes as a dict that says so.

`docs/how-to/tools.md` has the table. Nothing is imported for it: arrays and frames are known by their methods.
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
"""The key of a dict that stands for what is no data: its type, beside its `text`."""
DEEPEST = 100
"""Levels of lists and dicts."""
_TEXT = 2_000
"""Characters that are taken of the text of what is no data."""
_WRITTEN = (
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
"""What a text says as well."""
_BLOCK = frozenset(("type", "text", "id", "annotations", "extras", "index"))
"""The keys of a content block that is text."""
_LISTS = (list, tuple, deque, range, KeysView, ValuesView, ItemsView)


class Unusable(Exception):
    """A result that cannot be given to code. The text says why, as the end of a sentence about the tool."""


def as_json(result: Any, most: int) -> str:
    """Return a result as JSON of at most `most` bytes. Raises `Unusable`, and whatever foreign objects raise."""
    text = json.dumps(_Walk(most).data(result, 0))
    if len(text) > most:
        raise Unusable(too_big(most))
    return text


def of_blocks(result: Any, *, is_content: bool = False) -> Any:
    """Return the text of a result that is blocks of text and nothing else, as MCP servers and models write it.

    A dict with other keys is such a block only in the content of a message (`is_content`): elsewhere it is data.
    """
    if not isinstance(result, list) or not result:
        return result
    if all(_is_text(block) and (is_content or block.keys() <= _BLOCK) for block in result):
        return "\n".join(block["text"] for block in result)
    return result


def _is_text(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)


def too_big(most: int) -> str:
    """Return what is said of a result that is longer than `most` bytes."""
    return f"its result is over {most:,} bytes, the most that a call brings back (Limits.value): ask for less"


class _Walk:
    """One walk over one result."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def data(self, value: Any, depth: int) -> Plain:
        """Return a value as data."""
        if depth > DEEPEST:
            raise Unusable(f"its result is nested deeper than {DEEPEST} levels, or holds itself")
        self._take(2)  # a digit and a comma
        match value:
            case enum.Enum():
                return self.data(value.value, depth + 1)
            case None | bool():
                return value
            case str():
                self._take(len(value))
                return _whole(str.__str__(value))
            case int():
                return int(value)
            case float():
                return float(value)
        simple = _simple(value)
        return self._compound(value, depth) if simple is _NONE else self.data(simple, depth + 1)

    def _compound(self, value: Any, depth: int) -> Plain:
        if isinstance(value, Command | Send):
            raise Unusable(f"it returned a {type(value).__name__}, which only the graph of an agent could follow")
        if isinstance(value, AsyncIterator | Awaitable):
            raise Unusable(f"it returned a {type(value).__name__}: let it await that, and return what comes of it")
        if (fields := _fields(value)) is not None:
            return self.data(fields, depth + 1)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, set | frozenset | Set) and not isinstance(value, KeysView | ItemsView):
            return sorted(self._list(value, depth), key=_sorting)
        if isinstance(value, _LISTS) or (isinstance(value, Iterator) and not isinstance(value, IOBase)):
            return self._list(value, depth)
        table = self._table(value)
        if table is not _NONE:
            return self.data(table, depth + 1)
        return {NO_DATA: type(value).__name__, "text": clip(str(value), _TEXT)}

    def _list(self, items: Iterable[Any], depth: int) -> list[Any]:
        return [self.data(item, depth + 1) for item in items]

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in value.items():
            name = self._key(key)
            if name in found:
                raise Unusable(f"its result holds a dict with two keys that are {clip(repr(name), 60)} as text")
            found[name] = self.data(item, depth + 1)
        return found

    def _key(self, key: Any) -> str:
        if isinstance(key, tuple):
            return str(key)
        data = self.data(key, 0)
        return data if isinstance(data, str) else json.dumps(data)

    def _table(self, value: Any) -> Any:
        """Return an array or a frame as lists and dicts; `_NONE` for what is neither."""
        if isinstance(value, type):
            return _NONE
        size = getattr(value, "size", 0)
        self._take(2 * size if isinstance(size, int) else 0)
        if _has(value, "to_dict", "columns", "index", "itertuples"):
            return _frame(value)
        if _has(value, "to_dict", "index", "tolist"):
            return _series(value)
        for method in ("to_dicts", "to_list", "to_pylist"):  # of polars, and of Arrow
            if _has(value, method):
                return getattr(value, method)()
        if _has(value, "tolist", "dtype"):
            return _array(value)
        return _NONE

    def _take(self, size: int) -> None:
        """Count what is written so far: an iterator may have no end."""
        self._left -= size
        if self._left < 0:
            raise Unusable(too_big(self._most))


_NONE = object()


def _simple(value: Any) -> Any:
    """Return what a value that is no container says as a text or a number; `_NONE` for others."""
    match value:
        case _ if type(value).__name__ in ("NaTType", "NAType"):  # "not there", in the words of pandas
            return None
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return _decimal(value)
        case bytes() | bytearray() | memoryview():
            return _bytes(bytes(value))
    return str(value) if isinstance(value, _WRITTEN) else _NONE


def _whole(text: str) -> str:
    """Return a text with halves of surrogate pairs replaced: no JSON of a sandbox, and no database, takes them."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _decimal(value: Decimal) -> float | str:
    """Return a number, or the text of one that a float would change."""
    number = float(value)
    return number if math.isfinite(number) and Decimal(repr(number)) == value else str(value)


def _bytes(value: bytes) -> str | dict[str, str]:
    from base64 import b64encode

    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _fields(value: Any) -> Any:
    """Return the fields of an object that is known by them, else None."""
    if isinstance(value, type):
        return None
    if isinstance(value, BaseModel):
        return value.model_dump()
    if _has(value, "__fields__", "dict"):  # of pydantic 1
        return value.dict()
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return None


def _sorting(item: Any) -> tuple[int, Any]:
    """Numbers by size, then all else by its text: sets have no order, and a run that is repeated needs one."""
    if isinstance(item, int | float):
        return (0, item)
    return (1, item if isinstance(item, str) else json.dumps(item))


def _has(value: Any, *names: str) -> bool:
    return all(hasattr(type(value), name) or hasattr(value, name) for name in names)


def _array(value: Any) -> Any:
    """Return a scalar or an array, of numpy or like it. Moments as numpy writes them: its integers would be
    nanoseconds without a word; spans in seconds."""
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


def _without_nat(moments: Any) -> Any:
    if isinstance(moments, list):
        return [_without_nat(moment) for moment in moments]
    return None if moments == "NaT" else moments


def _frame(value: Any) -> Any:
    """Return the rows of a frame of pandas as dicts, with its index unless that only counts them."""
    rows = value if _counts(value.index) else value.reset_index()
    if not rows.columns.is_unique:
        raise Unusable("its result is a table with two columns of one name")
    return rows.to_dict("records")


def _series(value: Any) -> Any:
    """Return a series of pandas as a list, or as a dict where its index has names."""
    if _counts(value.index):
        return value.tolist()
    if not value.index.is_unique:
        raise Unusable("its result is a series with two entries of one name")
    return value.to_dict()


def _counts(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1
