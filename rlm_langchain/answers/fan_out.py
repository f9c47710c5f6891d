"""Finds what a fan-out left out: the parts of a context that were in no answered prompt of a cell.

Calls of a cell are a fan-out if their prompts contain ranges of a context that adjoin, or that are a large share of
it. A few look-ups at scattered positions are no fan-out. Everything is computed from the records of the calls,
which have the ranges that their prompts contain (`read`). So a cell without a fan-out costs nothing, and a replay
gives the same result.

A part is reported only if it was certainly left out. Text that code changed before it put it into a prompt is not
found there. So the characters of a prompt that are neither part of the common start nor of a range that was found
may be context, and unread parts are reported only if they are longer in all than these characters, or one of them
is longer than any prompt has room for. Parts of fewer than 32 bytes, blank parts, text that occurs in a range that
was read, and fields of rows that no prompt contains do not count. Fan-outs to child runs, and those of child runs,
are not measured.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from os.path import commonprefix
from typing import NamedTuple

from rlm_langchain.answers.coverage import CoverageTracker
from rlm_langchain.answers.substring_index import MIN_MATCH_BYTES, ByteRange, SubstringIndex, merge_ranges
from rlm_langchain.context.sanitize import one_line, quotable
from rlm_langchain.records import CallRecord
from rlm_langchain.trajectory.call_kinds import kind_of

MIN_BATCH, MIN_SINGLE = 3, 8
"""The fewest prompts with different ranges that are a fan-out: if a batch had as many, and if there was none."""
MIN_SHARE = 0.25
"""The share of a context from which ranges are a fan-out even if they do not adjoin."""
MAX_GAP_BYTES = 256
"""The longest gap between two ranges in one prompt that may be text which code changed, if the prompt has room."""
CHANCE_MATCH_BYTES = 2 * MIN_MATCH_BYTES
"""A shorter range that is alone beside longer ones may be a chance match."""
MAX_SAMPLES, SAMPLE_BYTES = 16, 512
"""The number and the size of the samples of unread text that are searched for in the ranges that were read."""
BLANK_BYTES = 4_096
"""The longest part that is checked for being blank."""
MIN_COMMON_CHARS = 16
"""The fewest characters that are a common start of prompts, such as a question."""
MAX_PLACES, MAX_LABEL_CHARS = 3, 60
"""The most parts that a message to the model names, the longest ones, and the most characters of an item's
label."""


class LeftOut(NamedTuple):
    """What a fan-out left out of a context."""

    name: str
    """The name of the context in the REPL, or for rows, of the fields that were asked about."""
    share: float
    """The share of the context that was in the prompts, from 0 to 1."""
    places: str
    """The longest parts that were left out, in words for the model."""
    with_earlier: bool
    """Whether prompts of earlier cells with the same start were counted, too."""


def prompt_values(part: LeftOut) -> dict[str, str]:
    """Return the values of the prompt `left_out`."""
    return {
        "share": f"{int(100 * part.share)} %" if part.share >= 0.01 else "Less than 1 %",
        "context": part.name,
        "cells": "this cell and earlier ones" if part.with_earlier else "this cell",
        "places": part.places,
    }


class _Prompt(NamedTuple):
    start: str
    """The preview of the prompt."""
    chars: int
    read: dict[int, tuple[ByteRange, ...]]
    """The ranges of each context that the prompt contains, by the number of the context."""


class _Part(NamedTuple):
    """A range of a context that was read as a whole, or not at all."""

    start: int
    end: int
    is_read: bool


class _Section:
    """Consecutive parts that were all read, or all left out."""

    def __init__(self, index: SubstringIndex, part: _Part) -> None:
        self.first, self.is_read, self.size, self.characters = part, part.is_read, 0, 0
        self.add(index, part)

    def add(self, index: SubstringIndex, part: _Part) -> None:
        self.last = part
        self.size += part.end - part.start
        self.characters += 0 if part.is_read else index.count_characters((part.start, part.end))


def parts_left_out(tracker: CoverageTracker, calls: Iterable[CallRecord], cell: int, batch: int) -> list[LeftOut]:
    """Return what the fan-out of a cell left out of each context. Empty if there was none, or all was read.

    `calls` are the calls since the question, up to this cell. `batch` is the size of the cell's largest batch.
    """
    calls_by_number = {call["call"]: call for call in calls if kind_of(call["kind"]).is_answered_by_model}
    own_calls = [call for _, call in sorted(calls_by_number.items()) if call["cell"] == cell]
    min_prompts = MIN_BATCH if batch >= MIN_BATCH else MIN_SINGLE
    if len(own_calls) < min_prompts or any(call["kind"] == "rlm" and not call["model"] for call in own_calls):
        return []
    read = {call["prompt_sha256"]: call["read"] for call in calls_by_number.values() if "read" in call}
    answered = {call["prompt_sha256"]: call for call in own_calls if call["error"] is None}
    prompts = [
        _Prompt(
            call["preview"],
            call["prompt_chars"],
            {number: _without_chance_matches(ranges) for number, ranges in _by_context(read.get(key, ())).items()},
        )
        for key, call in answered.items()
    ]
    pieces = {
        number: {prompt.read.get(number) for prompt in prompts} - {None} for number in range(len(tracker.contexts))
    }
    common = _common_start([prompt.start for prompt in prompts if prompt.read])
    earlier = _by_context(
        byte_range
        for call in calls_by_number.values()
        if call["cell"] != cell and common and call["preview"].startswith(common)
        for byte_range in call.get("read", ())
    )
    fan_outs = (
        _part_left_out(tracker, number, prompts, earlier.get(number, ()), common)
        for number, different in pieces.items()
        if len(different) >= min_prompts
    )
    return [part for part in fan_outs if part is not None]


def _by_context(read: Iterable[list[int]]) -> dict[int, tuple[ByteRange, ...]]:
    """Group ranges by the number of their context."""
    found: dict[int, list[ByteRange]] = {}
    for number, start, end in read:
        found.setdefault(number, []).append((start, end))
    return {number: tuple(ranges) for number, ranges in found.items()}


def _without_chance_matches(ranges: tuple[ByteRange, ...]) -> tuple[ByteRange, ...]:
    """Return the ranges of a prompt without short ones that are far from all others, which may be chance
    matches."""
    longest = max(end - start for start, end in ranges)
    starts = [start for start, _ in ranges[1:]] + [ranges[-1][1] + MAX_GAP_BYTES]
    ends = [ranges[0][0] - MAX_GAP_BYTES] + [end for _, end in ranges[:-1]]
    return tuple(
        (start, end)
        for (start, end), before, after in zip(ranges, ends, starts, strict=True)
        if end - start >= min(longest, CHANCE_MATCH_BYTES)
        or start - before < MAX_GAP_BYTES
        or after - end < MAX_GAP_BYTES
    )


def _common_start(starts: Sequence[str]) -> str:
    """Return the common start of most prompts, or "" if there is none."""
    [(start, count)] = Counter(start[:MIN_COMMON_CHARS] for start in starts).most_common(1) or [("", 0)]
    alike = [text for text in starts if text.startswith(start)]
    is_common = len(start) == MIN_COMMON_CHARS and 2 * count > len(starts)
    return commonprefix(alike) if is_common else ""  # noqa: RUF071 - these are no paths


def _part_left_out(
    tracker: CoverageTracker, number: int, prompts: Sequence[_Prompt], earlier: Sequence[ByteRange], common: str
) -> LeftOut | None:
    """Return what the prompts left out of one context. None for no fan-out, or if nothing was left out."""
    index = tracker.index(number)
    if index is None:
        return None
    ranges, spare = [*earlier], list[int]()
    for prompt in prompts:
        own_calls = [*prompt.read.get(number, ())]
        more = _unexplained_characters(tracker, prompt, common)
        between = [(a[1], b[0]) for a, b in pairwise(own_calls) if b[0] - a[1] < MAX_GAP_BYTES]
        changed = sum(index.count_characters(byte_range) for byte_range in between)
        if changed <= more:
            own_calls, more = own_calls + between, more - changed
        ranges += own_calls
        spare.append(more)
    merged, sections = merge_ranges(ranges), list[_Section]()
    columns = _columns_asked_about(index, merged)
    for part in _parts(index, columns, merged):
        if sections and sections[-1].is_read == part.is_read:
            sections[-1].add(index, part)
        else:
            sections.append(_Section(index, part))
    if sum(section.characters for section in sections) <= sum(spare):
        # then only a section that no prompt has room for was certainly left out
        most = max(more for more, prompt in zip(spare, prompts, strict=True) if prompt.read)
        most += sum(more for more, prompt in zip(spare, prompts, strict=True) if not prompt.read)
        for section in sections:
            section.is_read = section.is_read or section.characters <= most
    for section in sections:
        section.is_read = section.is_read or _is_repeated(index, section, merged)
    missing = [section for section in sections if not section.is_read]
    if not missing:
        return None
    read = sum(section.size for section in sections if section.is_read)
    share = read / sum(section.size for section in sections)
    read_runs = sum(section.is_read for section in sections) - sum(
        a.is_read and b.is_read for a, b in pairwise(sections)
    )
    are_adjoining = read_runs <= max(1, len({prompt.read.get(number) for prompt in prompts}) // 4)
    if not are_adjoining and share < MIN_SHARE:
        return None
    name = f"`context_{number}`" if number else "`context`"
    what = name if len(columns) == len({*index.columns, 0}) else f"the fields asked about in {name}"
    return LeftOut(what, share, _describe_longest(index, missing), bool(earlier))


def _is_repeated(index: SubstringIndex, section: _Section, merged: list[ByteRange]) -> bool:
    """Return whether the text of a section occurs in a range that was read, too. Of text that occurs several times,
    only one occurrence is found."""
    start, end = section.first.start, section.last.end
    samples = range(start, end, max(SAMPLE_BYTES, -(-(end - start) // MAX_SAMPLES)))
    found = 0
    for at in samples:
        begin, stop = at, end
        if index.text is None:  # a text that occurs again in a list may have other neighbours
            begin, stop = index.text_range(bisect_right(index.starts, at) - 1)
        begin = max(begin, start)
        found += index.occurs_within((begin, min(stop, end, begin + SAMPLE_BYTES)), merged)
    return 2 * found > len(samples)


def _unexplained_characters(tracker: CoverageTracker, prompt: _Prompt, common: str) -> int:
    """Return how many characters of a prompt may be context that code changed."""
    if not prompt.start.startswith(common):
        return 0
    explained = 0
    for number, ranges in prompt.read.items():
        if (index := tracker.index(number)) is not None:
            explained += sum(map(index.count_characters, ranges))
    return max(0, prompt.chars - len(common) - explained)


def _columns_asked_about(index: SubstringIndex, merged: Sequence[ByteRange]) -> set[int]:
    """Return the columns that the prompts contain at least half as much of as of any other column."""
    columns, size, read = {*index.columns, 0}, Counter[int](), Counter[int]()
    if len(columns) == 1:
        return columns
    for column, start, end in _texts_in(index, columns):
        size[column] += end - start
    for start, end in merged:
        for n in range(max(0, bisect_right(index.starts, start) - 1), len(index.starts)):
            first, last = index.text_range(n)
            if first >= end:
                break
            if last - first >= MIN_MATCH_BYTES:
                read[index.columns[n]] += min(last, end) - max(first, start)
    shares = {column: read[column] / size[column] for column in size}
    most = max(shares.values(), default=0.0)
    return {column for column in columns if 2 * shares.get(column, 1.0) >= most}


def _texts_in(index: SubstringIndex, columns: set[int]) -> Iterator[tuple[int, int, int]]:
    """Yield column, start and end of the texts in these columns that are long enough to be found."""
    if index.text is not None:
        yield 0, 0, len(index)
    for n, column in enumerate(index.columns):
        start, end = index.text_range(n)
        if column in columns and end - start >= MIN_MATCH_BYTES:
            yield column, start, end


def _parts(index: SubstringIndex, columns: set[int], merged: Sequence[ByteRange]) -> Iterator[_Part]:
    """Yield the read and unread parts of the texts of these columns, in order."""
    i = 0
    for _, begin, end in _texts_in(index, columns):
        at = begin
        while i < len(merged) and merged[i][1] <= begin:
            i += 1
        for n in range(i, len(merged)):
            start, stop = max(at, merged[n][0]), min(end, merged[n][1])
            if start >= end:
                break
            if start > at:
                yield _Part(at, start, _is_negligible(index, at, start))
            yield _Part(start, stop, True)
            at, i = stop, n
        if at < end:
            yield _Part(at, end, _is_negligible(index, at, end))


def _is_negligible(index: SubstringIndex, start: int, end: int) -> bool:
    """Return whether a range is blank, or too short to be found in a prompt."""
    size = end - start
    return size < MIN_MATCH_BYTES or (size <= BLANK_BYTES and len(index.data[start:end].strip()) < MIN_MATCH_BYTES)


def _describe_longest(index: SubstringIndex, missing: Sequence[_Section]) -> str:
    """Return the positions of the longest sections, in words for the model."""
    longest = sorted(range(len(missing)), key=lambda n: -missing[n].size)[:MAX_PLACES]
    named = ", ".join(_describe_section(index, missing[n]) for n in sorted(longest))
    kind = "characters" if index.text is not None else "items"
    more = len(missing) - len(longest)
    return f"{kind} {named}" + (f" and {more:,} more places" if more else "")


def _describe_section(index: SubstringIndex, section: _Section) -> str:
    """Return the position of a section, as characters of a text or as items of a list or dict."""
    first, last = (next(index.spans((part.start, part.end))) for part in (section.first, section.last))
    where = f"{first['start']:,}-{last['end']:,}"
    if index.text is not None:
        return where
    names = [quotable(one_line(span["source"]))[:MAX_LABEL_CHARS] for span in (first, last)]
    if first["source"] != last["source"]:
        return f"{names[0]} to {names[1]}"
    n = bisect_right(index.starts, section.first.start) - 1
    is_whole = index.text_range(n) == (section.first.start, section.last.end)
    return names[0] if is_whole else f"{names[0]} (characters {where})"
