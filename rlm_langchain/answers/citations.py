"""Quotes of an answer, looked up in the contexts.

The search is exact but for white space; what is not found is no citation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rlm_langchain.context.mapped_text import MappedText, open_mapped
from rlm_langchain.context.opening import read_context
from rlm_langchain.context.store import ContextStore
from rlm_langchain.context.text_units import labelled_strings
from rlm_langchain.records import Citation
from rlm_langchain.types import ContextRef

CITED_KEYS = {"answer", "quotes"}

MAX_QUOTES = 200
"""Quotes of one answer that are looked up."""

MAX_REPORTED = 5
"""Of those that are not there: how many the model is told."""


class Quote(NamedTuple):
    """What a model says that it read, and where."""

    text: str
    source: str | None


class CitedAnswer(NamedTuple):
    """An answer and its evidence."""

    answer: Any
    citations: list[Citation]
    not_found: list[str]
    """Quotes that are not in the context, or are no quotes."""


def answer_of(value: Any) -> Any:
    """The answer in what FINAL was given."""
    return value["answer"] if has_quotes(value) else value


def cite(store: ContextStore, contexts: Mapping[str, ContextRef], value: Any) -> CitedAnswer:
    """What FINAL was given, with its quotes looked up. Raises `JournalError` for a context that changed."""
    given = value["quotes"] if has_quotes(value) else []
    quotes = [_parse_quote(item) for item in given[:MAX_QUOTES]] if isinstance(given, list) else [None]
    asked = [quote for quote in quotes if quote is not None]
    found = dict(zip(asked, find_quotes(store, contexts, asked), strict=True)) if asked else {}
    citations = [there for quote in quotes if quote and (there := found[quote])]
    unfound = [quote.text if quote else "(no text)" for quote in quotes if not quote or not found[quote]]
    more = max(0, len(given) - MAX_QUOTES) if isinstance(given, list) else 0
    return CitedAnswer(answer_of(value), citations, unfound + ["(too many)"] * more)


def quotes_problem(unfound: list[str]) -> str:
    """What the model is told of its quotes."""
    shown = "; ".join(f"{text[:200]!r}" for text in unfound[:MAX_REPORTED])
    more = f"; and {len(unfound) - MAX_REPORTED} more" if len(unfound) > MAX_REPORTED else ""
    return (
        f"these quotes are not in the context, word for word: {shown}{more}. Copy quotes from the context in code "
        "(slices, matches), or leave them out; what is not there will be dropped"
    )


def has_quotes(value: Any) -> bool:
    """Whether this is an answer with quotes, as the model is asked for it."""
    return isinstance(value, dict) and value.keys() == CITED_KEYS


def _parse_quote(item: Any) -> Quote | None:
    """A quote, as a text or as a dict of it and its source; None for anything else."""
    if isinstance(item, str):
        item = {"quote": item}
    text = item.get("quote") if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        return None
    source = item.get("source")
    return Quote(text, None if source is None else str(source))


_WHITESPACE = rb"(?:\s|\xc2\xa0|\xc2\x85|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)+"
"""What `\\s` means in text, in UTF-8."""


class _SearchableText(Protocol):
    @property
    def label(self) -> str:
        """What the source is called."""

    def find(self, words: str) -> tuple[int, int, str] | None:
        """Where a quote begins and ends, in characters, and the text there."""


@dataclass(frozen=True, slots=True)
class _TextInMemory:
    """A text in memory."""

    label: str
    text: str

    def find(self, words: str) -> tuple[int, int, str] | None:
        start = self.text.find(words)
        if start >= 0:
            return start, start + len(words), words
        match = re.search(r"\s+".join(map(re.escape, words.split())), self.text)
        return (match.start(), match.end(), match[0]) if match else None


@dataclass(frozen=True, slots=True)
class _TextOnDisk:
    """A text on disk, of any size."""

    label: str
    text: MappedText

    def find(self, words: str) -> tuple[int, int, str] | None:
        exact = words.encode("utf-8", "replace")
        start = self.text.find(exact)
        end = start + len(exact)
        if start < 0:
            parts = [re.escape(word.encode("utf-8", "replace")) for word in words.split()]
            place = self.text.search(_WHITESPACE.join(parts))
            if place is None:
                return None
            start, end = place
        found = self.text.bytes(start, end).decode("utf-8", "replace")
        first = self.text.character(start)
        return first, first + len(found), found


def find_quotes(
    store: ContextStore, contexts: Mapping[str, ContextRef], quotes: Sequence[Quote]
) -> list[Citation | None]:
    """For each quote its first place: in the source that it names, else in any; None for one that is nowhere."""
    with ExitStack() as stack:
        haystacks = [hay for name, ref in contexts.items() for hay in _searchable_texts(stack, store, name, ref)]
        return [_find_quote(haystacks, quote) for quote in quotes]


def _find_quote(haystacks: list[_SearchableText], quote: Quote) -> Citation | None:
    named = [hay for hay in haystacks if hay.label == quote.source]
    for hay in [*named, *haystacks]:
        if place := hay.find(quote.text):
            start, end, text = place
            return Citation(quote=text, source=hay.label, start=start, end=end)
    return None


def _searchable_texts(
    stack: ExitStack, store: ContextStore, name: str, ref: ContextRef
) -> Iterator[_SearchableText]:
    """The texts of a context; those of further contexts are named after them."""
    file = store.open(ref)
    if file.kind == "text":
        yield _TextOnDisk(name, stack.enter_context(open_mapped(file)))
        return
    prefix = "" if name == "context" else f"{name}."
    for label, text in labelled_strings(json.loads(read_context(file))):
        yield _TextInMemory(f"{prefix}{label}", text)
