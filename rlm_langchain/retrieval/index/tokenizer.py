"""Splits texts of any language, and code, into words for BM25.

Words are normalised (NFKC, without invisible characters such as soft hyphens), in lower case and without an English
plural `s`. Names in code count as a whole and in parts (`get_userName`: `get_username`, `get`, `user`, `name`). In
scripts without spaces between words, each pair of characters counts as a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlm_langchain.context.folding import plain_words

WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
MAX_WORD_CHARS = 64
"""Characters of a word that count. A longer word is data, such as Base64."""


class Vocabulary:
    """Numbers words. Each new word in a text gets the next number."""

    def __init__(self) -> None:
        self.number_of_word: dict[str, int] = {}
        self._cached_numbers: dict[str, tuple[int, ...]] = {}
        """Cached numbers of each word as it is written."""

    def numbers(self, text: str) -> list[int]:
        """Return the numbers of the words of a text. New words are added."""
        found: list[int] = []
        cached = self._cached_numbers
        for word in WORD.findall(plain_words(text)):
            numbers = cached.get(word)
            if numbers is None:
                numbers = cached[word] = tuple(
                    self.number_of_word.setdefault(form, len(self.number_of_word)) for form in word_forms(word)
                )
            found += numbers
        return found


def words(text: str) -> list[str]:
    """Return the words of a text in their normalised form."""
    return [form for word in WORD.findall(plain_words(text)) for form in word_forms(word)]


def word_forms(word: str) -> Iterator[str]:
    """Yield the words that a run of letters, digits and underscores counts as."""
    if not word.isascii() and _UNSPACED.search(word):
        yield from _pairs(word)
        return
    yield _stem(word.casefold()[:MAX_WORD_CHARS])
    parts = _PART.findall(word[:MAX_WORD_CHARS]) if word.isascii() else word.split("_")
    if len(parts) > 1:
        yield from (_stem(part.casefold()) for part in parts if part)


def _stem(word: str) -> str:
    """Return a word without the ending of an English plural."""
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _pairs(word: str) -> Iterator[str]:
    """Yield pairs of neighbouring characters for scripts without spaces, and words for the rest."""
    end = 0
    for run in _UNSPACED.finditer(word):
        if run.start() > end:
            yield from word_forms(word[end : run.start()])
        text = run[0]
        yield from (text[i : i + 2] for i in range(max(1, len(text) - 1)))
        end = run.end()
    if end < len(word):
        yield from word_forms(word[end:])
