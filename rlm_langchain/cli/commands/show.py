"""`rlm show`: a run from its first record to its last, each child run where it was asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console

from rlm_langchain.cli.rendering.plain import Lines, spending
from rlm_langchain.cli.rendering.records import narrate
from rlm_langchain.cli.rendering.rich import ScrollView
from rlm_langchain.cli.session.threads import Threads
from rlm_langchain.errors import InputError
from rlm_langchain.records import Record
from rlm_langchain.trajectory.jsonl import read_trace
from rlm_langchain.trajectory.tree import (
    CallView,
    RanCell,
    RunView,
    Trajectory,
    TurnView,
)


def show_run(what: str, *, full: bool) -> None:
    """Show the run of a trace, or of a thread. Raises `InputError` for what is neither."""
    told = Trajectory.of(_records(what))
    console = Console(highlight=False)
    view = ScrollView(console, full=full) if console.is_terminal else Lines(sys.stdout, full=full)
    top = told.runs.get("", RunView(""))
    for record in in_order(top):
        view.write(record)
        for part in narrate(record) if record["type"] == "answer" and not record["path"] else ():
            view.tell(part)
    print(f"\n{'' if top.answer else 'cut off here · '}{spending(told.spent.total)}")


def _records(what: str) -> Iterable[Record]:
    """Those of a file; when there is none, of the thread of that name."""
    if what and Path(what).exists():
        return read_trace(Path(what))
    kept = Threads().find(what)
    if kept is None:
        raise InputError(f"there is no file and no kept run called {what!r}: `rlm runs` lists the runs")
    return kept.unbroken().records


def in_order(run: RunView) -> Iterator[Record]:
    """The records of a run as a tree is read: those of a child run right before the call that it answered."""
    if run.question:
        yield run.question
    for step in run.steps:
        if not isinstance(step, TurnView):
            yield step
            continue
        yield step.record
        for cell in step.cells:
            yield from _of_cell(cell)
    if run.answer:
        yield run.answer


def _of_cell(cell: RanCell) -> Iterator[Record]:
    yield cell.record
    rest = dict(sorted(cell.calls.items()))
    for wave in cell.waves:
        yield wave
        for number in range(wave["first"], wave["first"] + wave["count"]):
            asked = rest.pop(number, CallView())
            yield from in_order(asked.run) if asked.run else ()
            yield from [asked.record] if asked.record else []
    if cell.output:
        yield cell.output
