"""Cells and replies: what a run has done, and how a REPL that is gone is rebuilt from it.

A trajectory holds the records of one run in the order in which they happened. Everything the machine needs to
know about the past is read from it here. A REPL is only a cache of the journal: `Repl.advance` brings any
session, new or old, to where the journal ends, giving recorded replies to replayed calls, so that nothing is
paid for twice.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rlm_langchain.errors import JournalError
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.types import (
    Call,
    CallRecord,
    CellRecord,
    Died,
    OutputRecord,
    Record,
    Reply,
    Step,
    Suspended,
    TurnRecord,
    Usage,
)

Opener = Callable[[], SandboxSession]
T = TypeVar("T")


def fingerprint(call: Call) -> str:
    """A hash of everything that decides the answer to a call."""
    parts = json.dumps([call.kind, call.prompt, call.context], ensure_ascii=True)
    return hashlib.sha256(parts.encode()).hexdigest()


class Journal:
    """A reading of the records of one run."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.turns: list[TurnRecord] = []
        self.cells: list[CellRecord] = []
        self.outputs: dict[int, OutputRecord] = {}
        """By cell."""
        self.calls: dict[int, CallRecord] = {}
        """By number; a call that was asked afresh counts with its last answer."""
        self._question()
        for record in records:
            self.add(record)

    def _question(self) -> None:
        """A new question on the same thread: the REPL and the words stay, the account is opened anew."""
        self._before = len(self.turns)
        self.account: list[TurnRecord | CallRecord] = []
        """What was paid for since the question."""
        self._root, self._sub, self._seconds, self._asked = Usage(), Usage(), 0.0, 0.0

    def add(self, record: Record) -> None:
        """Read one record more."""
        match record["type"]:
            case "question":
                self._question()
            case "turn":
                self.turns.append(record)
                self.account.append(record)
                self._root = self._root.plus(Usage(**record["usage"]))
                self._seconds += record["seconds"]
            case "cell":
                self.cells.append(record)
            case "wave":
                self._asked = record["time"]
            case "call":
                self.calls[record["call"]] = record
                self.account.append(record)
                self._sub = self._sub.plus(Usage(**record["usage"]))
                self._seconds += max(0.0, record["time"] - self._asked) if self._asked else 0.0
                self._asked = max(self._asked, record["time"])
            case "output":
                self.outputs[record["cell"]] = record
                self._seconds += record["seconds"]

    def reply(self, number: int, call: Call) -> Reply | None:
        """What was answered to call `number`, unless another call was recorded there: a divergence."""
        record = self.calls.get(number)
        if record is None or record["prompt_sha256"] != fingerprint(call):
            return None
        return Reply(record["value"], record["error"])

    def finished(self, cell: int) -> bool:
        """Whether a cell has ended."""
        return cell in self.outputs

    def next_code(self) -> str | None:
        """The next block of the last turn that has not begun; None when an error or an answer came first."""
        if not self.turns:
            return None
        turn = self.turns[-1]
        begun = [c for c in self.cells if c["turn"] == turn["turn"]]
        if any(self._stopped(c["cell"]) for c in begun) or len(begun) >= len(turn["cells"]):
            return None
        return turn["cells"][len(begun)]

    def calls_before(self, cell: int) -> int:
        """How many calls the cells up to and including this one have numbered."""
        numbers = [n for n, record in self.calls.items() if record["cell"] <= cell]
        return max(numbers) + 1 if numbers else 0

    def answers(self) -> dict[str, str]:
        """What models answered to leaf calls, by model and fingerprint: an identical call need not be asked."""
        return {
            f"{call['model']} {call['prompt_sha256']}": call["value"]
            for call in self.calls.values()
            if call["model"] and isinstance(call["value"], str)
        }

    @property
    def steps_since_summary(self) -> int:
        """Turns since the history was last put in short."""
        last = max((i for i, turn in enumerate(self.turns) if turn.get("summary")), default=-1)
        return len(self.turns) - 1 - last

    @property
    def iterations(self) -> int:
        """Turns since the question was put."""
        return len(self.turns) - self._before

    @property
    def usage(self) -> tuple[Usage, Usage]:
        """What the root turns since the question have used, and what everything below them has."""
        return self._root, self._sub

    @property
    def seconds(self) -> float:
        """How long the run has worked: turns, cells and waves, not the time in which nobody worked on it."""
        return self._seconds

    def _stopped(self, cell: int) -> bool:
        output = self.outputs.get(cell)
        return output is not None and (output["error"] or output["outcome"] != "completed")


@dataclass(slots=True)
class Repl:
    """The REPL of one run. Its worker may be gone at any time: the next `advance` rebuilds what it held."""

    open: Opener
    begun: int = 0
    """Cells of the journal that this session has begun."""
    waiting: tuple[Call, ...] = ()
    """The calls of the cell that is suspended; `first` is the number of the first of them."""
    first: int = 0
    seconds: float = 0.0
    """Computing of the current cell, without the waiting."""
    replayed: float = 0.0
    """Seconds that rebuilding has cost."""
    diverged: int = 0
    """Replayed calls that were not the recorded ones, and are asked afresh."""
    _session: SandboxSession | None = None
    _closed: bool = False
    _revived: int = -1
    """The last cell that was tried again because its worker was gone."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, journal: Journal) -> Step | None:
        """Bring the REPL to where the journal ends, and a suspended cell on as far as its replies reach.

        None: no cell is running. Raises `JournalError` when a recorded cell cannot be repeated.
        """
        with self._lock:
            if self.begun > len(journal.cells):
                self._drop()
            while True:
                index = self.begun - 1 if self.waiting else self.begun
                if index == len(journal.cells):
                    return None
                cell = journal.cells[index]
                step = self._continue(journal) if self.waiting else self._repeat(cell, journal)
                if isinstance(step, Suspended) or not journal.finished(cell["cell"]):
                    return step

    def run(self, code: str) -> Step:
        """Begin a new cell."""
        with self._lock:
            return self._begin(code)

    def answer(self, replies: Sequence[Reply]) -> Step:
        """Give a suspended cell replies that cost nothing."""
        with self._lock:
            return self._give(replies)

    def call(self, number: int) -> Call | None:
        """The text of a call that waits here; None when the cell that asked is not running here now."""
        index = number - self.first
        return self.waiting[index] if 0 <= index < len(self.waiting) else None

    def revives(self, cell: int) -> bool:
        """Whether a cell whose worker crashed is worth another try: once, since it need not be the cell's fault."""
        if self._closed or cell == self._revived:
            return False
        self._revived = cell
        return True

    def close(self) -> None:
        """Let the worker go for good. Safe from another thread: a cell that runs then ends in `Died`."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        self.waiting, self.begun, self.first = (), 0, 0
        if session is not None:
            session.close()

    def _repeat(self, cell: CellRecord, journal: Journal) -> Step:
        """Run a recorded cell again. A cell that killed its worker left nothing to rebuild."""
        output = journal.outputs.get(cell["cell"])
        if output is not None and output["outcome"] == "died":
            self.begun += 1
            self.first = journal.calls_before(cell["cell"])
            return Died("crash", "", "as recorded")
        before = time.perf_counter()
        step = self._begin(cell["code"])
        step = self._continue(journal) if isinstance(step, Suspended) else step
        self.replayed += time.perf_counter() - before
        if output is not None and isinstance(step, Died):
            raise JournalError(
                f"cell {cell['cell']} of run {cell['path'] or 'root'} ran to its end before, and now {step.error} "
                "The context, the sandbox or Python is not what it was: start anew, or go back with `rlm fork`."
            )
        return step

    def _continue(self, journal: Journal) -> Step:
        """Give recorded replies for as long as there are any."""
        while True:
            replies = [journal.reply(self.first + i, call) for i, call in enumerate(self.waiting)]
            known = [reply for reply in replies if reply is not None]
            if len(known) < len(replies):
                self.diverged += sum(self.first + i in journal.calls for i, r in enumerate(replies) if r is None)
                return Suspended(self.waiting)
            step = self._give(known)
            if not isinstance(step, Suspended):
                return step

    def _begin(self, code: str) -> Step:
        if self._session is None and not self._closed:
            self._session = self.open()
        session = self._session
        if self._closed or session is None:
            self._drop()
            return Died("crash", "", "the REPL was closed.")
        self.begun += 1
        self.seconds = 0.0
        return self._take(session.run, code)

    def _give(self, replies: Sequence[Reply]) -> Step:
        if self._session is None:
            return Died("crash", "", "the REPL was closed.")
        self.first += len(self.waiting)
        return self._take(self._session.resume, replies)

    def _take(self, do: Callable[[T], Step], given: T) -> Step:
        """Let the sandbox compute, by the clock, and remember what it waits for."""
        before = time.perf_counter()
        step = do(given)
        self.seconds += time.perf_counter() - before
        self.waiting = step.calls if isinstance(step, Suspended) else ()
        if isinstance(step, Died):
            self._drop()  # the next `advance` brings a new worker to where this one was
        return step
