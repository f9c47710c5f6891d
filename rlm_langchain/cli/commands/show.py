"""The command `show`: the steps of a run, with child runs where they were called, in text or as a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from rlm_langchain.budget.limits import LIMITS
from rlm_langchain.cli.rendering.plain import Lines, spending
from rlm_langchain.cli.rendering.records import narrate
from rlm_langchain.cli.rendering.rich import ScrollView
from rlm_langchain.cli.session.threads import SavedRun, Threads
from rlm_langchain.context.sanitize import visible
from rlm_langchain.context.store import ContextStore
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
from rlm_langchain.viewer.page import RunPage


def show_run(what: str | None, *, full: bool) -> None:
    """Show a saved run, or the run of a trace. None: the last run. Raises `InputError` if there is neither."""
    trajectory = Trajectory.of(records_of(what))
    console = Console(highlight=False)
    view = ScrollView(console, full=full) if console.is_terminal else Lines(sys.stdout, full=full)
    root = trajectory.runs.get("", RunView(""))
    for record in in_order(root):
        view.write(record)
        for part in narrate(record) if record["type"] == "answer" and not record["path"] else ():
            view.show(part)
    print(f"\n{'' if root.answer else 'the run has not ended · '}{spending(trajectory.spent.total)}")


def write_page(what: str | None, path: Path) -> None:
    """Write the page of a saved run, or of the run of a trace. None: the last saved run.

    Raises `InputError` if there is neither, or if `path` cannot be written.
    """
    saved = _saved_run(what)
    records = _records(what, saved)
    RunPage(records, limits=_limits(saved), store=ContextStore()).to_html(path)
    print(f"wrote {path}. It contains prompts and replies of models, and the text of a short context.")


def records_of(what: str | None) -> list[Record]:
    """Return the records of the saved run of this name, or of the trace file. None: of the last run."""
    return _records(what, _saved_run(what))


def _records(what: str | None, saved: SavedRun | None) -> list[Record]:
    return read_trace(Path(what or "")) if saved is None else saved.check_intact().records


def _saved_run(what: str | None) -> SavedRun | None:
    """Return the saved run of this name; None if there is only a file. Raises `InputError` if there is neither."""
    if what is None:
        if not (saved_runs := Threads().all()):
            raise InputError("there is no saved run: `rlm ask --thread NAME` saves one")
        print(f"the last run: {visible(saved_runs[0].name)}", file=sys.stderr)
        return saved_runs[0]
    is_file = bool(what) and Path(what).is_file()
    try:
        saved = Threads().find(what)
    except InputError:  # the path of a file need not be a name
        if not is_file:
            raise
        return None
    if saved is None and not is_file:
        raise InputError(f"there is no saved run and no file called {what!r}: `rlm runs` lists the saved runs")
    return saved


def _limits(saved: SavedRun | None) -> dict[str, float]:
    """Return the limits that a saved run was begun with, as far as they are numbers."""
    values = {
        limit.field: getattr(saved.setup, limit.option.name, None) for limit in LIMITS if limit.option and saved
    }
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


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
