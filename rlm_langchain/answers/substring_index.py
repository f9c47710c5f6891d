"""An index of the bytes of a context, which finds the exact matches of a text in it.

A match is found if it is long enough to contain a whole anchor. Anchors are `ANCHOR_BYTES` long, and one begins
every 16 bytes in a context of up to 10 MB, every 64 in 40 MB, every 256 in 160 MB. Rules and padding get no anchor.
When the `SearchBudget` of a text is used up, no more matches are found, so the result is a lower bound.
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
"""Length of an anchor."""
MIN_MATCH_BYTES = 32
"""Length of the shortest match that counts. Shorter ones are often chance."""
MAX_ANCHORS = 655_360
"""The most anchors of an index. In a long context they lie further apart, and some short matches are missed."""
BLOOM_BYTES = 1 << 20
"""Size of the bloom filter, which rules out most hashes that no anchor has."""
MAX_POSITIONS_COMPARED = 8
"""The most positions of one anchor that are compared. Of a text that occurs many times, any match will do."""

MIN_DISTINCT_BYTES = 4
"""Distinct bytes that an anchor has at least. Text like `--------` or `0,0,0,0,` occurs everywhere."""

ByteRange = tuple[int, int]
"""Start and end, in bytes."""


@dataclass(slots=True)
class SearchBudget:
    """The number of positions that may still be compared with one text, in all contexts together."""

    left: int

    @classmethod
    def for_text(cls, text: str) -> SearchBudget:
        """Return a budget of one position for each 4 characters of a text, and 65,536 at most."""
        return cls(min(64 + len(text) // 4, 65_536))


@dataclass(slots=True)
class SubstringIndex:
    """The bytes of a context with their anchors, and the labels of its texts."""

    data: bytes | mmap.mmap
    text: MappedText | None = None
    """The context if it is one text. None for a list or dict, which the next three fields describe."""
    labels: list[str] = field(default_factory=list)
    """The label of each text."""
    starts: list[int] = field(default_factory=list)
    """The number of the first byte of each text."""
    columns: array[int] = field(default_factory=lambda: array("L"))
    """The number of the column of each text (`column_of`). Texts in the same field of rows have the same number."""
    _anchors: array[int] = field(init=False)
    """Hash and position of each anchor in one number, sorted."""
    _bloom: bytearray = field(init=False)
    _step: int = field(init=False)
    """The distance of two anchors, in bytes."""

    def __post_init__(self) -> None:
        data, step = self.data, ANCHOR_BYTES
        while len(data) // step > MAX_ANCHORS:
            step *= 2
        self._step = step
        positions = range(0, max(0, len(data) - ANCHOR_BYTES + 1), step)
        anchors = ((data[i : i + ANCHOR_BYTES], i) for i in positions)
        self._anchors = array(
            "Q", sorted([crc32(anchor) << 32 | i for anchor, i in anchors if len({*anchor}) >= MIN_DISTINCT_BYTES])
        )
        self._bloom = bytearray(BLOOM_BYTES)
        for packed in self._anchors:
            self._bloom[packed >> 44] |= 1 << (packed >> 32 & 7)

    @classmethod
    def of(cls, file: ContextFile, *, ours: bool) -> SubstringIndex:
        """Build the index of a stored context. A file that is not `ours` is read into memory, because its owner may
        truncate it at any time."""
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

    def occurs_within(self, byte_range: ByteRange, within: list[ByteRange]) -> bool:
        """Return whether the beginning of a short range occurs inside one of the ranges `within`, too."""
        encoded, budget = self.data[byte_range[0] : byte_range[1]], SearchBudget(256)
        for at in range(min(self._step, len(encoded) - ANCHOR_BYTES + 1)):
            for begin, length, _ in self._matches(encoded, at, crc32(encoded[at : at + ANCHOR_BYTES]), budget):
                n = bisect_right(within, begin, key=lambda position: position[0]) - 1
                if length >= MIN_MATCH_BYTES and n >= 0 and begin + length <= within[n][1]:
                    return True
        return False

    def count_characters(self, byte_range: ByteRange) -> int:
        """Return the number of characters in a range."""
        start, end = byte_range
        if self.text is not None:
            return self.text.character(end) - self.text.character(start)
        return len(self.data[start:end].decode("utf-8", "replace"))

    def text_range(self, number: int) -> ByteRange:
        """Return the range of the text with this number in a list or dict."""
        is_last = number + 1 == len(self.starts)
        return self.starts[number], len(self.data) if is_last else self.starts[number + 1]

    def find(self, text: str, budget: SearchBudget) -> list[ByteRange]:
        """Return the ranges of the context that occur in a text, as far as the budget allows, merged and sorted."""
        encoded, at, found, bloom = text.encode("utf-8", "replace"), 0, list[ByteRange](), self._bloom
        while at <= len(encoded) - ANCHOR_BYTES and budget.left > 0:
            key = crc32(encoded[at : at + ANCHOR_BYTES])
            if not bloom[key >> 12] >> (key & 7) & 1:  # inlined, because most bytes of a prompt end here
                at += 1
                continue
            matches = self._matches(encoded, at, key, budget)
            begin, length, right = max(matches, key=lambda match: match[1], default=(0, 0, 0))
            if length >= MIN_MATCH_BYTES:
                found.append(self._trim_to_characters((begin, begin + length)))
                at += right
            else:
                at += 1
        return merge_ranges(found)

    def _trim_to_characters(self, byte_range: ByteRange) -> ByteRange:
        """Return a range without the incomplete characters at its ends."""
        start, end = byte_range
        while start < end and self.data[start] & 0xC0 == 0x80:
            start += 1
        while start < end < len(self.data) and self.data[end] & 0xC0 == 0x80:
            end -= 1
        return start, end

    def _matches(self, encoded: bytes, at: int, key: int, budget: SearchBudget) -> Iterator[tuple[int, int, int]]:
        """Yield the matches around the anchor at `at`: start in the context, length, and length from `at` on."""
        anchor = encoded[at : at + ANCHOR_BYTES]
        i = bisect_left(self._anchors, key << 32)
        for packed in self._anchors[i : i + MAX_POSITIONS_COMPARED]:
            if packed >> 32 != key or budget.left <= 0:
                return
            budget.left -= 1
            position = packed & 0xFFFFFFFF
            if self.data[position : position + ANCHOR_BYTES] == anchor:
                right = ANCHOR_BYTES + _common_prefix(
                    encoded, at + ANCHOR_BYTES, self.data, position + ANCHOR_BYTES
                )
                left = _common_suffix(encoded, at, self.data, position)
                yield position - left, left + right, right

    def spans(self, byte_range: ByteRange) -> Iterator[Span]:
        """Yield a range as spans of its sources, in characters."""
        start, end = byte_range
        if self.text is not None:
            yield Span(source="context", start=self.text.character(start), end=self.text.character(end))
            return
        number = max(0, bisect_right(self.starts, start) - 1)
        while number < len(self.starts) and self.starts[number] < end:
            begin, stop = self.text_range(number)
            first, last = max(start, begin), min(end, stop)
            if first < last:
                first_character = len(self.data[begin:first].decode("utf-8", "replace"))
                inside = len(self.data[first:last].decode("utf-8", "replace"))
                yield Span(source=self.labels[number], start=first_character, end=first_character + inside)
            number += 1


def merge_ranges(ranges: list[ByteRange]) -> list[ByteRange]:
    """Sort ranges, and join those that overlap or touch."""
    merged: list[ByteRange] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _common_prefix(one: bytes, i: int, other: bytes | mmap.mmap, j: int) -> int:
    """Return the number of equal bytes from `one[i]` and `other[j]` on."""
    most, same, step = min(len(one) - i, len(other) - j), 0, 64
    while same < most:
        size = min(step, most - same)
        if one[i + same : i + same + size] == other[j + same : j + same + size]:
            same, step = same + size, step * 2
        elif size == 1:
            return same
        else:
            step = max(1, size // 2)
            most = same + size  # the first difference is before this
    return same


def _common_suffix(one: bytes, i: int, other: bytes | mmap.mmap, j: int) -> int:
    """Return the number of equal bytes before `one[i]` and `other[j]`."""
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
