"""Lists and dicts of plain values, stored as canonical JSON: the same items in the same order give the same
blob.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from math import isfinite
from types import NoneType
from typing import Any

from rlm_langchain.context import describe
from rlm_langchain.context.blobs import Blob
from rlm_langchain.context.decoding import replacement_note
from rlm_langchain.context.images import count_handles
from rlm_langchain.context.reference import StoreWriter, json_reference, with_images, with_notes
from rlm_langchain.context.sources.text import encode_text
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

_MAX_DEPTH = 100
"""Maximum nesting of lists and dicts: more than data needs, less than any JSON parser accepts."""

_SCALARS = frozenset({str, int, bool, NoneType})


def accepts(value: Any) -> bool:
    """Accept lists, tuples and dicts. `to_reference` checks their items."""
    return isinstance(value, list | tuple | dict)


def to_reference(
    value: list[Any] | tuple[Any, ...] | dict[str, Any], store_writer: StoreWriter
) -> ContextRef | None:
    """Return a reference, or None for an empty list or dict."""
    if not value:
        return None
    data, note = _encoded(value, store_writer)
    blob = store_writer.blobs.put(data)
    if isinstance(value, dict):
        line = describe.describe_dict(value, blob.size)
        ref = json_reference(blob, "dict", len(value), line)
    else:
        preview = describe.preview(value[0]) if isinstance(value[0], str) else None
        line = describe.describe_list(value, blob.size)
        ref = json_reference(blob, "list", len(value), line, preview)
    return with_notes(with_images(ref, count_handles(data)), [note])


def store_json(value: Any, store_writer: StoreWriter) -> tuple[Blob, str]:
    """Store a value as JSON. Return the blob and a note about replacements."""
    data, note = _encoded(value, store_writer)
    return store_writer.blobs.put(data), note


def _encoded(value: Any, store_writer: StoreWriter) -> tuple[bytes, str]:
    data, count = encode_text(to_json(value), strict=store_writer.strict)
    return data, replacement_note(count, "lone surrogate")


def to_json(value: Any) -> str:
    """Return JSON without spaces, in the given order. Raises `InputError` that names what is not JSON, and
    where."""
    if wrong := why_not_json(value):
        raise InputError(f"context{wrong}")
    try:
        return dumps(value)
    except ValueError as error:
        raise InputError(f"the context cannot be written as JSON: {error}") from error


def dumps(value: Any) -> str:
    """Return a value in the format in which JSON is stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def why_not_json(value: Any, depth: int = 0) -> str | None:
    """Return what in a value is not JSON, and where: `["rows"][3] is of type set: ...`. None if all of it is."""
    if isinstance(value, float) and not isfinite(value):
        return f" is {value}, which JSON cannot represent: use None"
    if isinstance(value, str | int | float | NoneType):
        return None
    if isinstance(value, dict):
        return _key_fault(value) or _fault_inside(value.values(), value, depth + 1)
    if isinstance(value, list | tuple):
        return _fault_inside(value, range(len(value)), depth + 1)
    return f" is of type {_type_name(value)}: use text, numbers, True, False, None, and lists and dicts of these"


def _fault_inside(values: Collection[Any], keys: Iterable[Any], depth: int) -> str | None:
    if _SCALARS.issuperset(map(type, values)):  # the usual case, in which there may be millions
        return None
    if depth > _MAX_DEPTH:
        raise InputError(
            f"the context is nested more than {_MAX_DEPTH} levels deep, or contains itself: flatten it"
        )
    for key, item in zip(keys, values, strict=True):
        if found := why_not_json(item, depth):
            return f"[{key if isinstance(key, int) else describe.quoted(key)}]{found}"
    return None


def _key_fault(value: dict[Any, Any]) -> str | None:
    for key in value:
        if not isinstance(key, str):
            return f" has the key {describe.quoted(repr(key))} of type {_type_name(key)}: make its keys str"
    return None


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
