"""Citations: the quotes of an answer, with their positions in the contexts.

A quote is searched for as it is written, then with characters folded that look alike (`context/folding.py`). Only
quotes that are found become citations. Positions are those in the original text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rlm_langchain.context.folding import FoldedText, fold_quote
from rlm_langchain.context.mapped_text import MappedText, open_mapped
from rlm_langchain.context.opening import read_context
from rlm_langchain.context.places import has_headings, in_context, place_at
from rlm_langchain.context.store import ContextStore
from rlm_langchain.context.text_units import PathStep, label_of, strings_at
from rlm_langchain.records import Citation
from rlm_langchain.types import ContextRef

CITED_KEYS = {"answer", "quotes"}

MAX_QUOTES = 200
"""The most quotes of one answer that are looked up."""

HEADING_CHARS = 1_000
"""Characters after the first one of a quote in which the heading that it is part of ends."""

MAX_REPORTED = 5
"""The most quotes that a message to the model names as not found."""


NO_QUOTES = (
    'it comes without a quote. Give the evidence with it, FINAL({"answer": ..., "quotes": [...]}), with quotes '
    "that code took from the context; if there is none in it, give the same answer again"
)
"""The message to the model about an answer without quotes."""


class Quote(NamedTuple):
    """A quote of an answer, as the model wrote it."""

    text: str
    source: str | None
    """The source that the model named, or None."""


class CitedAnswer(NamedTuple):
    """An answer and its citations."""

    answer: Any
    citations: list[Citation]
    not_found: list[str]
    """The quotes that were not found. "(no text)" stands for an item that is no quote, "(too many)" for one that
    was not looked up."""


def answer_of(value: Any) -> Any:
    """Return the answer in the argument of `FINAL`, without its quotes."""
    return value["answer"] if has_quotes(value) else value


def cite(store: ContextStore, contexts: Mapping[str, ContextRef], value: Any) -> CitedAnswer:
    """Look up the quotes in the argument of `FINAL`. Raises `JournalError` for a context that changed."""
    items = value["quotes"] if has_quotes(value) else []
    parsed = [_parse_quote(item) for item in items[:MAX_QUOTES]] if isinstance(items, list) else [None]
    quotes = [quote for quote in parsed if quote is not None]
    found = dict(zip(quotes, find_quotes(store, contexts, quotes), strict=True)) if quotes else {}
    citations = [citation for quote in quotes if (citation := found[quote])]
    unfound = [quote.text if quote else "(no text)" for quote in parsed if not quote or not found[quote]]
    more = max(0, len(items) - MAX_QUOTES) if isinstance(items, list) else 0
    return CitedAnswer(answer_of(value), citations, unfound + ["(too many)"] * more)


def quotes_problem(cited: CitedAnswer, *, needed: bool) -> str | None:
    """Return a message to the model about its quotes, or None if all were found. With `needed`, an answer without
    quotes is a problem, too."""
    unfound = cited.not_found
    if not unfound:
        return NO_QUOTES if needed and not cited.citations else None
    shown = "; ".join(f"{text[:200]!r}" for text in unfound[:MAX_REPORTED])
    more = f"; and {len(unfound) - MAX_REPORTED} more" if len(unfound) > MAX_REPORTED else ""
    return (
        f"these quotes are not in the context, word for word: {shown}{more}. Copy quotes from the context in code "
        "(slices, matches), or leave them out; what is not there will be dropped"
    )


def has_quotes(value: Any) -> bool:
    """Return whether a value has the form `{"answer": ..., "quotes": ...}`."""
    return isinstance(value, dict) and value.keys() == CITED_KEYS


def _parse_quote(item: Any) -> Quote | None:
    """Read a quote from a text, or from a dict `{"quote": ..., "source": ...}`. None for anything else."""
    if isinstance(item, str):
        item = {"quote": item}
    text = item.get("quote") if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        return None
    source = item.get("source")
    return Quote(text, None if source is None else str(source))


Place = dict[str, Any]
Match = tuple[int, int, str]
"""Start and end of a match, in characters, and the text between them."""


class _SearchableText(Protocol):
    @property
    def label(self) -> str:
        """The name of the source."""

    def find_exact(self, quote: str) -> Match | None:
        """Return the first exact match of a quote, or None."""

    def windows(self) -> Iterator[tuple[int, str]]:
        """Yield the text in pieces, each with the number of its first character."""

    def place(self, start: int) -> Place:
        """Return where a character stands in what was given."""


@dataclass(frozen=True, slots=True)
class _TextInMemory:
    """A text in a list or dict in memory."""

    label: str
    text: str
    path: tuple[PathStep, ...]
    context: Any
    files: Mapping[str, str]

    def find_exact(self, quote: str) -> Match | None:
        start = self.text.find(quote)
        return None if start < 0 else (start, start + len(quote), quote)

    def windows(self) -> Iterator[tuple[int, str]]:
        yield 0, self.text

    def place(self, start: int) -> Place:
        return place_at(self.context, self.path, start, self.files)


@dataclass(frozen=True, slots=True)
class _TextOnDisk:
    """A text on disk, of any size."""

    label: str
    text: MappedText
    files: Mapping[str, str]

    def find_exact(self, quote: str) -> Match | None:
        encoded = quote.encode("utf-8", "replace")
        start = self.text.find(encoded)
        if start < 0:
            return None
        first = self.text.character(start)
        return first, first + len(quote), encoded.decode()

    def windows(self) -> Iterator[tuple[int, str]]:
        return self.text.windows()

    def place(self, start: int) -> Place:
        if has_headings(self.files):  # a document, which is never long
            return place_at(self.text.slice(0, start + HEADING_CHARS), (), start, self.files)
        return {**place_at("", (), 0, self.files), "line": self.text.line(start)}


def find_quotes(
    store: ContextStore, contexts: Mapping[str, ContextRef], quotes: Sequence[Quote]
) -> list[Citation | None]:
    """Return the first match of each quote, in the source that it names if it is there, else in any. None for a
    quote that is not found."""
    with ExitStack() as stack:
        sources = [
            (name, source)
            for name, ref in contexts.items()
            for source in _searchable_texts(stack, store, name, ref)
        ]
        found: dict[Quote, Citation] = {}
        for name, source in sources:
            _find_in(name, source, [quote for quote in quotes if quote.source == source.label], found)
        for name, source in sources:
            _find_in(name, source, quotes, found)
        return [found.get(quote) for quote in quotes]


def _find_in(name: str, source: _SearchableText, quotes: Iterable[Quote], found: dict[Quote, Citation]) -> None:
    """Search a source of the context `name` for the quotes that are not in `found` yet, first as they are written,
    then folded, and add the citations to `found`."""
    remaining = {quote: fold_quote(quote.text) for quote in quotes if quote not in found}
    for quote in remaining:
        if match := source.find_exact(quote.text):
            found[quote] = _citation(name, source, *match)
    remaining = {quote: folded for quote, folded in remaining.items() if folded and quote not in found}
    if not remaining:
        return
    for first, text in source.windows():
        folded_text = FoldedText(text)
        for quote, folded in remaining.items():
            if quote not in found and (span := folded_text.find(folded)):
                start, end = span
                found[quote] = _citation(name, source, first + start, first + end, text[start:end])
        if remaining.keys() <= found.keys():
            return


def _citation(name: str, source: _SearchableText, start: int, end: int, text: str) -> Citation:
    place = in_context(name, source.place(start))
    return Citation(quote=text, source=source.label, start=start, end=end, place=place)


def _searchable_texts(
    stack: ExitStack, store: ContextStore, name: str, ref: ContextRef
) -> Iterator[_SearchableText]:
    """Yield the texts of a context. The labels of further contexts begin with the name of the context."""
    file, files = store.open(ref), ref.get("files", {})
    if file.kind == "text":
        yield _TextOnDisk(name, stack.enter_context(open_mapped(file)), files)
        return
    prefix, context = "" if name == "context" else f"{name}.", json.loads(read_context(file))
    for path, text in strings_at(context):
        yield _TextInMemory(f"{prefix}{label_of(path)}", text, path, context, files)
