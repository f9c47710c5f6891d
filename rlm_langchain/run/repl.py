"""The REPL of a run. A lost REPL is rebuilt by running its cells again with the recorded replies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rlm_langchain.errors import JournalError
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.records import CellRecord
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.types import (
    Call,
    Died,
    Reply,
    Step,
    Suspended,
)

NO_TIME = "there is no time left."
Opener = Callable[[], SandboxSession]
T = TypeVar("T")


@dataclass(slots=True)
class Repl:
    """The REPL of one run. Its worker may be gone at any time; the next `advance` rebuilds its state."""

    open: Opener
    cells_started: int = 0
    """Cells of the journal that this session has started."""
    pending_calls: tuple[Call, ...] = ()
    """The calls of the suspended cell; `next_call` is the number of the first of them."""
    next_call: int = 0
    seconds: float = 0.0
    """Seconds of computing in the current cell, without the time spent waiting for replies."""
    replayed: float = 0.0
    """Seconds spent on rebuilding."""
    diverged: int = 0
    """Replayed calls that differ from the recorded ones and are made again."""
    _session: SandboxSession | None = None
    _setup: str = ""
    """Code that this session has run before a cell: it gives the REPL its list of earlier questions."""
    timed_out: bool = False
    """Whether the deadline has passed. A cell that was computing has ended, and nothing new starts."""
    _closed: bool = False
    _retried: int = -1
    """The last cell that was retried because its worker was gone."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, journal: Journal) -> Step | None:
        """Bring the REPL to the end of the journal, and a suspended cell as far as its replies reach.

        Return None if no cell is running. Raises `JournalError` if a recorded cell cannot be repeated.
        """
        with self._lock:
            if self.cells_started > len(journal.cells):
                self._drop()
            while True:
                if self.timed_out:
                    return Died("time", "", NO_TIME)
                index = self.cells_started - 1 if self.pending_calls else self.cells_started
                if index == len(journal.cells):
                    return None
                cell = journal.cells[index]
                step = self._continue(journal) if self.pending_calls else self._repeat(cell, journal)
                if isinstance(step, Suspended) or not journal.finished(cell["cell"]):
                    return step

    def run(self, code: str, setup: str = "") -> Step:
        """Start a new cell. `setup` is run before it, unless this session has already run it."""
        with self._lock:
            return self._start(code, setup)

    def answer(self, replies: Sequence[Reply]) -> Step:
        """Pass replies that cost nothing to a suspended cell."""
        with self._lock:
            return self._resume(replies)

    def call(self, number: int) -> Call | None:
        """Return call `number` of the suspended cell, or None if that cell is not suspended here."""
        index = number - self.next_call
        return self.pending_calls[index] if 0 <= index < len(self.pending_calls) else None

    def may_retry_crash(self, cell: int) -> bool:
        """Return whether to retry a cell whose worker crashed: once, because the crash may not be the cell's
        fault."""
        if self._closed or cell == self._retried:
            return False
        self._retried = cell
        return True

    @contextmanager
    def deadline(self, seconds: float | None) -> Iterator[None]:
        """Limit the computing inside the block to `seconds`. A cell that exceeds them ends in `Died`."""
        self.timed_out = False
        if seconds is None:
            yield
            return
        timer = threading.Timer(seconds, self._time_out)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _time_out(self) -> None:
        self.timed_out = True
        if (session := self._session) is not None:
            session.close()  # a computing cell ends in `Died`; the thread that waits for it does the rest

    def stop(self) -> None:
        """Drop the worker and the effects of the running cell. The next `advance` restores the state before it."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Close the worker for good. Safe from another thread: a running cell then ends in `Died`."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        self.pending_calls, self.cells_started, self.next_call, self._setup = (), 0, 0, ""
        if session is not None:
            session.close()

    def _repeat(self, cell: CellRecord, journal: Journal) -> Step:
        """Run a recorded cell again. A cell that killed its worker is skipped, because it left no state."""
        output = journal.outputs.get(cell["cell"])
        if output is not None and output["outcome"] == "died":
            self.cells_started += 1
            self.next_call = journal.calls_before(cell["cell"])
            return Died("crash", "", "as recorded")
        before = time.perf_counter()
        step = self._start(cell["code"], journal.setup(cell["cell"]))
        step = self._continue(journal) if isinstance(step, Suspended) else step
        self.replayed += time.perf_counter() - before
        if output is not None and isinstance(step, Died) and not self.timed_out:
            raise JournalError(
                f"cell {cell['cell']} of run {cell['path'] or 'root'} ran to its end before, and now {step.error} "
                "The context, the sandbox or Python has changed: start again, or go back with `rlm fork`."
            )
        return step

    def _continue(self, journal: Journal) -> Step:
        """Pass recorded replies to the cell as long as there are any."""
        while True:
            replies = [journal.reply(self.next_call + i, call) for i, call in enumerate(self.pending_calls)]
            known = [reply for reply in replies if reply is not None]
            if len(known) < len(replies):
                self.diverged += sum(
                    self.next_call + i in journal.calls for i, r in enumerate(replies) if r is None
                )
                return Suspended(self.pending_calls)
            step = self._resume(known)
            if not isinstance(step, Suspended):
                return step

    def _start(self, code: str, setup: str) -> Step:
        if self._session is None and not self._closed and not self.timed_out:
            self._session = self.open()
        session = self._session
        if self._closed or self.timed_out or session is None:
            self._drop()
            return Died("crash", "", "the REPL was closed.")
        self.cells_started += 1
        self.seconds = 0.0
        if setup != self._setup:
            self._setup = setup
            if isinstance(step := self._run_step(session.run, setup), Died):
                return step
        return self._run_step(session.run, code)

    def _resume(self, replies: Sequence[Reply]) -> Step:
        session = self._session
        if session is None:
            return Died("crash", "", "the REPL was closed.")
        self.next_call += len(self.pending_calls)
        return self._run_step(session.resume, replies)

    def _run_step(self, do: Callable[[T], Step], given: T) -> Step:
        """Run one step of the sandbox, measure its time, and remember the calls that it waits for."""
        before = time.perf_counter()
        step = do(given)
        self.seconds += time.perf_counter() - before
        self.pending_calls = step.calls if isinstance(step, Suspended) else ()
        if isinstance(step, Died):
            self._drop()  # the next `advance` rebuilds the state in a new worker
        return step
