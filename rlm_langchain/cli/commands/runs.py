"""`rlm runs`: what is kept, as a table for people and as JSON for programs."""

from __future__ import annotations

import json as json_
import shutil
import sys
from datetime import datetime
from typing import Literal, TypedDict

from rlm_langchain.cli.rendering.numbers import dollars
from rlm_langchain.cli.rendering.records import one_line
from rlm_langchain.cli.session.threads import SavedRun, Threads
from rlm_langchain.durability import standing
from rlm_langchain.trajectory.tree import Trajectory

State = standing.ThreadState | Literal["running"]
"""`running`: a process works on it now."""
COLUMNS = ("thread", "state", "turns", "calls", "cost", "when", "question")


class Line(TypedDict):
    """A thread, in short."""

    thread: str
    question: str
    """The last one."""
    state: State
    turns: int
    calls: int
    """Of models, root turns included, over all questions."""
    cost_usd: float | None
    at: str
    model: str | None


def show(*, json: bool) -> None:
    """Print all threads, the last one that worked first."""
    threads = Threads()
    lines = [line(kept, at_work=threads.at_work(kept.name)) for kept in threads.all()]
    if json:
        print(json_.dumps(lines))
    elif lines:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        print("\n".join(table(lines, width)))
    else:
        print('no runs are kept yet: rlm ask "..." --thread NAME keeps one')


def line(kept: SavedRun, *, at_work: bool) -> Line:
    """A thread in short."""
    spent = Trajectory.of(kept.records).spent.total
    question = next((record for record in kept.last if record["type"] == "question"), None)
    return Line(
        thread=kept.name,
        question=question["query"] if question else kept.values.get("query", ""),
        state="running" if at_work else kept.standing.state,
        turns=sum(record["type"] == "turn" for record in kept.records),
        calls=spent.calls,
        cost_usd=spent.cost,
        at=kept.at,
        model=kept.setup.model,
    )


def table(lines: list[Line], width: int = 0) -> list[str]:
    """Columns below their heads; the question has what is left of the width."""
    rows = [COLUMNS, *map(_cells, lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
    left = max(20, width - sum(widths) - 2 * len(widths)) if width else 1_000
    return [
        "  ".join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=False)), one_line(row[-1], left)])
        for row in rows
    ]


def _cells(told: Line) -> tuple[str, ...]:
    cost = "?" if told["cost_usd"] is None else dollars(told["cost_usd"])
    when = datetime.fromisoformat(told["at"]).astimezone().strftime("%Y-%m-%d %H:%M") if told["at"] else "?"
    return told["thread"], told["state"], f"{told['turns']:,}", f"{told['calls']:,}", cost, when, told["question"]
