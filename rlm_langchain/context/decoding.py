"""Decodes bytes to text, block by block. Undecodable bytes are replaced and counted, or refused with their
position.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from rlm_langchain.context.describe import count
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
_FORMATS = (
    (b"%PDF-", "a PDF: extract its text first, for example with `pdftotext`"),
    (b"PK\x03\x04", "a ZIP archive or an Office document: unpack it, or save it as text, first"),
    (b"\x1f\x8b", "compressed: unpack it first, for example with `gunzip`"),
    (b"\x89PNG", "an image: only text can be a context"),
    (b"\xff\xd8\xff", "an image: only text can be a context"),
)
_REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def read_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file, block by block."""
    while block := file.read(BLOCK_BYTES):
        yield block


def encoding_of(sample: bytes) -> str:
    """Return UTF-8, unless a byte order mark says otherwise."""
    return next((encoding for mark, encoding in _BOMS if sample.startswith(mark)), "utf-8")


def why_not_text(sample: bytes) -> str | None:
    """Return what a file is if its first bytes show that it is not text, and what to do about it. None for
    text.

    A NUL alone does not make a text binary: logs contain them after a crash.
    """
    for magic, name in _FORMATS:
        if sample.startswith(magic):
            return name
    if sample.isascii() or not encoding_of(sample).startswith("utf-8"):
        return None
    wrong = sample.decode("utf-8", "replace").count(_REPLACEMENT) - sample.count(_REPLACEMENT.encode())
    # Up to three may be the beginning of a character that the end of the sample has cut.
    if wrong > 3 and (wrong > len(sample) * 0.3 or b"\0" in sample):
        return f"not text in UTF-8: {CONVERT}"
    return None


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
        encoding = encoding_of(sample)
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
