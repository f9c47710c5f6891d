"""Quotes of an answer, looked up in the contexts.

A quote is found as it is written or as it looks (`context/folding.py`); what is not found is no citation. Places
are those in the text as it is.
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
from rlm_langchain.context.store import ContextStore
from rlm_langchain.context.text_units import labelled_strings
from rlm_langchain.records import Citation
from rlm_langchain.types import ContextRef

CITED_KEYS = {"answer", "quotes"}

MAX_QUOTES = 200
"""Quotes of one answer that are looked up."""

MAX_REPORTED = 5
"""Of those that are not there: how many the model is told."""


NO_QUOTES = (
    'it comes without a quote. Give the evidence with it, FINAL({"answer": ..., "quotes": [...]}), with quotes '
    "that code took from the context; if there is none in it, give the same answer again"
)
"""What the model is told of an answer without evidence."""


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


def quotes_problem(cited: CitedAnswer, *, needed: bool) -> str | None:
    """What the model is told of its quotes; None when each was found, and there is one where one is needed."""
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


Place = tuple[int, int, str]
"""Where a quote begins and ends, in characters, and the text there."""


class _SearchableText(Protocol):
    @property
    def label(self) -> str:
        """What the source is called."""

    def exact(self, quote: str) -> Place | None:
        """The first place that has a quote, character for character."""

    def windows(self) -> Iterator[tuple[int, str]]:
        """The text, piece by piece, with the number of the first character of each."""


@dataclass(frozen=True, slots=True)
class _TextInMemory:
    """A text in memory."""

    label: str
    text: str

    def exact(self, quote: str) -> Place | None:
        start = self.text.find(quote)
        return None if start < 0 else (start, start + len(quote), quote)

    def windows(self) -> Iterator[tuple[int, str]]:
        yield 0, self.text


@dataclass(frozen=True, slots=True)
class _TextOnDisk:
    """A text on disk, of any size."""

    label: str
    text: MappedText

    def exact(self, quote: str) -> Place | None:
        written = quote.encode("utf-8", "replace")
        start = self.text.find(written)
        if start < 0:
            return None
        first = self.text.character(start)
        return first, first + len(quote), written.decode()

    def windows(self) -> Iterator[tuple[int, str]]:
        return self.text.windows()


def find_quotes(
    store: ContextStore, contexts: Mapping[str, ContextRef], quotes: Sequence[Quote]
) -> list[Citation | None]:
    """For each quote its first place: in the source that it names, else in any; None for one that is nowhere."""
    with ExitStack() as stack:
        haystacks = [hay for name, ref in contexts.items() for hay in _searchable_texts(stack, store, name, ref)]
        found: dict[Quote, Citation] = {}
        for hay in haystacks:
            _look(hay, [quote for quote in quotes if quote.source == hay.label], found)
        for hay in haystacks:
            _look(hay, quotes, found)
        return [found.get(quote) for quote in quotes]


def _look(hay: _SearchableText, quotes: Iterable[Quote], found: dict[Quote, Citation]) -> None:
    """Look for those that were not found before: as they are written, then as they look."""
    waiting = {quote: fold_quote(quote.text) for quote in quotes if quote not in found}
    for quote in waiting:
        if place := hay.exact(quote.text):
            found[quote] = _citation(hay, *place)
    looked_for = {quote: folded for quote, folded in waiting.items() if folded and quote not in found}
    if not looked_for:
        return
    for first, text in hay.windows():
        folded_text = FoldedText(text)
        for quote, folded in looked_for.items():
            if quote not in found and (at := folded_text.find(folded)):
                start, end = at
                found[quote] = _citation(hay, first + start, first + end, text[start:end])
        if looked_for.keys() <= found.keys():
            return


def _citation(hay: _SearchableText, start: int, end: int, text: str) -> Citation:
    return Citation(quote=text, source=hay.label, start=start, end=end)


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
