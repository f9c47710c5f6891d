"""A UTF-8 file that is read on access: finds bytes, counts characters, keeps nothing."""

from __future__ import annotations

import os
from bisect import bisect_right

BLOCK = 1 << 18
"""Bytes between two entries of the index."""

WINDOW = 1 << 20
"""Bytes that are searched at once."""

CONTINUED = bytes(range(0x80, 0xC0))
"""The UTF-8 bytes that do not start a character."""


class Source:
    """A file with an index of its characters, which grows as far as the file has been read."""

    def __init__(self, fd: int, length: int, size: int) -> None:
        self._fd, self.length, self.size = fd, length, size
        self._ascii = length == size
        self._marks = [0]
        """Number of characters that start before each block."""

    def text(self, start: int, stop: int) -> str:
        """Return the characters from `start` to `stop`."""
        first = self.byte_of(start)
        return self.read(first, self.byte_of(stop) - first).decode("utf-8", "replace")

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes, or as many as there are. Raises `OSError` if the file is shorter than it was."""
        parts = []
        size = min(size, self.size - start)
        while size > 0:
            part = os.pread(self._fd, size, start)
            if not part:
                raise OSError("the file of the context is shorter than it was")
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return b"".join(parts)

    def byte_of(self, char: int) -> int:
        """Return the byte offset of a character."""
        if self._ascii:
            return min(char, self.size)
        while self._marks[-1] <= char:
            if not self._mark():
                return self.size
        block = bisect_right(self._marks, char) - 1
        data = self.read(block * BLOCK, BLOCK)
        lead = len(data) - len(data.lstrip(CONTINUED))
        before = data[lead:].decode("utf-8", "ignore")[: char - self._marks[block]]
        return block * BLOCK + lead + len(before.encode())

    def char_of(self, byte: int) -> int:
        """Return the index of the character that starts at a byte."""
        if self._ascii:
            return byte
        block = byte // BLOCK
        while len(self._marks) <= block and self._mark():
            pass
        return self._marks[block] + _begun(self.read(block * BLOCK, byte - block * BLOCK))

    def _mark(self) -> bool:
        """Index one more block. Return False at the end of the file."""
        start = (len(self._marks) - 1) * BLOCK
        if start >= self.size:
            return False
        self._marks.append(self._marks[-1] + _begun(self.read(start, BLOCK)))
        return True

    def find(self, needle: bytes, first: int, last: int) -> int:
        """Return the first position of some bytes in a range, or -1."""
        step = max(WINDOW, 2 * len(needle))
        while last - first >= len(needle):
            found = self.read(first, min(step + len(needle), last - first)).find(needle)
            if found >= 0:
                return first + found
            first += step
        return -1

    def rfind(self, needle: bytes, first: int, last: int) -> int:
        """Return the last position of some bytes in a range, or -1."""
        step = max(WINDOW, 2 * len(needle))
        while last - first >= len(needle):
            begin = max(first, last - step)
            found = self.read(begin, last - begin).rfind(needle)
            if found >= 0:
                return begin + found
            last = begin + len(needle) - 1 if begin > first else first - 1
        return -1

    def count(self, needle: bytes, first: int, last: int) -> int:
        """Count the non-overlapping occurrences of some bytes in a range."""
        total, step = 0, max(WINDOW, 2 * len(needle))
        while last - first >= len(needle):
            data = self.read(first, min(step, last - first))
            parts = data.count(needle)
            total += parts
            rest = len(data) - _end_of_last(data, needle, parts)  # may hold the beginning of one more
            first += len(data) - min(rest, len(needle) - 1)
        return total


def _end_of_last(data: bytes, needle: bytes, parts: int) -> int:
    """Return the end of the last occurrence that `count` has counted."""
    if not parts:
        return 0
    if needle[:1] not in needle[1:]:  # no occurrence can overlap another one
        return data.rfind(needle) + len(needle)
    return len(data) - len(data.split(needle, parts)[-1])


def _begun(data: bytes) -> int:
    """Return how many characters start in these bytes."""
    return len(data.translate(None, CONTINUED))
