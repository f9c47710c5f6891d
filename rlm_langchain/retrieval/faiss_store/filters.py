"""Compiles metadata filters, written as in LangChain's vector stores: a function, values, or operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Real
from operator import ge, gt, le, lt
from typing import Any

from langchain_core.documents import Document

from rlm_langchain.errors import InputError
from rlm_langchain.retrieval.faiss_store.metadata import to_python_types
from rlm_langchain.retrieval.faiss_store.persistence import StoredDocument

Filter = Callable[[Document], bool] | Mapping[str, Any]
"""A filter as the user gives it: a function of a document, or conditions on its metadata."""
Predicate = Callable[[str, StoredDocument], bool]
"""A compiled filter: returns whether a document, given by its id and its content, satisfies it."""
Test = Callable[[Mapping[str, Any]], bool]
"""A test of the metadata of a document."""

_ORDERS = {"$gt": gt, "$gte": ge, "$lt": lt, "$lte": le}
_ORDERED = (str, Real, Decimal, date, time, timedelta)
_FIELD = ("$eq", "$ne", "$neq", "$in", "$nin", *_ORDERS, "$exists", "$not")
_WHOLE = ("$and", "$or", "$not")
_MISSING = object()
_ASYNC = "a filter cannot be an async function: give one that returns True or False"


def compile_filter(filter: Filter | None) -> Predicate | None:
    """Compile a filter. Raises `InputError` for an invalid one. Call it before anything is paid for."""
    if filter is None:
        return None
    if not callable(filter):
        test = _metadata_test(to_python_types(filter))
        return lambda _, stored: test(stored.metadata)
    if inspect.iscoroutinefunction(filter):
        raise InputError(_ASYNC)
    return lambda name, stored: _verdict(filter(stored.document(name)))


def _verdict(result: Any) -> bool:
    """Return what a filter function decided. Any awaitable would be true."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise InputError(_ASYNC)
    return bool(result)


def _metadata_test(filter: Any) -> Test:
    """Return a test of all conditions of a dict."""
    if not isinstance(filter, Mapping):
        raise InputError(
            f"{filter!r} is not a filter: give a function of a document, or a dict of metadata, such as "
            '{"year": {"$gte": 1990}}'
        )
    return _all([_condition(key, wanted) for key, wanted in filter.items()])


def _condition(key: Any, wanted: Any) -> Test:
    match key:
        case "$and" | "$or":
            tests = [_metadata_test(part) for part in _list(key, wanted)]
            return _all(tests) if key == "$and" else lambda metadata: any(test(metadata) for test in tests)
        case "$not":
            test = _metadata_test(wanted)
            return lambda metadata: not test(metadata)
        case str() if not key.startswith("$"):
            return _field(key, wanted)
    raise _unknown(key, _WHOLE, "for a whole filter")


def _field(key: str, wanted: Any) -> Test:
    """Return the test of one key of the metadata."""
    meets = _value(wanted)
    return lambda metadata: meets(metadata.get(key, _MISSING))


def _value(wanted: Any) -> Callable[[Any], bool]:
    """Return the test of a value, which may be `_MISSING`."""
    if isinstance(wanted, Mapping) and any(isinstance(name, str) and name.startswith("$") for name in wanted):
        tests = [_operator(name, given) for name, given in wanted.items()]
        return lambda value: all(test(value) for test in tests)
    if isinstance(wanted, list | tuple | set | frozenset):
        return lambda value: _same(value, wanted) or _among(value, wanted)
    if callable(wanted) or isinstance(wanted, range | slice):
        raise InputError(
            f"no metadata equals {wanted!r}: give a value, or a function of the whole document as filter"
        )
    return lambda value: _same(value, wanted)


def _operator(name: Any, wanted: Any) -> Callable[[Any], bool]:
    match name:
        case "$eq":
            return lambda value: _same(value, wanted)
        case "$ne" | "$neq":
            return lambda value: not _same(value, wanted)
        case "$in" | "$nin":
            choices = _list(name, wanted, least=0)
            return lambda value: _among(value, choices) is (name == "$in")
        case "$gt" | "$gte" | "$lt" | "$lte":
            _can_be_ordered(name, wanted)
            return lambda value: _in_order(_ORDERS[name], value, wanted)
        case "$exists":
            if not isinstance(wanted, bool):
                raise InputError(f"$exists takes True or False, not {wanted!r}")
            return lambda value: (value is not _MISSING) is wanted
        case "$not":
            meets = _value(wanted)
            return lambda value: not meets(value)
    raise _unknown(name, _FIELD, "for a key of the metadata")


def _same(value: Any, wanted: Any) -> bool:
    """Return whether a value equals `wanted`. A missing value equals None, as in LangChain's own stores."""
    return wanted is None if value is _MISSING else bool(value == wanted)


def _among(value: Any, choices: Iterable[Any]) -> bool:
    return any(_same(value, choice) for choice in choices)


def _in_order(order: Callable[[Any, Any], bool], value: Any, wanted: Any) -> bool:
    """Return whether two values are in this order. Values that cannot be compared are not."""
    try:
        return value is not _MISSING and value is not None and bool(order(value, wanted))
    except TypeError:
        return False


def _can_be_ordered(name: str, wanted: Any) -> None:
    if not isinstance(wanted, _ORDERED) or wanted != wanted:  # noqa: PLR0124 - NaN
        raise InputError(f"{name} takes a number, a text, a date or a time, not {wanted!r}")


def _list(name: str, wanted: Any, least: int = 1) -> list[Any]:
    if not isinstance(wanted, list | tuple | set | frozenset) or len(wanted) < least:
        raise InputError(f"{name} takes a {'non-empty ' * least}list, not {wanted!r}")
    return [*wanted]


def _unknown(name: Any, known: Iterable[str], where: str) -> InputError:
    return InputError(
        f"{name!r} in a filter is not known {where}: use {', '.join(known)}; for anything else give a function of "
        "a document"
    )


def _all(tests: list[Test]) -> Test:
    return lambda metadata: all(test(metadata) for test in tests)
