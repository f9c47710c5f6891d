"""`rlm show`: a run from its first record to its last, each child run where it was asked for; or as a page."""

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
    """Show the run of a trace, or of a thread; None: the last one. Raises `InputError` for what is neither."""
    told = Trajectory.of(records_of(what))
    console = Console(highlight=False)
    view = ScrollView(console, full=full) if console.is_terminal else Lines(sys.stdout, full=full)
    top = told.runs.get("", RunView(""))
    for record in in_order(top):
        view.write(record)
        for part in narrate(record) if record["type"] == "answer" and not record["path"] else ():
            view.tell(part)
    print(f"\n{'' if top.answer else 'cut off here · '}{spending(told.spent.total)}")


def write_page(what: str | None, path: Path) -> None:
    """Write the page of a trace, or of a thread; None: the last one. Raises `InputError` for what is neither, and
    for a `path` that cannot be written."""
    kept = None if _is_file(what) else _thread(what)
    records = records_of(what) if kept is None else kept.unbroken().records
    RunPage(records, limits=_limits(kept), store=ContextStore()).to_html(path)
    print(f"wrote {path}. It holds what models were asked and replied, and the text of a short context.")


def records_of(what: str | None) -> list[Record]:
    """The records of a file; when there is none, of the thread of that name; None: of the last thread."""
    return read_trace(Path(what or "")) if _is_file(what) else _thread(what).unbroken().records


def _is_file(what: str | None) -> bool:
    return bool(what) and Path(what or "").exists()


def _thread(what: str | None) -> SavedRun:
    if what is None:
        if not (all_kept := Threads().all()):
            raise InputError("no run is kept: `rlm ask --thread NAME` keeps one")
        print(f"the last run: {visible(all_kept[0].name)}", file=sys.stderr)
        return all_kept[0]
    if (kept := Threads().find(what)) is None:
        raise InputError(f"there is no file and no kept run called {what!r}: `rlm runs` lists the runs")
    return kept


def _limits(kept: SavedRun | None) -> dict[str, float]:
    """The limits that a thread was begun with, as far as they were given as numbers."""
    given = {limit.field: getattr(kept.setup, limit.option.name, None) for limit in LIMITS if limit.option and kept}
    return {name: value for name, value in given.items() if isinstance(value, int | float)}


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
