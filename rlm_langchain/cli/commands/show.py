"""The command `show`: a run from its first record to its last, child runs where they were called; or as a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rich.console import Console

from rlm_langchain.budget.limits import LIMITS
from rlm_langchain.cli.rendering.plain import Lines, spending
from rlm_langchain.cli.rendering.records import narrate
from rlm_langchain.cli.rendering.rich import ScrollView
from rlm_langchain.cli.session import history
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
    """Show a saved or kept run, or the run of a trace; None: the last run. Raises `InputError` if there is none."""
    trajectory = Trajectory.of(find_run(what)[0])
    console = Console(highlight=False)
    view = ScrollView(console, full=full) if console.is_terminal else Lines(sys.stdout, full=full)
    root = trajectory.runs.get("", RunView(""))
    for record in in_order(root):
        view.write(record)
        for part in narrate(record) if record["type"] == "answer" and not record["path"] else ():
            view.show(part)
    print(f"\n{'' if root.answer else 'the run has not ended · '}{spending(trajectory.spent.total)}")


def write_page(what: str | None, path: Path) -> None:
    """Write the page of a saved or kept run, or of a trace; None: of the last run.

    Raises `InputError` if there is none, and for a `path` that cannot be written.
    """
    records, saved = find_run(what)
    RunPage(records, limits=_limits(saved), store=ContextStore()).to_html(path)
    print(f"wrote {path}. It contains prompts and replies, and the text of a short context.")


def find_run(what: str | None) -> tuple[list[Record], SavedRun | None]:
    """Return the records of the saved run of this name, else of the run in the history, else of the trace file; and
    the saved run.

    None: the run that was written last. Raises `InputError` if there is none.
    """
    if what is None:
        return _last_run()
    is_file = bool(what) and Path(what).is_file()
    try:
        saved = Threads().find(what)
    except InputError:  # the path of a file need not be a name
        if not is_file:
            raise
        saved = None
    if saved is not None:
        return saved.check_intact().records, saved
    if kept := history.find(what):
        return kept.records(), None
    if not is_file:
        raise InputError(f"there is no run and no file called {what!r}: `rlm runs` lists the runs")
    return read_trace(Path(what)), None


def _last_run() -> tuple[list[Record], SavedRun | None]:
    saved, kept = next(iter(Threads().all()), None), next(history.runs(), None)
    if kept and (saved is None or kept.changed() > datetime.fromisoformat(saved.at).timestamp()):
        print(f"the last run: {kept.name}", file=sys.stderr)
        return kept.records(), None
    if saved is None:
        off = "" if history.is_on() else f", and {history.SWITCH} is off"
        raise InputError(f"there is no run to show{off}: `rlm ask` asks a question")
    print(f"the last run: {visible(saved.name)}", file=sys.stderr)
    return saved.check_intact().records, saved


def _limits(saved: SavedRun | None) -> dict[str, float]:
    """Return the limits that a saved run was started with, if they were given as numbers."""
    if saved is None:
        return {}
    given = {limit.field: getattr(saved.setup, limit.option.name, None) for limit in LIMITS if limit.option}
    return {name: value for name, value in given.items() if isinstance(value, int | float)}


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
    rest = dict(sorted(cell.calls.items()))
    for wave in cell.waves:
        yield wave
        for number in range(wave["first"], wave["first"] + wave["count"]):
            call = rest.pop(number, CallView())
            yield from in_order(call.run) if call.run else ()
            yield from [call.record] if call.record else []
    if cell.output:
        yield cell.output
