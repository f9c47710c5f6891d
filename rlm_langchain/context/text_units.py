"""Splits a context into named texts, with little of it in memory at a time.

A text is one source, `context`. In a list or dict each item is a source, named by its number or key; nested
items are named by their path (`3.body`). A small record is one source, as JSON, so that its fields are found
together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from rlm_langchain.context.decoding import Decoder, read_blocks
from rlm_langchain.context.opening import open_context, read_context
from rlm_langchain.types import ContextFile

PASSAGE_CHARS = 1_000
"""Target length of a passage in characters."""

PathStep = str | int


class TextUnit(NamedTuple):
    """One text of a context."""

    path: tuple[PathStep, ...]
    """Keys and numbers that lead to it from the context."""
    label: str
    """The path as text, for people and models."""


class UnitText(NamedTuple):
    """A source and its text, in blocks."""

    unit: TextUnit
    text: Iterator[str]


def read_units(file: ContextFile) -> Iterator[UnitText]:
    """Yield the texts of a stored context, in order."""
    if file.kind == "text":
        yield UnitText(TextUnit((), "context"), _decoded_blocks(file))
        return
    for source, text in units_of(json.loads(read_context(file))):
        yield UnitText(source, iter((text,)))


def units_of(context: Any) -> Iterator[tuple[TextUnit, str]]:
    """Yield the texts of a context in memory."""
    if isinstance(context, str):
        yield TextUnit((), "context"), context
        return
    for key, item in _items(context):
        yield from _units_below((key,), item)


def labelled_strings(context: Any) -> Iterator[tuple[str, str]]:
    """Yield every text in a list or dict unchanged, including short ones, with its label."""
    return ((label_of(path), text) for path, text in strings_at(context))


def strings_at(context: Any) -> Iterator[tuple[tuple[PathStep, ...], str]]:
    """Yield every text in a list or dict unchanged, including short ones, with its path."""
    waiting: list[tuple[tuple[PathStep, ...], Any]] = [((key,), item) for key, item in _items(context)]
    waiting.reverse()
    while waiting:
        at, item = waiting.pop()
        if isinstance(item, str):
            yield at, item
        elif isinstance(item, dict | list):
            waiting += reversed([((*at, key), inner) for key, inner in _items(item)])


def label_of(path: tuple[PathStep, ...]) -> str:
    """Return the label of the text at this path: that of a document is its own."""
    return _label(path[:-1] if len(path) > 1 and path[-1] == "page_content" else path)


def column_of(path: tuple[PathStep, ...]) -> tuple[str, ...]:
    """Return what texts of the same kind have in common: the keys inside an item of a list.

    Numbers, and the keys outside of lists, such as the names of files, tell texts of a kind apart.
    """
    first = next((i for i, step in enumerate(path) if isinstance(step, int)), len(path))
    return tuple("" if i <= first or isinstance(step, int) else step for i, step in enumerate(path))


def as_text(item: Any) -> str:
    """Return the text of an item: that of a document, JSON for other records. The REPL computes the same."""
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _decoded_blocks(file: ContextFile) -> Iterator[str]:
    decoder = Decoder(str(file.path), b"", strict=False)
    with open_context(file) as stream:
        for block in read_blocks(stream):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _units_below(at: tuple[PathStep, ...], item: Any) -> Iterator[tuple[TextUnit, str]]:
    if isinstance(item, dict) and isinstance(item.get("page_content"), str):
        yield TextUnit((*at, "page_content"), _label(at)), item["page_content"]
    elif isinstance(item, str):
        yield TextUnit(at, _label(at)), item
    elif isinstance(item, dict | list):
        text = as_text(item)
        if len(text) <= PASSAGE_CHARS:
            yield TextUnit(at, _label(at)), text
            return
        for key, inner in _items(item):
            yield from _units_below((*at, key), inner)


def _items(value: dict[str, Any] | list[Any]) -> Iterator[tuple[PathStep, Any]]:
    return iter(value.items()) if isinstance(value, dict) else iter(enumerate(value))


def _label(at: tuple[PathStep, ...]) -> str:
    return ".".join(map(str, at))
