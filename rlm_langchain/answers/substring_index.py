"""Where in a context the words of a prompt stand: an index of its bytes, and the longest matches in it.

A stretch of a text is found that stands in the context byte for byte, when it is long enough to hold one of the
marks whole. Marks are `MARK` bytes long and a step apart: 16 bytes up to 10 MB, 64 in 40 MB, 256 in 160 MB. Rules
and padding bear none, and when the `Effort` for a text is used up no more of it is found: it is a lower bound.
"""

from __future__ import annotations

import json
import mmap
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

from rlm_langchain.context.mapped_text import MappedText
from rlm_langchain.context.opening import open_context, read_context
from rlm_langchain.context.text_units import column_of, label_of, strings_at
from rlm_langchain.records import Span
from rlm_langchain.types import ContextFile

ANCHOR_BYTES = 16
"""Bytes of a mark."""
MIN_MATCH_BYTES = 32
"""Bytes of the shortest match that counts: shorter ones are often chance."""
MAX_ANCHORS = 655_360
"""Of an index, at most: in a long context they lie further apart, and only longer matches are sure to be found."""
BLOOM_BYTES = 1 << 20
"""Bytes that tell, for most marks that are nowhere, that they are nowhere."""
MAX_POSITIONS_TRIED = 8
"""Places of one mark that are compared: of a text that stands at many, one is meant, and any of them will do."""

MIN_DISTINCT_BYTES = 4
"""Different bytes that a mark has at least: `--------` and `0,0,0,0,` stand everywhere, and say nothing."""

ByteRange = tuple[int, int]
"""Where bytes begin and end."""


@dataclass(slots=True)
class SearchBudget:
    """How many places may still be compared with one text, in all contexts together."""

    left: int

    @classmethod
    def for_text(cls, text: str) -> SearchBudget:
        """Enough for one place in each 4 characters; of a long text less, so that its end is near too."""
        return cls(min(64 + len(text) // 4, 65_536))


@dataclass(slots=True)
class SubstringIndex:
    """The bytes of a context, with marks in them, and what its parts are called."""

    data: bytes | mmap.mmap
    text: MappedText | None = None
    """When it is one text."""
    labels: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """Of the texts in a list or dict: where each begins."""
    columns: array[int] = field(default_factory=lambda: array("L"))
    """Numbers of their columns (`column_of`): texts of the same field of rows have the same."""
    _anchors: array[int] = field(init=False)
    """Hash and place of each in one number, in order."""
    _bloom: bytearray = field(init=False)
    _step: int = field(init=False)

    def __post_init__(self) -> None:
        data, step = self.data, ANCHOR_BYTES
        while len(data) // step > MAX_ANCHORS:
            step *= 2
        self._step = step
        places = range(0, max(0, len(data) - ANCHOR_BYTES + 1), step)
        marks = ((data[i : i + ANCHOR_BYTES], i) for i in places)
        self._anchors = array(
            "Q", sorted([crc32(mark) << 32 | i for mark, i in marks if len({*mark}) >= MIN_DISTINCT_BYTES])
        )
        self._bloom = bytearray(BLOOM_BYTES)
        for packed in self._anchors:
            self._bloom[packed >> 44] |= 1 << (packed >> 32 & 7)

    @classmethod
    def of(cls, file: ContextFile, *, ours: bool) -> SubstringIndex:
        """An index of a stored context. A file that is not ours may be cut off at any time, so it is copied."""
        if file.kind == "text":
            data: bytes | mmap.mmap
            if ours:
                with open_context(file) as stream:
                    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            else:
                data = read_context(file)
            return cls(data, MappedText(data, file))
        labels, starts, parts, size = list[str](), list[int](), list[bytes](), 0
        columns, numbers = array("L"), dict[tuple[str, ...], int]()
        for path, text in strings_at(json.loads(read_context(file))):
            labels.append(label_of(path))
            starts.append(size)
            columns.append(numbers.setdefault(column_of(path), len(numbers)))
            parts.append(text.encode("utf-8", "replace"))
            size += len(parts[-1])
        return cls(b"".join(parts), None, labels, starts, columns)

    def __len__(self) -> int:
        return len(self.data)

    def repeats(self, stretch: ByteRange, within: list[ByteRange]) -> bool:
        """Return whether a short stretch, as far as it is looked at, stands in these ranges too."""
        said, effort = self.data[stretch[0] : stretch[1]], SearchBudget(256)
        for at in range(min(self._step, len(said) - ANCHOR_BYTES + 1)):
            for begin, length, _ in self._matches(said, at, crc32(said[at : at + ANCHOR_BYTES]), effort):
                n = bisect_right(within, begin, key=lambda place: place[0]) - 1
                if length >= MIN_MATCH_BYTES and n >= 0 and begin + length <= within[n][1]:
                    return True
        return False

    def characters(self, stretch: ByteRange) -> int:
        """Return the number of characters of a stretch."""
        start, end = stretch
        if self.text is not None:
            return self.text.character(end) - self.text.character(start)
        return len(self.data[start:end].decode("utf-8", "replace"))

    def text_range(self, number: int) -> ByteRange:
        """Return where a text of a list or dict begins and ends."""
        is_last = number + 1 == len(self.starts)
        return self.starts[number], len(self.data) if is_last else self.starts[number + 1]

    def find(self, text: str, effort: SearchBudget) -> list[ByteRange]:
        """The stretches of the context that stand in a text, as far as the effort goes."""
        said, at, found, sieve = text.encode("utf-8", "replace"), 0, list[ByteRange](), self._bloom
        while at <= len(said) - ANCHOR_BYTES and effort.left > 0:
            key = crc32(said[at : at + ANCHOR_BYTES])
            if not sieve[key >> 12] >> (key & 7) & 1:  # written out here: most of a prompt ends here
                at += 1
                continue
            matches = self._matches(said, at, key, effort)
            begin, length, right = max(matches, key=lambda match: match[1], default=(0, 0, 0))
            if length >= MIN_MATCH_BYTES:
                found.append(self._trim_to_characters((begin, begin + length)))
                at += right
            else:
                at += 1
        return merge_ranges(found)

    def _trim_to_characters(self, stretch: ByteRange) -> ByteRange:
        """Without halves of characters at its ends."""
        start, end = stretch
        while start < end and self.data[start] & 0xC0 == 0x80:
            start += 1
        while start < end < len(self.data) and self.data[end] & 0xC0 == 0x80:
            end -= 1
        return start, end

    def _matches(self, said: bytes, at: int, key: int, effort: SearchBudget) -> Iterator[tuple[int, int, int]]:
        """For each place of the mark at `at`: where a match around it begins, its length, how much is ahead."""
        mark = said[at : at + ANCHOR_BYTES]
        i = bisect_left(self._anchors, key << 32)
        for packed in self._anchors[i : i + MAX_POSITIONS_TRIED]:
            if packed >> 32 != key or effort.left <= 0:
                return
            effort.left -= 1
            place = packed & 0xFFFFFFFF
            if self.data[place : place + ANCHOR_BYTES] == mark:
                right = ANCHOR_BYTES + _common_prefix(said, at + ANCHOR_BYTES, self.data, place + ANCHOR_BYTES)
                left = _common_suffix(said, at, self.data, place)
                yield place - left, left + right, right

    def spans(self, stretch: ByteRange) -> Iterator[Span]:
        """A stretch as places in the sources, in characters."""
        start, end = stretch
        if self.text is not None:
            yield Span(source="context", start=self.text.character(start), end=self.text.character(end))
            return
        number = max(0, bisect_right(self.starts, start) - 1)
        while number < len(self.starts) and self.starts[number] < end:
            begin, until = self.text_range(number)
            first, last = max(start, begin), min(end, until)
            if first < last:
                before = len(self.data[begin:first].decode("utf-8", "replace"))
                inside = len(self.data[first:last].decode("utf-8", "replace"))
                yield Span(source=self.labels[number], start=before, end=before + inside)
            number += 1


def merge_ranges(stretches: list[ByteRange]) -> list[ByteRange]:
    """The same places, each once, in order."""
    joined: list[ByteRange] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _common_prefix(one: bytes, i: int, other: bytes | mmap.mmap, j: int) -> int:
    """How many bytes from there on are the same."""
    most, same, step = min(len(one) - i, len(other) - j), 0, 64
    while same < most:
        size = min(step, most - same)
        if one[i + same : i + same + size] == other[j + same : j + same + size]:
            same, step = same + size, step * 2
        elif size == 1:
            return same
        else:
            step = max(1, size // 2)
            most = same + size  # the difference is in here
    return same


def _common_suffix(one: bytes, i: int, other: bytes | mmap.mmap, j: int) -> int:
    """How many bytes before there are the same."""
    most, same, step = min(i, j), 0, 64
    while same < most:
        size = min(step, most - same)
        if one[i - same - size : i - same] == other[j - same - size : j - same]:
            same, step = same + size, step * 2
        elif size == 1:
            return same
        else:
            step, most = max(1, size // 2), same + size
    return same
