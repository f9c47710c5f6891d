"""Which encoding a text has that names none, and is not UTF-8. A guess, and said to be one.

Asked in this order: UTF-16 and UTF-32 by where their zeros are; `charset-normalizer`, where it is installed and
finds words of a language; Windows-1252, if that gives letters where letters belong.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Bytes that no text has, apart from the escapes of terminals."""
_MULTIBYTE = re.compile(r"big5|cp9[345]\d|euc|gb|hz|iso2022|johab|shift|utf_8", re.IGNORECASE)
_MIN_COHERENCE = 0.1
"""Share of what `charset-normalizer` takes for words of a language, from which its word is taken."""
_MAX_WORD = 60
"""Most letters of a word on average."""
_MIN_BYTES = 20
"""Bytes from which it is asked: of less it makes anything."""
_MAX_HIGH = 0.4
"""Most of the letters that are no ASCII in a text of a western language."""
_MAX_BLOCKS = 3
"""Most blocks of 256 characters that the letters of one alphabet are in."""
_MAX_NUL = 0.05
"""Most of the bytes of a text that may be NUL, as in a log after a crash."""


class Guess(NamedTuple):
    """An encoding, and what is said of it."""

    encoding: str
    note: str


@lru_cache(16)
def guessed(sample: bytes) -> Guess | None:
    """Return the encoding of bytes that are not UTF-8 and have no byte order mark, or None."""
    if wide := _wide(sample) or _wide_letters(sample):
        return Guess(wide, f"guessed: its encoding is {wide.upper()}, which has no byte order mark")
    if sample.isascii() or _CONTROLS.search(sample) or _is_mostly_utf8(sample):
        return None
    return _named(sample) or _western(sample)


def is_binary(sample: bytes) -> bool:
    """Return whether bytes have more zeros than a text may have."""
    return sample.count(0) > len(sample) * _MAX_NUL and guessed(sample) is None


def _wide(sample: bytes) -> str | None:
    """Return UTF-16 or UTF-32 if the zeros are where the characters of most alphabets have them."""
    if len(sample) < 8 or b"\0" not in sample:
        return None
    whole = sample[: len(sample) // 4 * 4]
    zeros = [whole[at::4].count(0) / (len(whole) // 4) for at in range(4)]
    low, high = min(zeros), max(zeros)
    if high < 0.5 or low > 0.1:
        return None
    many = [zero > 0.5 for zero in zeros]
    found = {
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
    }.get((many[0], many[1], many[2], many[3]))
    if found is None:
        return None
    try:
        text = whole.decode(found)
    except UnicodeDecodeError:
        return None
    return None if _CONTROLS.search(text.encode()) else found


def _wide_letters(sample: bytes) -> str | None:
    """Return UTF-16 if it gives letters of one alphabet, or of Chinese, Japanese or Korean, and nothing else."""
    if len(sample) < 2 * _MIN_BYTES // 2 or not _CONTROLS.search(sample):
        return None
    for encoding in ("utf-16-le", "utf-16-be"):
        try:
            text = sample[: len(sample) // 2 * 2].decode(encoding)
        except UnicodeDecodeError:
            continue
        letters = [character for character in text if character.isalpha()]
        if not all(one.isprintable() or one.isspace() for one in text) or len(letters) < 0.6 * len(text):
            continue
        asian = sum("\u3040" <= one <= "\u9fff" or "\uac00" <= one <= "\ud7a3" for one in letters)
        if len({ord(one) >> 8 for one in letters}) <= _MAX_BLOCKS or asian > 0.9 * len(letters):
            return encoding
    return None


def _is_mostly_utf8(sample: bytes) -> bool:
    """Return whether there are more characters of UTF-8 than bytes that are none."""
    text = sample.decode("utf-8", "surrogateescape")
    wrong = sum("\udc80" <= character <= "\udcff" for character in text)
    return sum(character > "\x7f" for character in text) - wrong > wrong


def _named(sample: bytes) -> Guess | None:
    if len(sample) < _MIN_BYTES:
        return None
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return None
    best = from_bytes(sample).best()
    if best is None or best.encoding.startswith(("utf", "ascii")):
        return None
    is_long = _MULTIBYTE.match(best.encoding) and best.chaos < _MIN_COHERENCE
    if not is_long and (best.coherence < _MIN_COHERENCE or len(str(best).split()) * _MAX_WORD < len(sample)):
        return None
    name = "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding
    sure = round(100 * (1 - best.chaos) * (best.coherence or 0.5))
    return Guess(name, f"guessed: its encoding is {name}, with a confidence of {sure}%")


def _western(sample: bytes) -> Guess | None:
    """Return Windows-1252 if it gives single letters and marks between many of ASCII."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return None
    letters = [character for character in text if character.isalpha()]
    high = sum(character > "\x7f" for character in letters)
    if high > len(letters) * _MAX_HIGH or re.search("[\x80-\uffff]{3}", text):
        return None
    return Guess("cp1252", "guessed: its encoding is cp1252, with little confidence")
