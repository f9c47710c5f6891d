"""What a run did, for people: its records folded into a tree, and counted.

In a stream and in a trace the records of all runs of a tree come mixed, as things happen; each says by its
`path` where it belongs. In a result, those of a child run are inside the record of the call that it answered:
`flat` takes them out.
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
    """None while it is on its way."""
    run: RunView | None = None


@dataclass(slots=True)
class RanCell:
    """A cell, what it asked, and what came of it."""

    record: CellRecord
    waves: list[WaveRecord] = field(default_factory=list)
    calls: dict[int, CallView] = field(default_factory=dict)
    """By number."""
    output: OutputRecord | None = None


@dataclass(slots=True)
class TurnView:
    """What the root model of a run wrote, and the cells of it that were run."""

    record: TurnRecord
    cells: list[RanCell] = field(default_factory=list)


@dataclass(slots=True)
class RunView:
    """One run of the tree; of a conversation, all its runs."""

    path: str
    question: QuestionRecord | None = None
    """The first one."""
    steps: list[TurnView | NoteRecord | AnswerRecord | QuestionRecord] = field(default_factory=list)
    """In order. The next question of a conversation is one of them, after the answer before it."""
    cells: dict[int, RanCell] = field(default_factory=dict)
    """Of all turns, by number."""
    answer: AnswerRecord | None = None
    """The last one. None while it goes on, or when it was cut off."""

    @property
    def turns(self) -> list[TurnView]:
        """The turns of the root model, in order."""
        return [step for step in self.steps if isinstance(step, TurnView)]


class Spent(NamedTuple):
    """What a tree of runs has used."""

    root: Usage = Usage()
    """The turns of the top run."""
    sub: Usage = Usage()
    """Everything below them."""

    @property
    def total(self) -> Usage:
        """Both together."""
        return self.root.plus(self.sub)


@dataclass(slots=True)
class Trajectory:
    """A tree of runs, told record by record. It is true at every moment, also for a run that was cut off."""

    runs: dict[str, RunView] = field(default_factory=dict)
    """By path; the top run is at ""."""
    spent: Spent = field(default_factory=Spent)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Trajectory:
        """The tree of a result's records, or of a trace's."""
        told = cls()
        for record in flat(records):
            told.add(record)
        return told

    def add(self, record: Record) -> None:
        """Take in what happened next."""
        run = self._run(record["path"])
        match record["type"]:
            case "question":
                self._ask(run, record)
            case "turn":
                run.steps.append(TurnView(record))
                self._spend(record)
            case "cell":
                self._begin(run, record)
            case "note":
                run.steps.append(record)
            case "answer":
                run.answer = record
            case _:
                self._in_cell(run, record)

    def _ask(self, run: RunView, record: QuestionRecord) -> None:
        if run.question is None:
            run.question = record
            return
        run.steps += [run.answer, record] if run.answer else [record]
        run.answer = None

    def _begin(self, run: RunView, record: CellRecord) -> None:
        run.cells[record["cell"]] = cell = RanCell(record)
        for turn in reversed(run.turns):
            if turn.record["turn"] == record["turn"]:
                turn.cells.append(cell)
                return

    def _in_cell(self, run: RunView, record: WaveRecord | CallRecord | OutputRecord) -> None:
        cell = run.cells.get(record["cell"])
        if record["type"] == "call":
            self._spend(record)
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
        """The run at a path; a new one is hung below the call that it answers."""
        if path in self.runs:
            return self.runs[path]
        run = self.runs[path] = RunView(path)
        if path:
            above, _, number = path.rpartition("/")
            cell = _asking(self._run(above), int(number))
            if cell is not None:
                cell.calls.setdefault(int(number), CallView()).run = run
        return run

    def _spend(self, record: TurnRecord | CallRecord) -> None:
        """Count every model call once: what a child run cost is in its own records already."""
        used = Usage(**record["usage"])
        if record["type"] == "turn" and not record["path"]:
            self.spent = Spent(self.spent.root.plus(used), self.spent.sub)
        elif record["type"] == "turn" or child_path(record["path"], record["call"]) not in self.runs:
            self.spent = Spent(self.spent.root, self.spent.sub.plus(used))


def _asking(run: RunView, call: int) -> RanCell | None:
    """The cell that has this call on its way."""
    for cell in reversed(run.cells.values()):
        if any(wave["first"] <= call < wave["first"] + wave["count"] for wave in cell.waves):
            return cell
    return None


def flat(records: Iterable[Record]) -> Iterator[Record]:
    """The records of a run and of all below it; those of a child run come before the call it answered."""
    for record in records:
        if record["type"] == "call":
            yield from flat(record.get("child", ()))
            yield bare(record)
        else:
            yield record


def bare(record: Record) -> Record:
    """The record without those of a child run, which a stream tells before, under a path of their own."""
    if record["type"] != "call" or "child" not in record:
        return record
    rest = record.copy()
    del rest["child"]
    rest.pop("seal", None)  # it was of the whole
    return rest
