"""A stored text in place: looked into without loading it, whatever its size, by characters."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager

from rlm_langchain.types import ContextFile

STEP = 1 << 16
"""Bytes between two marks."""


class MappedText:
    """UTF-8 on disk. Marks are made in one pass when they are first needed; text in ASCII needs none."""

    def __init__(self, data: bytes | mmap.mmap, file: ContextFile) -> None:
        self.data = data
        self._ascii = file.length == file.size
        self._marks: list[int] = []
        """Characters before each step."""

    def character(self, byte: int) -> int:
        """How many characters begin before this byte."""
        if self._ascii:
            return byte
        step = byte // STEP
        return self._marked()[step] + _begun(self.data[step * STEP : byte])

    def slice(self, start: int, end: int) -> str:
        """The characters from one to another, as a slice of the text would give them."""
        return self.data[self._byte(start) : self._byte(end)].decode("utf-8", "replace")

    def _byte(self, character: int) -> int:
        """Where the character begins."""
        if self._ascii:
            return min(character, len(self.data))
        marks = self._marked()
        step = bisect_right(marks, character) - 1
        at, left = step * STEP, character - marks[step]
        piece = self.data[at : at + STEP + 4]
        starts = (i for i, byte in enumerate(piece) if byte & 0xC0 != 0x80)
        for count, start in enumerate(starts):
            if count == left:
                return at + start
        return min(at + len(piece), len(self.data))

    def _marked(self) -> list[int]:
        if not self._marks:
            total = 0
            for at in range(0, len(self.data), STEP):
                self._marks.append(total)
                total += _begun(self.data[at : at + STEP])
            self._marks.append(total)
        return self._marks


@contextmanager
def mapped(file: ContextFile) -> Iterator[MappedText]:
    """A stored text, for as long as it is looked into."""
    with file.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield MappedText(data, file)


_FOLLOWING = bytes(range(0x80, 0xC0))


def _begun(data: bytes) -> int:
    """Characters that begin in these bytes."""
    return len(data.translate(None, _FOLLOWING))
