"""Answers with evidence: quotes that the host has found, word for word, in the context.

A quote that is not there goes back to the root model once; in its next answer it is left out, and counted.
Covered: that the words are there, and where. Not covered: that they support the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlm_langchain.context import ContextStore
from rlm_langchain.quotes import find_all
from rlm_langchain.types import Citation, ContextRef

KEYS = {"answer", "quotes"}
MOST = 200
"""Quotes of one answer that are looked up."""
TOLD = 5
"""Of those that are not there: how many the model is told."""


class Quote(NamedTuple):
    """What a model says that it read, and where."""

    text: str
    source: str | None


class Cited(NamedTuple):
    """An answer and its evidence."""

    answer: Any
    citations: list[Citation]
    unfound: list[str]
    """Quotes that are not in the context, or are no quotes."""


def answer_of(value: Any) -> Any:
    """The answer in what FINAL was given."""
    return value["answer"] if _is_cited(value) else value


def cited(store: ContextStore, contexts: Mapping[str, ContextRef], value: Any) -> Cited:
    """What FINAL was given, with its quotes looked up. Raises `JournalError` for a context that changed."""
    given = value["quotes"] if _is_cited(value) else []
    quotes = [_quote(item) for item in given[:MOST]] if isinstance(given, list) else [None]
    asked = [quote for quote in quotes if quote is not None]
    found = dict(zip(asked, find_all(store, contexts, asked), strict=True)) if asked else {}
    citations = [there for quote in quotes if quote and (there := found[quote])]
    unfound = [quote.text if quote else "(no text)" for quote in quotes if not quote or not found[quote]]
    more = max(0, len(given) - MOST) if isinstance(given, list) else 0
    return Cited(answer_of(value), citations, unfound + ["(too many)"] * more)


def problem(unfound: list[str]) -> str:
    """What the model is told of its quotes."""
    shown = "; ".join(f"{text[:200]!r}" for text in unfound[:TOLD])
    more = f"; and {len(unfound) - TOLD} more" if len(unfound) > TOLD else ""
    return (
        f"these quotes are not in the context, word for word: {shown}{more}. Copy quotes from the context in code "
        "(slices, matches), or leave them out; what is not there will be dropped"
    )


def _is_cited(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == KEYS


def _quote(item: Any) -> Quote | None:
    """A quote, as a text or as a dict of it and its source; None for anything else."""
    if isinstance(item, str):
        item = {"quote": item}
    text = item.get("quote") if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        return None
    source = item.get("source")
    return Quote(text, None if source is None else str(source))
