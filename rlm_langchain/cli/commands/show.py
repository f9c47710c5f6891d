"""The command `show`: a run from its first record to its last, with child runs where they were called."""

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
    """Show a saved run, or the run of a trace. Raises `InputError` if there is neither."""
    trajectory = Trajectory.of(_records(what))
    console = Console(highlight=False)
    view = ScrollView(console, full=full) if console.is_terminal else Lines(sys.stdout, full=full)
    root = trajectory.runs.get("", RunView(""))
    for record in in_order(root):
        view.write(record)
        for part in narrate(record) if record["type"] == "answer" and not record["path"] else ():
            view.show(part)
    print(f"\n{'' if root.answer else 'the run has not ended · '}{spending(trajectory.spent.total)}")


def _records(what: str) -> Iterable[Record]:
    """Return the records of the saved run of this name or, if there is none, of the trace file."""
    is_file = bool(what) and Path(what).is_file()
    try:
        saved = Threads().find(what)
    except InputError:  # the path of a file need not be a name
        if not is_file:
            raise
        saved = None
    if saved is not None:
        return saved.check_intact().records
    if not is_file:
        raise InputError(f"there is no saved run and no file called {what!r}: `rlm runs` lists the saved runs")
    return read_trace(Path(what))


def in_order(run: RunView) -> Iterator[Record]:
    """Yield the records of a run. Those of a child run come right before the call that it answered."""
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
    calls = dict(sorted(cell.calls.items()))
    for wave in cell.waves:
        yield wave
        for number in range(wave["first"], wave["first"] + wave["count"]):
            call = calls.pop(number, CallView())
            yield from in_order(call.run) if call.run else ()
            yield from [call.record] if call.record else []
    if cell.output:
        yield cell.output
