"""Splits texts into passages at paragraphs, lines and sentences. The same text always gives the same passages.

The passages of a text follow each other, and only white space between them is left out. No passage contains text
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
    """First character in the source."""
    end: int
    """Character after the last in the source."""
    score: float
    """Score of BM25 or of the fusion. It orders the hits of one search; scores of two searches do not compare."""


MIN_CHARS, MAX_CHARS = 500, 1_500
"""Limits of the length of a passage in characters. The last passage of a text may be shorter."""

BORDERS = tuple(
    map(
        re.compile,
        (r"\n[^\S\n]*\n\s*", r"\n(?=\S)", r"\n\s*", r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])\s*", r"\s+"),
    )
)
"""Places to split, best first: between paragraphs, before a line without indent, lines, sentences, words."""


class Passage(NamedTuple):
    """A piece of a text."""

    start: int
    """First character in the text."""
    text: str


def split_passages(blocks: Iterable[str]) -> Iterator[Passage]:
    """Yield the passages of a text that is given in blocks. The sizes of the blocks make no difference."""
    before, rest = 0, ""
    for block in blocks:
        rest += block
        at = 0
        while len(rest) - at > 2 * MAX_CHARS:
            end, following = _border(rest, at)
            yield from _passage(before, rest, at, end)
            at = following
        before, rest = before + at, rest[at:]
    at = 0
    while at < len(rest):
        end, following = _border(rest, at) if len(rest) - at > MAX_CHARS else (len(rest), len(rest))
        yield from _passage(before, rest, at, end)
        at = following


def _passage(before: int, text: str, start: int, end: int) -> Iterator[Passage]:
    """Yield a piece of a text without blank lines around it; nothing if it is only white space."""
    body = text[start:end].rstrip()
    if not body:
        return
    blank = re.match(r"(?:[^\S\n]*\n)*", body)
    skipped = blank.end() if blank else 0
    yield Passage(before + start + skipped, body[skipped:])


def _border(text: str, at: int) -> tuple[int, int]:
    """Return where the passage that begins at `at` ends, and where the next one begins."""
    aim = at + PASSAGE_CHARS
    for border in BORDERS:
        places = [m.span() for m in border.finditer(text, at + MIN_CHARS, at + MAX_CHARS)]
        if places:
            return min(places, key=lambda place: (abs(place[0] - aim), place))
    return aim, aim
