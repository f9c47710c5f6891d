"""A context as named texts, without holding more of it in memory than must be.

A text is one source, `context`. In a list or dict each item is one, named by its number or key, and nested ones by
the way to them (`3.body`). A small record is one source, as its JSON: what belongs together is found together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from rlm_langchain.context.decoding import Decoder, blocks
from rlm_langchain.context.opening import opened, read
from rlm_langchain.types import ContextFile

PASSAGE_CHARS = 1_000
"""Characters that a passage aims at."""

Step = str | int


class Source(NamedTuple):
    """One text of a context."""

    at: tuple[Step, ...]
    """The keys and numbers that lead to it from the context."""
    label: str
    """The same for people and models."""


class Content(NamedTuple):
    """A source and its text, in blocks."""

    source: Source
    text: Iterator[str]


def contents(file: ContextFile) -> Iterator[Content]:
    """The texts of a stored context, in their order."""
    if file.kind == "text":
        yield Content(Source((), "context"), _text(file))
        return
    for source, text in values(json.loads(read(file))):
        yield Content(source, iter((text,)))


def values(context: Any) -> Iterator[tuple[Source, str]]:
    """The texts of a context in memory."""
    if isinstance(context, str):
        yield Source((), "context"), context
        return
    for key, item in _items(context):
        yield from _walk((key,), item)


def strings(context: Any) -> Iterator[tuple[str, str]]:
    """Every text in a list or dict as it is, small ones too, by its label."""
    waiting: list[tuple[tuple[Step, ...], Any]] = [((key,), item) for key, item in _items(context)]
    waiting.reverse()
    while waiting:
        at, item = waiting.pop()
        if isinstance(item, str):
            yield _label(at[:-1] if len(at) > 1 and at[-1] == "page_content" else at), item
        elif isinstance(item, dict | list):
            waiting += reversed([((*at, key), inner) for key, inner in _items(item)])


def as_text(item: Any) -> str:
    """The text of an item: that of a document, JSON of other records. The same in the host and in the REPL."""
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _text(file: ContextFile) -> Iterator[str]:
    decoder = Decoder(str(file.path), b"", strict=False)
    with opened(file) as stream:
        for block in blocks(stream):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _walk(at: tuple[Step, ...], item: Any) -> Iterator[tuple[Source, str]]:
    if isinstance(item, dict) and isinstance(item.get("page_content"), str):
        yield Source((*at, "page_content"), _label(at)), item["page_content"]
    elif isinstance(item, str):
        yield Source(at, _label(at)), item
    elif isinstance(item, dict | list):
        text = as_text(item)
        if len(text) <= PASSAGE_CHARS:
            yield Source(at, _label(at)), text
            return
        for key, inner in _items(item):
            yield from _walk((*at, key), inner)


def _items(value: dict[str, Any] | list[Any]) -> Iterator[tuple[Step, Any]]:
    return iter(value.items()) if isinstance(value, dict) else iter(enumerate(value))


def _label(at: tuple[Step, ...]) -> str:
    return ".".join(map(str, at))
