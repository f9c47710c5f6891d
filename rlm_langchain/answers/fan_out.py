"""Tells a root model what a fan-out left out: the parts of a context that stood in no answered prompt of a cell.

It is a fan-out when several prompts hold pieces of a context that adjoin, or make up a good part of it; look-ups at
a few scattered places are none. All is computed from the records of the calls, which say what of the context their
prompts held (`read`), so it costs nothing without a fan-out, and a replay says the same.

Nothing is said that cannot be known. Text that was changed on its way into a prompt is not found there, so what the
prompts held besides their common beginning and the pieces that were found may be context: only what is more than
that in all, or more in one place than a prompt has of it, is missing. Stretches of fewer than 32 bytes, blank ones,
those that stand in what was read too, and fields of rows that no prompt holds do not count. Nor is anything said of
pieces for child runs, or of the context of one.
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

BATCH, SINGLE = 3, 8
"""Prompts with pieces that make a fan-out: when a batch of as many was asked at once, and one by one."""
GOOD_PART = 0.25
"""Share of a context from which on pieces need not adjoin. A quarter as many stretches as prompts do adjoin."""
NEAR_BYTES = 256
"""Between two pieces in one prompt so much is put down to how code has changed the text, if the prompt has the
room."""
CHANCE_BYTES = 2 * MIN_MATCH_BYTES
"""A shorter stretch that stands alone beside longer ones says nothing of where a prompt is from."""
SAMPLES, SAMPLE_BYTES = 16, 512
"""How much of a stretch that was not found is looked for elsewhere: so many pieces of so many bytes."""
BLANK_BYTES = 4_096
"""Longest stretch that is looked at to see whether it is blank."""
ALIKE_CHARS = 16
"""Characters that the prompts of a fan-out have in common at their beginning, if they have a question there."""
PLACES, LABEL_CHARS = 3, 60
"""Parts that are named, the longest, and characters of the name of an item."""


class LeftOut(NamedTuple):
    """What a fan-out left out of a context."""

    name: str
    """The context in the REPL; of rows, the fields that were asked about."""
    share: float
    """Share of it that was in the prompts."""
    places: str
    """The longest parts that were not, for the model."""
    with_earlier: bool
    """Whether prompts of earlier cells that begin alike count too."""


def described(part: LeftOut) -> dict[str, str]:
    """Return the values of the prompt `left_out`."""
    return {
        "share": f"{int(100 * part.share)} %" if part.share >= 0.01 else "Less than 1 %",
        "context": part.name,
        "cells": "this cell and earlier ones" if part.with_earlier else "this cell",
        "places": part.places,
    }


class _Prompt(NamedTuple):
    start: str
    chars: int
    read: dict[int, tuple[ByteRange, ...]]
    """By number of the context."""


class _Part(NamedTuple):
    start: int
    end: int
    is_read: bool


class _Run:
    """Parts in a row that were all read, or all not."""

    def __init__(self, index: SubstringIndex, part: _Part) -> None:
        self.first, self.is_read, self.size, self.characters = part, part.is_read, 0, 0
        self.add(index, part)

    def add(self, index: SubstringIndex, part: _Part) -> None:
        self.last = part
        self.size += part.end - part.start
        self.characters += 0 if part.is_read else index.characters((part.start, part.end))


def left_out(reading: CoverageTracker, calls: Iterable[CallRecord], cell: int, batch: int) -> list[LeftOut]:
    """Return what the fan-out of a cell left out of each context; nothing when there was none, or all was read.

    `calls` are those since the question, up to this cell; `batch` is the number of the most that it asked at once.
    """
    asked = {call["call"]: call for call in calls if kind_of(call["kind"]).is_answered_by_model}
    own = [call for _, call in sorted(asked.items()) if call["cell"] == cell]
    least = BATCH if batch >= BATCH else SINGLE
    if len(own) < least or any(call["kind"] == "rlm" and not call["model"] for call in own):
        return []
    read = {call["prompt_sha256"]: call["read"] for call in asked.values() if "read" in call}
    answered = {call["prompt_sha256"]: call for call in own if call["error"] is None}
    prompts = [
        _Prompt(
            call["preview"],
            call["prompt_chars"],
            {number: _without_chance(own) for number, own in _by_context(read.get(key, ())).items()},
        )
        for key, call in answered.items()
    ]
    pieces = {
        number: {prompt.read.get(number) for prompt in prompts} - {None} for number in range(len(reading.contexts))
    }
    common = _common_start([prompt.start for prompt in prompts if prompt.read])
    earlier = _by_context(
        stretch
        for call in asked.values()
        if call["cell"] != cell and common and call["preview"].startswith(common)
        for stretch in call.get("read", ())
    )
    fan_outs = (
        _left_out_of(reading, number, prompts, earlier.get(number, ()), common)
        for number, different in pieces.items()
        if len(different) >= least
    )
    return [part for part in fan_outs if part is not None]


def _by_context(read: Iterable[list[int]]) -> dict[int, tuple[ByteRange, ...]]:
    found: dict[int, list[ByteRange]] = {}
    for number, start, end in read:
        found.setdefault(number, []).append((start, end))
    return {number: tuple(stretches) for number, stretches in found.items()}


def _without_chance(stretches: tuple[ByteRange, ...]) -> tuple[ByteRange, ...]:
    """Leave out short stretches that are far from all others of a prompt: they may be words of other places."""
    longest = max(end - start for start, end in stretches)
    starts = [start for start, _ in stretches[1:]] + [stretches[-1][1] + NEAR_BYTES]
    ends = [stretches[0][0] - NEAR_BYTES] + [end for _, end in stretches[:-1]]
    return tuple(
        (start, end)
        for (start, end), before, after in zip(stretches, ends, starts, strict=True)
        if end - start >= min(longest, CHANCE_BYTES) or start - before < NEAR_BYTES or after - end < NEAR_BYTES
    )


def _common_start(starts: Sequence[str]) -> str:
    """Return what most prompts begin with; "" when they do not begin alike."""
    [(start, count)] = Counter(start[:ALIKE_CHARS] for start in starts).most_common(1) or [("", 0)]
    alike = [text for text in starts if text.startswith(start)]
    is_common = len(start) == ALIKE_CHARS and 2 * count > len(starts)
    return commonprefix(alike) if is_common else ""  # noqa: RUF071 - these are no paths


def _left_out_of(
    reading: CoverageTracker, number: int, prompts: Sequence[_Prompt], earlier: Sequence[ByteRange], common: str
) -> LeftOut | None:
    index = reading.index(number)
    if index is None:
        return None
    ranges, spare = [*earlier], list[int]()
    for prompt in prompts:
        own = [*prompt.read.get(number, ())]
        more = _unexplained(reading, prompt, common)
        between = [(a[1], b[0]) for a, b in pairwise(own) if b[0] - a[1] < NEAR_BYTES]
        changed = sum(index.characters(stretch) for stretch in between)
        if changed <= more:
            own, more = own + between, more - changed
        ranges += own
        spare.append(more)
    merged, runs = merge_ranges(ranges), list[_Run]()
    columns = _columns_asked_about(index, merged)
    for part in _parts(index, columns, merged):
        if runs and runs[-1].is_read == part.is_read:
            runs[-1].add(index, part)
        else:
            runs.append(_Run(index, part))
    if sum(run.characters for run in runs) <= sum(spare):  # then a run is missing that no one prompt has room for
        most = max(more for more, prompt in zip(spare, prompts, strict=True) if prompt.read)
        most += sum(more for more, prompt in zip(spare, prompts, strict=True) if not prompt.read)
        for run in runs:
            run.is_read = run.is_read or run.characters <= most
    for run in runs:
        run.is_read = run.is_read or _is_repeated(index, run, merged)
    missing = [run for run in runs if not run.is_read]
    if not missing:
        return None
    read = sum(run.size for run in runs if run.is_read)
    share = read / sum(run.size for run in runs)
    stretches = sum(run.is_read for run in runs) - sum(a.is_read and b.is_read for a, b in pairwise(runs))
    adjoin = stretches <= max(1, len({prompt.read.get(number) for prompt in prompts}) // 4)
    if not adjoin and share < GOOD_PART:
        return None
    name = f"`context_{number}`" if number else "`context`"
    what = name if len(columns) == len({*index.columns, 0}) else f"the fields asked about in {name}"
    return LeftOut(what, share, _places(index, missing), bool(earlier))


def _is_repeated(index: SubstringIndex, run: _Run, merged: list[ByteRange]) -> bool:
    """Return whether the text of a run stands in what was read, too: of a text at several places, one is found."""
    start, end = run.first.start, run.last.end
    samples = range(start, end, max(SAMPLE_BYTES, -(-(end - start) // SAMPLES)))
    found = 0
    for at in samples:
        begin, until = at, end
        if index.text is None:  # texts in a list may have other neighbours where they stand again
            begin, until = index.text_range(bisect_right(index.starts, at) - 1)
        begin = max(begin, start)
        found += index.repeats((begin, min(until, end, begin + SAMPLE_BYTES)), merged)
    return 2 * found > len(samples)


def _unexplained(reading: CoverageTracker, prompt: _Prompt, common: str) -> int:
    """Return how many characters of a prompt may be context that was changed."""
    if not prompt.start.startswith(common):
        return 0
    explained = 0
    for number, stretches in prompt.read.items():
        if (index := reading.index(number)) is not None:
            explained += sum(map(index.characters, stretches))
    return max(0, prompt.chars - len(common) - explained)


def _columns_asked_about(index: SubstringIndex, merged: Sequence[ByteRange]) -> set[int]:
    """Return the columns of which the prompts hold about as much as of any: other fields were not asked about."""
    columns, size, read = {*index.columns, 0}, Counter[int](), Counter[int]()
    if len(columns) == 1:
        return columns
    for column, start, end in _texts(index, columns):
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


def _texts(index: SubstringIndex, columns: set[int]) -> Iterator[tuple[int, int, int]]:
    """Yield the texts of these columns that are long enough to be found: column, begin and end."""
    if index.text is not None:
        yield 0, 0, len(index)
    for n, column in enumerate(index.columns):
        start, end = index.text_range(n)
        if column in columns and end - start >= MIN_MATCH_BYTES:
            yield column, start, end


def _parts(index: SubstringIndex, columns: set[int], merged: Sequence[ByteRange]) -> Iterator[_Part]:
    """Yield the read and unread parts of the texts of these columns, in order."""
    i = 0
    for _, begin, end in _texts(index, columns):
        at = begin
        while i < len(merged) and merged[i][1] <= begin:
            i += 1
        for n in range(i, len(merged)):
            start, stop = max(at, merged[n][0]), min(end, merged[n][1])
            if start >= end:
                break
            if start > at:
                yield _Part(at, start, _is_nothing(index, at, start))
            yield _Part(start, stop, True)
            at, i = stop, n
        if at < end:
            yield _Part(at, end, _is_nothing(index, at, end))


def _is_nothing(index: SubstringIndex, start: int, end: int) -> bool:
    """Return whether so little is there that it could not have been found."""
    size = end - start
    return size < MIN_MATCH_BYTES or (size <= BLANK_BYTES and len(index.data[start:end].strip()) < MIN_MATCH_BYTES)


def _places(index: SubstringIndex, missing: Sequence[_Run]) -> str:
    longest = sorted(range(len(missing)), key=lambda n: -missing[n].size)[:PLACES]
    named = ", ".join(_place(index, missing[n]) for n in sorted(longest))
    kind = "characters" if index.text is not None else "items"
    more = len(missing) - len(longest)
    return f"{kind} {named}" + (f" and {more:,} more places" if more else "")


def _place(index: SubstringIndex, run: _Run) -> str:
    """Return where a run is, as characters of a text, or as items."""
    first, last = (next(index.spans((part.start, part.end))) for part in (run.first, run.last))
    where = f"{first['start']:,}-{last['end']:,}"
    if index.text is not None:
        return where
    names = [quotable(one_line(span["source"]))[:LABEL_CHARS] for span in (first, last)]
    if first["source"] != last["source"]:
        return f"{names[0]} to {names[1]}"
    n = bisect_right(index.starts, run.first.start) - 1
    is_whole = index.text_range(n) == (run.first.start, run.last.end)
    return names[0] if is_whole else f"{names[0]} (characters {where})"
