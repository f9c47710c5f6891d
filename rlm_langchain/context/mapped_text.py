"""Random access to a stored text by character offsets, without loading it, whatever its size."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from rlm_langchain.context.opening import is_stored, open_context
from rlm_langchain.types import ContextFile

STEP_BYTES = 1 << 16
"""Bytes between two entries of the offset table."""
WINDOW_BYTES = 1 << 22
"""Bytes of a file that are searched at once."""
OVERLAP_BYTES = 1 << 16
"""Bytes that two windows share: the longest text that can be found."""


class FileBytes:
    """The bytes of an open file, read on access. A memory map would kill the process if the file were truncated."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, places: slice) -> bytes:
        start, stop, _ = places.indices(self._size)
        self._file.seek(start)
        parts, left = list[bytes](), stop - start
        while left > 0:
            part = self._file.read(left)
            if not part:
                raise OSError(0, "it is shorter than it was")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def find(self, needle: bytes) -> int:
        """Return the first position of these bytes, or -1."""
        for start in range(0, self._size, WINDOW_BYTES):
            at = self[start : start + WINDOW_BYTES + len(needle) - 1].find(needle)
            if at >= 0:
                return start + at
        return -1


class MappedText:
    """UTF-8 text on disk. The offset table is built in one pass when it is first needed; ASCII needs none."""

    def __init__(self, data: bytes | mmap.mmap | FileBytes, file: ContextFile) -> None:
        self.data = data
        self._ascii = file.length == file.size
        self._characters_before: list[int] = []
        """Number of characters before each step."""
        self._lines_before = [0]
        """Number of line ends before each window, as far as they have been counted."""

    def character(self, byte: int) -> int:
        """Return the number of characters that begin before this byte."""
        if self._ascii:
            return byte
        step = byte // STEP_BYTES
        return self._offsets()[step] + _count_characters(self.data[step * STEP_BYTES : byte])

    def slice(self, start: int, end: int) -> str:
        """Return the characters from `start` to `end`, like a slice of the text."""
        return self.data[self._byte_of(start) : self._byte_of(end)].decode("utf-8", "replace")

    def line(self, character: int) -> int:
        """Return the number of the line, from 1, that a character is in."""
        byte, counted = self._byte_of(character), self._lines_before
        whole = byte // WINDOW_BYTES
        while len(counted) <= whole:
            at = (len(counted) - 1) * WINDOW_BYTES
            counted.append(counted[-1] + self.data[at : at + WINDOW_BYTES].count(b"\n"))
        return counted[whole] + self.data[whole * WINDOW_BYTES : byte].count(b"\n") + 1

    def find(self, needle: bytes) -> int:
        """Return the byte offset of the first occurrence of these bytes, or -1."""
        return self.data.find(needle)

    def windows(self) -> Iterator[tuple[int, str]]:
        """Yield the text in pieces that overlap, each with the number of its first character."""
        for at in range(0, len(self.data), WINDOW_BYTES):
            start = at
            while self.data[start : start + 1] and self.data[start : start + 1][0] & 0xC0 == 0x80:
                start += 1
            piece = self.data[start : at + WINDOW_BYTES + OVERLAP_BYTES]
            yield self.character(start), piece.decode("utf-8", "replace")

    def _byte_of(self, character: int) -> int:
        """Return the byte offset of a character."""
        if self._ascii:
            return min(character, len(self.data))
        marks = self._offsets()
        step = bisect_right(marks, character) - 1
        at, left = step * STEP_BYTES, character - marks[step]
        piece = self.data[at : at + STEP_BYTES + 4]
        starts = (i for i, byte in enumerate(piece) if byte & 0xC0 != 0x80)
        for count, start in enumerate(starts):
            if count == left:
                return at + start
        return min(at + len(piece), len(self.data))

    def _offsets(self) -> list[int]:
        if not self._characters_before:
            total = 0
            for at in range(0, len(self.data), STEP_BYTES):
                self._characters_before.append(total)
                total += _count_characters(self.data[at : at + STEP_BYTES])
            self._characters_before.append(total)
        return self._characters_before


@contextmanager
def open_mapped(file: ContextFile) -> Iterator[MappedText]:
    """Yield a context that is one text. Raises `JournalError` if it has changed."""
    with open_context(file) as stream:
        if not is_stored(file):
            yield MappedText(FileBytes(stream, file.size), file)
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield MappedText(data, file)


_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


def _count_characters(data: bytes) -> int:
    """Return the number of characters that begin in these bytes."""
    return len(data.translate(None, _CONTINUATION_BYTES))
