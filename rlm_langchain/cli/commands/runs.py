"""The command `runs`: the saved runs, as a table for people and as JSON for programs."""

from __future__ import annotations

import json as json_
import shutil
import sys
from datetime import datetime
from typing import Literal, TypedDict

from rich.cells import cell_len, set_cell_size

from rlm_langchain.cli.rendering.numbers import dollars
from rlm_langchain.cli.rendering.records import one_line
from rlm_langchain.cli.session.threads import SavedRun, Threads
from rlm_langchain.durability import standing
from rlm_langchain.trajectory.tree import Trajectory

State = standing.ThreadState | Literal["running"]
"""`running`: a process works on it now."""
NARROWEST = 20
"""Columns of a terminal that names and questions have at least."""
COLUMNS = ("thread", "state", "turns", "calls", "cost", "when", "question")


class Line(TypedDict):
    """Summary of a thread."""

    thread: str
    question: str
    """The last question."""
    state: State
    turns: int
    calls: int
    """Model calls for all its questions, turns of the root run included."""
    cost_usd: float | None
    at: str
    model: str | None


def show(*, json: bool) -> None:
    """Print all threads, the one that was written last first."""
    threads = Threads()
    lines = [line(saved, is_running=threads.is_running(saved.name)) for saved in threads.all()]
    if json:
        print(json_.dumps(lines))
    elif lines:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        print("\n".join(table(lines, width)))
    else:
        print('there are no saved runs: rlm ask "..." --thread NAME saves one')


def line(saved: SavedRun, *, is_running: bool) -> Line:
    """Return the summary of a thread."""
    spent = Trajectory.of(saved.records).spent.total
    question = next((record for record in saved.last if record["type"] == "question"), None)
    return Line(
        thread=saved.name,
        question=question["query"] if question else saved.values.get("query", ""),
        state="running" if is_running else saved.standing.state,
        turns=sum(record["type"] == "turn" for record in saved.records),
        calls=spent.calls,
        cost_usd=spent.cost,
        at=saved.at,
        model=saved.setup.model,
    )


def table(lines: list[Line], width: int = 0) -> list[str]:
    """Return the rows of the table, below their headings. Without a width, nothing is cut.

    With one, names are cut to a third of it, and questions to what the other columns leave.
    """
    rows = [COLUMNS, *map(_cells, lines)]
    if width:
        rows = [(_cut(name, max(NARROWEST, width // 3)), *rest) for name, *rest in rows]
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
    left = max(NARROWEST, width - sum(widths) - 2 * len(widths)) if width else 1_000
    return [
        "  ".join([*map(set_cell_size, row[:-1], widths), _cut(one_line(row[-1], 1_000), left)]) for row in rows
    ]


def _cut(text: str, width: int) -> str:
    """Cut a text to so many columns of a terminal, where an emoji takes two."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _cells(line: Line) -> tuple[str, ...]:
    cost = "?" if line["cost_usd"] is None else dollars(line["cost_usd"])
    when = datetime.fromisoformat(line["at"]).astimezone().strftime("%Y-%m-%d %H:%M") if line["at"] else "?"
    return line["thread"], line["state"], f"{line['turns']:,}", f"{line['calls']:,}", cost, when, line["question"]
