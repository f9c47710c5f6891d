"""The commands `runs` and `forget`: list and delete saved runs and those in the history."""

from __future__ import annotations

import json as json_
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypedDict

from rich.cells import cell_len, set_cell_size

from rlm_langchain.cli.rendering.numbers import dollars
from rlm_langchain.cli.rendering.records import one_line
from rlm_langchain.cli.session import history
from rlm_langchain.cli.session.history import KeptRun
from rlm_langchain.cli.session.threads import SavedRun, Threads
from rlm_langchain.context.sanitize import visible
from rlm_langchain.durability import standing
from rlm_langchain.errors import InputError
from rlm_langchain.records import Record
from rlm_langchain.trajectory.tree import RunView, Trajectory

State = standing.ThreadState | Literal["running", "unsaved"]
"""`running`: a process is working on it. `unsaved`: it has no answer and cannot be resumed."""
MIN_COLUMNS = 20
"""Minimum width of names and questions, in terminal columns."""
COLUMNS = ("thread", "state", "turns", "calls", "cost", "when", "question")


class Line(TypedDict):
    """Summary of a run."""

    thread: str
    question: str
    """The last question."""
    state: State
    turns: int
    calls: int
    """Model calls for all its questions, including turns of the root run."""
    cost_usd: float | None
    at: str
    model: str | None


def show(words: str | None, *, json: bool) -> None:
    """Print all runs, the most recently written first. `words` selects runs whose last question contains them."""
    threads = Threads()
    lines = [line(saved, is_running=threads.is_running(saved.name)) for saved in threads.all()]
    lines += [kept_line(kept) for kept in history.runs()]
    found = [line for line in lines if words is None or words.casefold() in line["question"].casefold()]
    found.sort(key=lambda line: _when(line["at"]), reverse=True)
    if json:
        print(json_.dumps(found))
    elif found:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        print("\n".join(table(found, width)))
    elif lines:
        print(f"none of {len(lines):,} runs has the words {visible(str(words))!r} in its question")
    else:
        print('there are no runs yet: rlm ask "..." --thread NAME saves one')


def forget(names: Sequence[str]) -> None:
    """Delete runs by name. If a name is unknown, raises `InputError` and deletes none."""
    threads = Threads()
    kept = {name: None if threads.find(name) else history.find(name) or threads.need(name) for name in names}
    for name, run in kept.items():
        if isinstance(run, KeptRun):
            history.forget(run)
        else:
            threads.forget(name)
        print(f"deleted {name}")


def line(saved: SavedRun, *, is_running: bool) -> Line:
    """Return the summary of a thread."""
    question = saved.values.get("query", "")
    state: State = "running" if is_running else saved.standing.state
    return _line(saved.name, saved.records, question, state, saved.at, saved.setup.model)


def kept_line(kept: KeptRun) -> Line:
    """Return the summary of a run in the history."""
    at = datetime.fromtimestamp(kept.changed(), UTC).isoformat()
    try:
        records = kept.records()
    except InputError:
        return _line(kept.name, [], "", "broken", at, None)
    top = Trajectory.of(records).runs.get("", RunView(""))
    model = next((record["model"] for record in records if record["type"] == "turn"), None)
    return _line(kept.name, records, "", top.answer["status"] if top.answer else "unsaved", at, model)


def _line(name: str, records: list[Record], query: str, state: State, at: str, model: str | None) -> Line:
    top = [record for record in records if not record["path"]]
    questions = [record["query"] for record in top if record["type"] == "question"]
    spent = Trajectory.of(records).spent.total
    return Line(
        thread=name,
        question=questions[-1] if questions else query,
        state=state,
        turns=sum(record["type"] == "turn" for record in top),
        calls=spent.calls,
        cost_usd=spent.cost,
        at=at,
        model=model,
    )


def _when(at: str) -> float:
    return datetime.fromisoformat(at).timestamp() if at else 0.0


def table(lines: list[Line], width: int = 0) -> list[str]:
    """Return the table as lines, with a heading.

    `width`: columns of the terminal. Names are cut to a third of it, and questions to the rest. 0: nothing is cut.
    """
    rows = [COLUMNS, *map(_cells, lines)]
    if width:
        rows = [(_cut(name, max(MIN_COLUMNS, width // 3)), *rest) for name, *rest in rows]
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
    left = max(MIN_COLUMNS, width - sum(widths) - 2 * len(widths)) if width else 1_000
    return [
        "  ".join([*map(set_cell_size, row[:-1], widths), _cut(one_line(row[-1], 1_000), left)]) for row in rows
    ]


def _cut(text: str, width: int) -> str:
    """Cut a text to a number of terminal columns. An emoji takes two."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _cells(line: Line) -> tuple[str, ...]:
    cost = "?" if line["cost_usd"] is None else dollars(line["cost_usd"])
    when = datetime.fromisoformat(line["at"]).astimezone().strftime("%Y-%m-%d %H:%M") if line["at"] else "?"
    return line["thread"], line["state"], f"{line['turns']:,}", f"{line['calls']:,}", cost, when, line["question"]
