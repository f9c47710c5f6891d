"""Folds texts that look the same to one form, and maps positions in it back to the original text.

`FoldedText` is for quotes. It treats as equal: composed and decomposed letters (NFC, NFD), compatibility forms
(full width, ligatures, presentation forms, fonts), kinds of quotation marks, apostrophes and dashes, and runs of
white space. It ignores soft hyphens, zero-width characters and direction marks. Case makes a difference, and so do
superscripts, subscripts and fractions: 10² is not 102.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from functools import cache, lru_cache
from itertools import chain
from typing import NamedTuple

IGNORED = (
    "\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0100-\U000e01ef"
)
"""Invisible characters, for a character class of a pattern."""

_QUOTES = {
    "'": "\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u02bc\u00b4",
    '"': "\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb",
}
_DASHES = {"-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe31\ufe32\ufe58\ufe63\uff0d", "/": "\u2044"}
_SAME_FORM = {ord(one): form for form, those in (_QUOTES | _DASHES).items() for one in those}
_KEPT_DECOMPOSITIONS = ("<super>", "<sub>", "<fraction>", "<compat> 0020")
"""Decompositions whose plain form has another meaning, so they are not folded. The last kind are accents alone."""
_FOLDING_RANGES = (
    *(range(0x80, 0x3400), range(0xA000, 0xAC00), range(0xD7B0, 0xD800), range(0xF900, 0x20000)),
    *(range(0x2F800, 0x2FA20), range(0xE0100, 0xE01F0)),
)
"""Ranges of characters that may fold, or combine with the one before. All others are ideographs, syllables or
private use."""
_JAMO = (range(0x1160, 0x1200), range(0xD7B0, 0xD800))
"""Vowels and final consonants of decomposed Hangul syllables."""


def plain_words(text: str) -> str:
    """Return a text in the form from which a search takes words: NFKC, without invisible characters."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _ignored().sub("", unicodedata.normalize("NFKC", text)))


class _FoldedSpan(NamedTuple):
    """Characters of a text that were folded together, and the result."""

    start: int
    """First character in the text."""
    end: int
    """Character after the last one in the text."""
    first: int
    """First character in the folded text."""
    last: int
    """Character after the last one in the folded text."""


class FoldedText:
    """A folded text, in which folded quotes can be found."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        self.spans: list[_FoldedSpan] = []
        parts, done, size = list[str](), 0, 0
        pattern, joined = (_BLANKS, "") if text.isascii() else _folding_pattern()
        for match in pattern.finditer(text):
            start, end = match.span()
            if start > done and text[start] in joined:
                start -= 1  # include the letter that a combining mark belongs to
            form = _folded_form(text[start:end])
            size += start - done
            parts += (text[done:start], form)
            self.spans.append(_FoldedSpan(start, end, size, size + len(form)))
            done, size = end, size + len(form)
        self.text = "".join((*parts, text[done:]))
        self._firsts = [unit.first for unit in self.spans]

    def find(self, quote: str) -> tuple[int, int] | None:
        """Return start and end of the first occurrence of a folded quote in the original text, or None."""
        at = self.text.find(quote)
        while at >= 0:
            end = at + len(quote)
            if self._is_border(at) and self._is_border(end) and not _is_mark(self.text[end : end + 1]):
                return self._original_range(at)[0], self._original_range(end - 1)[1]
            at = self.text.find(quote, at + 1)
        return None

    def _span_at(self, at: int) -> _FoldedSpan:
        """Return the last unit that begins at or before this folded character."""
        number = bisect_right(self._firsts, at) - 1
        return self.spans[number] if number >= 0 else _FoldedSpan(0, 0, 0, 0)

    def _original_range(self, at: int) -> tuple[int, int]:
        """Return start and end in the original text of one folded character."""
        unit = self._span_at(at)
        if at < unit.last:
            return unit.start, unit.end
        place = unit.end + at - unit.last
        return place, place + 1

    def _is_border(self, at: int) -> bool:
        """Return whether a quote may begin or end here: between characters, or inside a ligature."""
        unit = self._span_at(at)
        return not unit.first < at < unit.last or self.text[unit.first : unit.last].isalpha()


def fold_quote(quote: str) -> str:
    """Return the folded form of a quote, to be passed to `FoldedText.find`. Empty: there is nothing to find."""
    return FoldedText(quote).text.strip()


_BLANKS = re.compile(r"\s\s+|[^\S ]")


@lru_cache(4_096)
def _folded_form(unit: str) -> str:
    """Return the folded form of a letter with its combining marks, a special character, or white space."""
    rest = unit.lstrip() if unit[0].isspace() else unit
    blank = " " if len(rest) < len(unit) else ""
    if not rest:
        return blank
    visible_text = _ignored().sub("", rest).translate(_SAME_FORM)
    is_counted = any(
        unicodedata.decomposition(character).startswith(_KEPT_DECOMPOSITIONS) for character in visible_text
    )
    form = unicodedata.normalize("NFC" if is_counted else "NFKC", visible_text).translate(_SAME_FORM)
    return blank + (form.lstrip() if blank else form)


def _is_mark(character: str) -> bool:
    return bool(character) and unicodedata.category(character)[0] == "M"


@cache
def _ignored() -> re.Pattern[str]:
    return re.compile(f"[{IGNORED}]+")


@cache
def _folding_pattern() -> tuple[re.Pattern[str], frozenset[str]]:
    """Return a pattern for everything that may fold, and the characters that combine with the one before."""
    alone, joined = list[str](), list[str]()
    for code in chain(*_FOLDING_RANGES):
        character = chr(code)
        form = unicodedata.normalize("NFKC", character)
        if _is_mark(form[:1]) or _ignored().match(character) or any(code in jamo for jamo in _JAMO):
            joined.append(character)
        elif form != character and not unicodedata.decomposition(character).startswith(_KEPT_DECOMPOSITIONS):
            alone.append(character)
    alone += map(chr, _SAME_FORM)
    marks = _marks_pattern(joined)
    pattern = rf"\s[\s{IGNORED}]+|[^\S ]|[{_character_class(alone, joined)}]{marks}|[\U00010000-\U0010ffff]{marks}"
    return re.compile(pattern), frozenset(joined)


def _marks_pattern(joined: list[str]) -> str:
    """Return a pattern for any number of combining marks.

    A character class without characters above U+FFFF is much faster in Python, so higher ones are a separate case.
    """
    high = [character for character in joined if character > "\uffff"]
    return f"(?:[{_character_class(joined)}]|[{re.escape(high[0])}-{re.escape(high[-1])}](?<=[{''.join(high)}]))*"


def _character_class(*characters: list[str]) -> str:
    return "".join(re.escape(one) for some in characters for one in some if one <= "\uffff")
