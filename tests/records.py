"""Builds records by hand, for tests of their readers."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any

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
)
from rlm_langchain.types import ContextRef, Usage

CONTEXT = ContextRef(
    sha256="0" * 64,
    kind="text",
    type="str",
    length=4_000,
    size=4_000,
    about="str, 4,000 characters",
    preview="It was",
)


class RecordBuilder:
    """Builds the records of a run one after the other. A second passes between two of them."""

    def __init__(self, path: str = "", clock: count[int] | None = None) -> None:
        self.path = path
        self.records: list[Record] = []
        self._clock = clock or count(1_000)

    def question(self, query: str = "How many?", context: ContextRef | None = CONTEXT) -> RecordBuilder:
        return self._add(
            QuestionRecord(
                type="question", path=self.path, query=query, text=query, time=self._now(), context=context
            )
        )

    def turn(self, turn: int, text: str, *cells: str, used: Usage = Usage(1, 100, 0, 10, 0.5)) -> RecordBuilder:
        return self._add(
            TurnRecord(
                type="turn",
                path=self.path,
                turn=turn,
                text=text,
                cells=list(cells),
                usage=used.record(),
                model="root",
                seconds=2.0,
                retries=0,
                time=self._now(),
            )
        )

    def cell(self, cell: int, code: str, turn: int = 0) -> RecordBuilder:
        return self._add(CellRecord(type="cell", path=self.path, turn=turn, cell=cell, code=code, time=self._now()))

    def wave(self, cell: int, first: int, number: int) -> RecordBuilder:
        return self._add(
            WaveRecord(type="wave", path=self.path, cell=cell, first=first, count=number, time=self._now())
        )

    def call(
        self, cell: int, call: int, value: Any = "yes", error: str | None = None, **more: Any
    ) -> RecordBuilder:
        record = CallRecord(
            type="call",
            path=self.path,
            cell=cell,
            call=call,
            kind="llm",
            prompt_sha256=hashlib.sha256(b"prompt").hexdigest(),
            prompt_chars=6,
            preview="Is it so?",
            value=None if error else value,
            error=error,
            usage=Usage(1, 50, 0, 5, 0.1).record(),
            model="sub",
            seconds=1.0,
            retries=0,
            time=self._now(),
        )
        record.update(more)  # type: ignore[typeddict-item]
        return self._add(record)

    def output(self, cell: int, text: str, error: bool = False, outcome: Any = "completed") -> RecordBuilder:
        return self._add(
            OutputRecord(
                type="output",
                path=self.path,
                cell=cell,
                outcome=outcome,
                text=f"Output:\n\n```\n{text}\n```" if text else "Output:\n\n(nothing was printed)",
                chars=len(text),
                error=error,
                seconds=0.1,
                time=self._now(),
            )
        )

    def note(self, text: str, to: Any = "model") -> RecordBuilder:
        return self._add(NoteRecord(type="note", path=self.path, to=to, text=text, time=self._now()))

    def answer(self, answer: Any, status: Any = "complete", reason: Any = "answer") -> RecordBuilder:
        return self._add(
            AnswerRecord(
                type="answer",
                path=self.path,
                answer=answer,
                status=status,
                stop_reason=reason,
                time=self._now(),
            )
        )

    def below(self, call: int) -> RecordBuilder:
        """Return the builder of a call's child run, with the same clock."""
        return RecordBuilder(f"{self.path}/{call}" if self.path else str(call), self._clock)

    def _add(self, record: Record) -> RecordBuilder:
        self.records.append(record)
        return self

    def _now(self) -> float:
        return float(next(self._clock))


def nested() -> list[Record]:
    """Return the records of a run whose call 1 was answered by a child run, as in a result."""
    top = (
        RecordBuilder()
        .question()
        .turn(0, "Two calls.\n```repl\nask()\n```", "ask()\n")
        .cell(0, "ask()")
        .wave(0, 0, 2)
    )
    child = top.below(1).question("Below?").turn(0, "```\nFINAL(7)\n```", "FINAL(7)\n").cell(0, "FINAL(7)")
    child.wave(0, 0, 1).call(0, 0, "leaf").output(0, "", outcome="answered").answer(7)
    top.call(0, 0)
    top.call(0, 1, 7, kind="rlm", usage=Usage(2, 150, 0, 15, 0.6).record(), child=child.records)
    return (
        top.output(0, "7")
        .turn(1, "Done.\n```repl\nFINAL(7)\n```", "FINAL(7)\n")
        .cell(1, "FINAL(7)", 1)
        .answer(7)
        .records
    )
