"""Texts cut into passages: at the borders that their writers drew, about as long as a paragraph, always the same.

Passages of a text lie one after the other and leave out nothing but the white space between them. None holds text
of two sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rlm_langchain.context.text_units import PASSAGE_CHARS, TextUnit


class Hit(NamedTuple):
    """A passage that was found."""

    unit: TextUnit
    start: int
    end: int
    """In characters of the source."""
    score: float
    """Of BM25, or the fused one: it orders the hits of one search, and means nothing beside those of another."""


SHORTEST, LONGEST = 500, 1_500
"""A passage ends at the best border between these; the last one of a text may be shorter."""

BORDERS = tuple(
    map(
        re.compile,
        (r"\n[^\S\n]*\n\s*", r"\n(?=\S)", r"\n\s*", r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])\s*", r"\s+"),
    )
)
"""From the best to the worst: between paragraphs, before a line that is not indented, lines, sentences, words."""


class Passage(NamedTuple):
    """A piece of a text."""

    start: int
    """In characters, from the beginning of the text."""
    text: str


def cut(blocks: Iterable[str]) -> Iterator[Passage]:
    """The passages of a text that comes in blocks. How it comes in blocks makes no difference."""
    before, rest = 0, ""
    for block in blocks:
        rest += block
        at = 0
        while len(rest) - at > 2 * LONGEST:
            end, following = _border(rest, at)
            yield from _passage(before, rest, at, end)
            at = following
        before, rest = before + at, rest[at:]
    at = 0
    while at < len(rest):
        end, following = _border(rest, at) if len(rest) - at > LONGEST else (len(rest), len(rest))
        yield from _passage(before, rest, at, end)
        at = following


def _passage(before: int, text: str, start: int, end: int) -> Iterator[Passage]:
    """A piece of a text without white lines around it; nothing for white space."""
    body = text[start:end].rstrip()
    if not body:
        return
    blank = re.match(r"(?:[^\S\n]*\n)*", body)
    skipped = blank.end() if blank else 0
    yield Passage(before + start + skipped, body[skipped:])


def _border(text: str, at: int) -> tuple[int, int]:
    """Where the passage that begins here ends, and where the next one begins."""
    aim = at + PASSAGE_CHARS
    for border in BORDERS:
        places = [m.span() for m in border.finditer(text, at + SHORTEST, at + LONGEST)]
        if places:
            return min(places, key=lambda place: (abs(place[0] - aim), place))
    return aim, aim
