"""LangChain documents, one or several: a list of `{"page_content": ..., "metadata": ...}`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import isfinite
from types import NoneType
from typing import TYPE_CHECKING, Any

from rlm_langchain.context import describe
from rlm_langchain.context.reference import StoreWriter, json_reference
from rlm_langchain.context.sources.json_values import store_json
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from langchain_core.documents import Document

_MAX_DEPTH = 20
"""Levels of metadata that keep their structure. Deeper values become text."""


def accepts(value: Any) -> bool:
    """Accept a `Document`, or a list that contains nothing else."""
    items = as_sequence(value)
    if not items or is_plain(items[0]):
        return False
    from langchain_core.documents import Document

    return all(isinstance(item, Document) for item in items)


def to_reference(value: Document | Sequence[Document], store_writer: StoreWriter) -> ContextRef:
    """Return a reference to the documents in their order. Metadata that is not JSON becomes text."""
    items = [_item(document) for document in as_sequence(value)]
    blob, note = store_json(items, store_writer)
    characters = sum(len(item["page_content"]) for item in items)
    line = describe.join_parts(
        f"list of {describe.count(len(items), 'document')}, dicts with 'page_content' and 'metadata'",
        f"{characters:,} characters of page_content in all ({describe.tokens(blob.size)} as JSON)",
        f"metadata of the first: {describe.list_keys(items[0]['metadata'])}",
        note,
    )
    return json_reference(blob, "list", len(items), line)


def as_sequence(value: Any) -> Sequence[Any]:
    """Return a list or tuple as it is, and any other value as a list of one item."""
    return value if isinstance(value, list | tuple) else [value]


def is_plain(value: Any) -> bool:
    """Return whether a value is certainly no LangChain object, so that LangChain need not be imported."""
    return isinstance(value, str | int | float | bytes | list | tuple | dict | NoneType)


def _item(document: Document) -> dict[str, Any]:
    return {"page_content": document.page_content, "metadata": _to_json_value(document.metadata)}


def _to_json_value(value: Any, depth: int = 0) -> Any:
    """Convert a value to JSON: dates to ISO format, other objects without a JSON form to text."""
    value = _plain(value)
    if isinstance(value, str | int | NoneType) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {str(key): _to_json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
        return [_to_json_value(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset) and depth < _MAX_DEPTH:
        return sorted((_to_json_value(item, depth + 1) for item in value), key=str)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _plain(value: Any) -> Any:
    """Return the value of an Enum, and NumPy's numbers as Python's. Anything else is returned unchanged."""
    if isinstance(value, Enum):
        return value.value
    return value.tolist() if getattr(getattr(value, "dtype", None), "kind", " ") in "biufU" else value
