"""Decodes bytes to text, block by block. Undecodable bytes are replaced and counted, or refused with their
position.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, BinaryIO

from rlm_langchain.context.describe import count
from rlm_langchain.context.encodings import guessed, is_binary
from rlm_langchain.errors import InputError

CONVERT = "if it is text in another encoding, convert it first, for example with `iconv`"
NOT_STRICT = "fix it, or have undecodable bytes replaced (without `strict`)"
"""What to do about bytes that are not UTF-8. The command has other ways out."""

BLOCK_BYTES = 1 << 18
"""Bytes per read: large enough to be fast, small enough for the processor's cache."""
SAMPLE_BYTES = 1 << 13
"""Bytes that are examined to tell text from other content."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_CHARSETS = frozenset(
    (
        "punycode",
        "idna",
        "unicode_escape",
        "raw_unicode_escape",
        "unicode-escape",
        "undefined",
        "raw-unicode-escape",
    )
)
_REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


_AROUND = re.compile(rb"[\x00-\x7f]{0,60}[\x80-\xff]+[\x00-\x7f]{0,60}")
_MAX_SEARCHED = 64 << 20
"""Bytes of a text in which they are looked for."""
_MAX_PLACES = 200
"""Number of places in a text that are not ASCII and by which its encoding is told."""


def read_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file, block by block."""
    while block := file.read(BLOCK_BYTES):
        yield block


def odd_sample(file: BinaryIO, size: int, head: bytes) -> bytes:
    """Return bytes of a file by which its encoding can be told: its first ones, or those around the first after
    them that are not UTF-8. The file is left where it was.
    """
    if encoding_of(head) != "utf-8" or size <= len(head) or not _is_utf8(head):
        return head
    at, decoder, left = file.tell(), codecs.getincrementaldecoder("utf-8")(), min(size, _MAX_SEARCHED)
    file.seek(0)
    try:
        while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
            left -= len(block)
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                return b"".join(islice(_AROUND.findall(block), _MAX_PLACES)) or head
        return head
    finally:
        file.seek(at)


def encoding_of(sample: bytes) -> str:
    """Return UTF-8, unless a byte order mark says otherwise."""
    return next((encoding for mark, encoding in _BOMS if sample.startswith(mark)), "utf-8")


def charset(name: str) -> str:
    """Return the name of an encoding that a file gives for itself. Raises `LookupError` for what is none of a text.

    Python has codecs that are none, some of which take hours for a megabyte.
    """
    found = codecs.lookup(name)
    if found.name in _NO_CHARSETS or not found._is_text_encoding:
        raise LookupError(f"{name} is no encoding of a text")
    return found.name


def why_not_text(sample: bytes) -> str | None:
    """Return what a file is if its first bytes show that it is not text, and what to do about it. None for
    text.

    A NUL alone does not make a text binary: logs contain them after a crash.
    """
    if encoding_of(sample) == "utf-8" and is_binary(sample):
        return "not text: export what you need of it as text first"
    if sample.isascii() or guessed(sample) or not encoding_of(sample).startswith("utf-8"):
        return None
    wrong = sample.decode("utf-8", "replace").count(_REPLACEMENT) - sample.count(_REPLACEMENT.encode())
    # Up to three may be the beginning of a character that the end of the sample has cut.
    if wrong > 3 and (wrong > len(sample) * 0.3 or b"\0" in sample):
        return f"not text in UTF-8: {CONVERT}"
    return None


def _is_utf8(sample: bytes) -> bool:
    """Return whether bytes are UTF-8, though their end may cut a character, and none of them NUL."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, len(sample) < SAMPLE_BYTES)
    except UnicodeDecodeError:
        return False
    return b"\0" not in sample


def replace_surrogates(text: str) -> tuple[str, int]:
    """Replace each lone surrogate by U+FFFD, which keeps offsets. Return the text and the number of
    replacements."""
    return _SURROGATE.subn(_REPLACEMENT, text)


def replace_unstorable(text: str) -> tuple[str, int]:
    """Replace each NUL and lone surrogate by U+FFFD. Return the text and the number of replacements.

    UTF-8 cannot encode a lone surrogate, and Postgres cannot store a NUL.
    """
    return _UNSTORABLE.subn(_REPLACEMENT, text)


def replace_each(value: Any, replace: Callable[[str], tuple[str, int]]) -> tuple[Any, int]:
    """Apply `replace` to all texts in a value of dicts and lists, keys included. Return the value and the number of
    replaced characters.

    A value without anything to replace is returned unchanged, and not copied.
    """
    return _replace_in(value, replace) if _needs_replacing(value, replace) else (value, 0)


def _needs_replacing(value: Any, replace: Callable[[str], tuple[str, int]]) -> bool:
    """Return whether there is anything to replace. Nothing is copied, because the value may be large."""
    if isinstance(value, str):
        return replace(value)[1] > 0
    if isinstance(value, dict):
        return any(_needs_replacing(key, replace) or _needs_replacing(one, replace) for key, one in value.items())
    return isinstance(value, list | tuple) and any(_needs_replacing(one, replace) for one in value)


def _replace_in(value: Any, replace: Callable[[str], tuple[str, int]]) -> tuple[Any, int]:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        keys = [_replace_in(key, replace) for key in value]
        values = [_replace_in(one, replace) for one in value.values()]
        clean = {key: one for (key, _), (one, _) in zip(keys, values, strict=True)}
        return clean, sum(number for _, number in [*keys, *values])
    if isinstance(value, list | tuple):
        items = [_replace_in(one, replace) for one in value]
        return [one for one, _ in items], sum(number for _, number in items)
    return value, 0


def describe_unstorable(number: int) -> str:
    """Return a phrase for the characters that `replace_unstorable` has replaced."""
    return f"{count(number, 'character')} that cannot be stored (NUL, or half of a surrogate pair)"


def replacement_note(number: int, what: str = "undecodable byte sequence") -> str:
    """Return a note for `about`, empty if nothing was replaced."""
    return f"{count(number, what)} replaced by U+FFFD" if number else ""


class Decoder:
    """Decodes one text, block by block, and counts replacements.

    With `strict` it raises `InputError` instead, with the offset in bytes.
    """

    def __init__(self, name: str, sample: bytes, *, strict: bool) -> None:
        self.name, self.strict, self.replaced = name, strict, 0
        encoding, self.note = encoding_of(sample), ""
        guess = guessed(sample) if encoding == "utf-8" and not _is_utf8(sample) else None
        if guess is not None and not strict:
            encoding, self.note = guess
        elif guess is not None and b"\0" in sample:  # of others the first byte that is not UTF-8 is named
            raise InputError(f"{name} names no encoding ({guess.note}): give it, or leave out `strict`")
        self.is_utf8 = encoding.startswith("utf-8")
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._offset = 0

    def decode(self, block: bytes, *, final: bool = False) -> str:
        """Return the text of the next block. A character that is split at its end comes with the next block."""
        state = self._decoder.getstate()
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            if self.strict:
                raise InputError(self._error_message(error, len(block))) from error
            self._decoder.setstate(state)
            text = self._decode_with_replacement(state[0], block, final)
        self._offset += len(block)
        return text

    def _error_message(self, error: UnicodeDecodeError, size: int) -> str:
        at = self._offset + size - len(error.object) + error.start
        return f"{self.name} cannot be decoded at byte {at:,} ({error.reason}): {NOT_STRICT}"

    def _decode_with_replacement(self, pending: bytes, block: bytes, final: bool) -> str:
        self._decoder.errors = "replace"
        text = self._decoder.decode(block, final)
        self._decoder.errors = "strict"
        decoded = len(pending) + len(block) - len(self._decoder.getstate()[0])
        # In UTF-8 an existing U+FFFD is always these three bytes. In other encodings all of them count as new.
        before = (pending + block)[:decoded].count(_REPLACEMENT.encode()) if self.is_utf8 else 0
        self.replaced += text.count(_REPLACEMENT) - before
        return text

    def notes(self) -> list[str]:
        """Return what was guessed and replaced so far."""
        return [*filter(None, (self.note, replacement_note(self.replaced)))]
