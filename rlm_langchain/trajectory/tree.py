"""Folds records into a tree of runs for display, and adds up the usage.

In streams and traces, the records of all runs are interleaved, and `path` says to which run each belongs. In a
result, the records of a child run are inside the record of the call that it answered; `flatten` takes them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rlm_langchain.records import (
    AnswerRecord,
    CallRecord,
    CellRecord,
    NoteRecord,
    OutputRecord,
    QuestionRecord,
    Record,
    TurnRecord,
    WaveRecord,
    child_path,
)
from rlm_langchain.types import Usage


@dataclass(slots=True)
class CallView:
    """One call of a cell, and the run that answers it when that is a child run."""

    record: CallRecord | None = None
    """None while the call waits for its reply."""
    run: RunView | None = None


@dataclass(slots=True)
class RanCell:
    """A cell with its calls and its output."""

    record: CellRecord
    waves: list[WaveRecord] = field(default_factory=list)
    calls: dict[int, CallView] = field(default_factory=dict)
    """Calls by number."""
    output: OutputRecord | None = None


@dataclass(slots=True)
class TurnView:
    """A turn of a root model, and the cells of it that were run."""

    record: TurnRecord
    cells: list[RanCell] = field(default_factory=list)


@dataclass(slots=True)
class RunView:
    """One run of the tree; for a conversation, all its questions."""

    path: str
    question: QuestionRecord | None = None
    """The first question."""
    steps: list[TurnView | NoteRecord | AnswerRecord | QuestionRecord] = field(default_factory=list)
    """Turns, notes and earlier answers in order. In a conversation, later questions are among them."""
    cells: dict[int, RanCell] = field(default_factory=dict)
    """Cells of all turns, by number."""
    answer: AnswerRecord | None = None
    """The last answer. None while the run works, or when it was interrupted."""

    @property
    def turns(self) -> list[TurnView]:
        """Return the turns of the root model, in order."""
        return [step for step in self.steps if isinstance(step, TurnView)]


class Spent(NamedTuple):
    """Usage of a tree of runs."""

    root: Usage = Usage()
    """The turns of the top run."""
    sub: Usage = Usage()
    """Everything below them."""

    @property
    def total(self) -> Usage:
        """Return the usage of root and sub-calls together."""
        return self.root.plus(self.sub)


@dataclass(slots=True)
class Trajectory:
    """A tree of runs, built record by record. It is consistent after each one, also for an interrupted run."""

    runs: dict[str, RunView] = field(default_factory=dict)
    """Runs by path; the root run is at ""."""
    spent: Spent = field(default_factory=Spent)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Trajectory:
        """Build the tree from the records of a result or a trace."""
        trajectory = cls()
        for record in flatten(records):
            trajectory.add(record)
        return trajectory

    def add(self, record: Record) -> None:
        """Add the next record."""
        run = self._run(record["path"])
        match record["type"]:
            case "question":
                self._add_question(run, record)
            case "turn":
                run.steps.append(TurnView(record))
                self._add_usage(record)
            case "cell":
                self._add_cell(run, record)
            case "note":
                run.steps.append(record)
                self._add_usage(record)
            case "answer":
                run.answer = record
            case _:
                self._add_to_cell(run, record)

    def _add_question(self, run: RunView, record: QuestionRecord) -> None:
        if run.question is None:
            run.question = record
            return
        run.steps += [run.answer, record] if run.answer else [record]
        run.answer = None

    def _add_cell(self, run: RunView, record: CellRecord) -> None:
        run.cells[record["cell"]] = cell = RanCell(record)
        for turn in reversed(run.turns):
            if turn.record["turn"] == record["turn"]:
                turn.cells.append(cell)
                return

    def _add_to_cell(self, run: RunView, record: WaveRecord | CallRecord | OutputRecord) -> None:
        cell = run.cells.get(record["cell"])
        if record["type"] == "call":
            self._add_usage(record)
        if cell is None:
            return
        match record["type"]:
            case "wave":
                cell.waves.append(record)
            case "call":
                cell.calls.setdefault(record["call"], CallView()).record = record
            case "output":
                cell.output = record

    def _run(self, path: str) -> RunView:
        """Return the run at a path. A new run is added below the call that it answers."""
        if path in self.runs:
            return self.runs[path]
        run = self.runs[path] = RunView(path)
        if path:
            above, _, number = path.rpartition("/")
            cell = _calling_cell(self._run(above), int(number))
            if cell is not None:
                cell.calls.setdefault(int(number), CallView()).run = run
        return run

    def _add_usage(self, record: TurnRecord | CallRecord | NoteRecord) -> None:
        """Count every model call once: the cost of a child run is in its own records already."""
        if "usage" not in record:
            return
        used = Usage(**record["usage"])
        if record["type"] != "call" and not record["path"]:
            self.spent = Spent(self.spent.root.plus(used), self.spent.sub)
        elif record["type"] != "call" or child_path(record["path"], record["call"]) not in self.runs:
            self.spent = Spent(self.spent.root, self.spent.sub.plus(used))


def _calling_cell(run: RunView, call: int) -> RanCell | None:
    """Return the cell that made this call."""
    for cell in reversed(run.cells.values()):
        if any(wave["first"] <= call < wave["first"] + wave["count"] for wave in cell.waves):
            return cell
    return None


def flatten(records: Iterable[Record]) -> Iterator[Record]:
    """Yield the records of a run and of all runs below it; a child run comes before the call that it answered."""
    for record in records:
        if record["type"] == "call":
            yield from flatten(record.get("child", ()))
            yield without_child(record)
        else:
            yield record


def without_child(record: Record) -> Record:
    """Return a record without its child run, whose records a stream sends earlier under their own path."""
    if record["type"] != "call" or "child" not in record:
        return record
    rest = record.copy()
    del rest["child"]
    rest.pop("seal", None)  # the checksum covered the child run too
    return rest
