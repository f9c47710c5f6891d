"""The command `compare`: two runs side by side, and a diff of their code."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff

from rlm_langchain.cli.commands.show import find_run
from rlm_langchain.cli.rendering import numbers
from rlm_langchain.cli.rendering.records import as_text, one_line
from rlm_langchain.context.sanitize import visible
from rlm_langchain.records import Record
from rlm_langchain.trajectory.degradation import STOP_SENTENCES, describe_shortfalls, shortfalls
from rlm_langchain.trajectory.tree import RunView, Trajectory, flatten

WIDTH = 48
"""Maximum characters of a column."""


def compare_runs(first: str, second: str) -> Iterator[str]:
    """Yield the lines that compare two threads or traces. Raises `InputError` if a name is neither."""
    one, other = ([*flatten(find_run(what)[0])] for what in (first, second))
    names = ("", one_line(first, WIDTH), one_line(second, WIDTH))
    rows = [names, *zip(FACTS, _facts(one), _facts(other), strict=True)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    yield from (f"{name:{widths[0]}}  {left:{widths[1]}}  {right}".rstrip() for name, left, right in rows)
    yield ""
    yield from _code(_codes(one), _codes(other), (first, second))


FACTS = (
    "question",
    "answer",
    "status",
    "why",
    "missing",
    "cost",
    "model calls",
    "tokens",
    "time",
    "turns",
    "child runs",
)


def _facts(records: list[Record]) -> Iterator[str]:
    trajectory = Trajectory.of(records)
    top, total = trajectory.runs.get("", RunView("")), trajectory.spent.total
    questions = [record for record in records if record["type"] == "question" and not record["path"]]
    calls = [record for record in records if record["type"] == "call" and not record["path"]]
    yield one_line(questions[-1]["query"], WIDTH) if questions else ""
    yield one_line(as_text(top.answer["answer"]), WIDTH) if top.answer else "none yet"
    yield top.answer["status"] if top.answer else "not ended"
    yield one_line(STOP_SENTENCES[top.answer["stop_reason"]], WIDTH) if top.answer else ""
    yield (
        one_line(describe_shortfalls(top.answer.get("degraded", {}) if top.answer else shortfalls(calls)), WIDTH)
        or "nothing"
    )
    yield "price unknown" if total.cost is None else numbers.dollars(total.cost)
    yield f"{total.calls:,}"
    yield f"{total.tokens:,}"
    yield f"{records[-1]['time'] - records[0]['time']:,.1f} s" if records else "0 s"
    yield f"{len(top.turns):,}"
    yield f"{len(trajectory.runs) - 1:,}"


def _codes(records: list[Record]) -> list[str]:
    """Return the code of each turn of the root run."""
    return ["\n".join(record["cells"]) for record in records if record["type"] == "turn" and not record["path"]]


def _code(one: list[str], other: list[str], names: tuple[str, str]) -> Iterator[str]:
    first_difference = next(
        (turn for turn, (left, right) in enumerate(zip(one, other, strict=False)) if left != right),
        min(len(one), len(other)),
    )
    if one == other:
        yield f"The code of all {len(one)} turns is the same." if one else "Neither run has a turn."
        return
    yield (
        f"The code is the same up to turn {first_difference}."
        if first_difference
        else "The code differs from the first turn."
    )
    for turn in range(first_difference, max(len(one), len(other))):
        left, right = (codes[turn].splitlines() if turn < len(codes) else [] for codes in (one, other))
        before, after = (f"{one_line(name, WIDTH)}, turn {turn + 1}" for name in names)
        yield from (visible(line) for line in ("", *unified_diff(left, right, before, after, lineterm="")))
