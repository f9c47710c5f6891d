"""The live objects of a tree of runs. State holds none of them; they are rebuilt from the journal."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlm_langchain.answers.coverage import CoverageTracker
from rlm_langchain.budget.approval_limit import ApprovalLimit
from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import Ledger, Receipt, Reservation
from rlm_langchain.budget.limiters import ChildRunLimiter, Pace, RequestLimiter
from rlm_langchain.context.store import ContextStore
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.errors import RLMError
from rlm_langchain.models.learned import Learned
from rlm_langchain.models.provider_errors import is_graph_signal
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.records import Record
from rlm_langchain.run.cancellation import Cancelled, start_thread
from rlm_langchain.run.repl import Repl
from rlm_langchain.run.single_flight import SingleFlight
from rlm_langchain.trajectory.earlier_work import EarlierWork
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.types import CallResult, Usage


class RunTree:
    """A tree of runs while it works: its ledger, its request limiters, its REPLs."""

    def __init__(self, budget: Budget, pace: Pace | None = None) -> None:
        self.ledger = Ledger(budget)
        self.approval_limit = ApprovalLimit(budget, self.ledger)
        self.limiter = RequestLimiter(pace or Pace(budget.concurrency, budget.requests_per_minute))
        self.tool_limiter = RequestLimiter(Pace(budget.concurrency))
        """Limits custom tools separately, so that they do not compete with models."""
        self.child_run_limiter = ChildRunLimiter(budget)
        self.answers = SingleFlight[CallResult]()
        """Replies of models, by model and fingerprint. A key with a batch number belongs to a flawed reply,
        which only that batch may use."""
        self.child_runs = SingleFlight[str]()
        """Answers of child runs, by depth and fingerprint."""
        self.repls: dict[str, Repl] = {}
        self._waiting: set[Future[Any]] = set()
        """Model calls that sync nodes wait for."""
        self._cancelled = False
        self.receipts: Receipts | None = None
        """The receipts of a run that can be resumed."""
        self.coverage: CoverageTracker | None = None
        """Tracks which parts of the contexts models have read. None until a run of the tree starts to work here."""
        self.store: ContextStore | None = None
        """Has the long replies that records refer to. None for a tree that is only inspected."""
        self.stopped_by: RLMError | None = None
        """The reason why no more calls may be made. Replies in flight still arrive and are stored; then this is
        raised."""
        self.learned = Learned()
        """Parameters that the providers of its models refuse, and numbers of tokens that the models can read."""
        self._spent: dict[str, Usage] = {}
        """Usage by call path."""
        self._lost: dict[str, int] = {}
        """Number of requests to models without a reply, by call path."""
        self._below: dict[str, Usage] = {}
        """Usage of a run and of all runs below it, by path of the run."""
        self._joined: set[str] = set()
        self._journals: dict[str, Journal] = {}
        """Journals by path of the run, as far as they were read."""
        self._tools: dict[str, int] = {}
        """Number of tool calls by call path, in this process and earlier ones."""
        self.limiter.check = self.tool_limiter.check = self.check_cancelled
        self._opening_receipts = threading.Lock()
        self._closing = threading.Lock()
        self._lock = threading.Lock()

    def open_receipts(self, path: Path) -> None:
        """Store receipts at `path`, and count those that exist: replies of earlier processes, whether or not
        they are in the records. Other callers wait until it is done."""
        with self._opening_receipts:
            if self.receipts is not None:
                return
            receipts = Receipts(path)
            for call_path, used, tools, is_lost in receipts.requests():
                self.ledger.add_spent(used)
                if tools:
                    self._tools[call_path] = self._tools.get(call_path, 0) + tools
                if is_lost:
                    self.lost(call_path, used)
                else:
                    self.note(call_path, used)
            self.ledger.worked(receipts.seconds_worked())
            self.limiter.reply_store = self.receipts = receipts

    def stop_calls(self, error: RLMError) -> None:
        """Make no more calls because of this error. The first such error is kept."""
        self.stopped_by = self.stopped_by or error

    def check(self) -> None:
        """Raise the error that has stopped this tree, if there is one, or `Cancelled`."""
        self.check_cancelled()
        if self.stopped_by is not None:
            raise self.stopped_by

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the tree is cancelled and nothing may start any more."""
        if self._cancelled:
            raise Cancelled

    def note(self, call_path: str, usage: Usage) -> None:
        """Add usage to a call path."""
        with self._lock:
            self._spent[call_path] = self._spent.get(call_path, Usage()).plus(usage)
            for path in _runs_above(call_path):
                self._below[path] = self._below.get(path, Usage()).plus(usage)

    def spent_below(self, path: str) -> Usage:
        """Return the usage of the run at `path` and of all runs below it."""
        with self._lock:
            return self._below.get(path, Usage())

    def spent_at(self, call_path: str) -> Usage:
        """Return the usage of exactly this call path."""
        with self._lock:
            return self._spent.get(call_path, Usage())

    def lost_at(self, call_path: str) -> int:
        """Return the number of requests of exactly this call path whose reply never came."""
        with self._lock:
            return self._lost.get(call_path, 0)

    def charged(self, call_path: str, reply: CallResult) -> CallResult:
        """Return the reply to a call with all usage of its call path, in this process and earlier ones."""
        return reply._replace(
            used=self.spent_at(call_path).plus(self.spent_below(call_path)), lost=self.lost_at(call_path)
        )

    def reserve(
        self, call_path: str, wanted: Usage, *, last: bool = False, estimate: Callable[[], Usage] | None = None
    ) -> AbstractAsyncContextManager[Reservation]:
        """Reserve a call in the ledger, as `Ledger.reserve` does, and record its requests and usage on disk."""
        return self.ledger.reserve(wanted, last=last, estimate=estimate, call_path=call_path, log=self)

    def sent(self, call_path: str, most: Usage) -> str:
        """Record on disk that a request is about to be sent. Raises `JournalError` if that fails."""
        if self.receipts is None:
            return ""
        return self.receipts.write_sent(self._request(call_path, most._replace(estimated=True)))

    def booked(self, call_path: str, key: str, used: Usage, reply: Receipt | None) -> None:
        """Record on disk what a request has used, and its reply."""
        self.note(call_path, used)
        if self.receipts is None:
            return
        if reply is None:
            self.receipts.write(key, self._request(call_path, used))
        else:
            self.receipts.write(reply.key, {**self._request(call_path, used), **reply.fields, "settles": key})

    def lost(self, call_path: str, most: Usage) -> None:
        """Record that a reply never came. On disk, an unsettled request already means that.

        A tool or a function that was cut off reads no tokens, so it is not a lost request. Its price and its call
        are counted all the same.
        """
        self.note(call_path, most)
        if most.calls or most.input:
            with self._lock:
                self._lost[call_path] = self._lost.get(call_path, 0) + 1

    def _request(self, call_path: str, used: Usage) -> dict[str, Any]:
        return {"place": call_path, "usage": used.record(), "worked": self.ledger.seconds}

    @asynccontextmanager
    async def tool_call(self, call_path: str) -> AsyncIterator[bool]:
        """Run a tool or a function within the block, unless it yields False: then no call is left.

        The call is counted before it runs, also on disk, so that it counts if the process is killed meanwhile. A
        call that pauses for a person is counted when it runs again from its beginning.
        """
        with self._lock:
            is_left = sum(self._tools.values()) < self.ledger.budget.tool_calls
            if is_left:
                self._tools[call_path] = self._tools.get(call_path, 0) + 1
        if not is_left:
            yield False
            return
        key = ""
        if self.receipts is not None:
            await self.receipts.open()
            key = self.receipts.write_sent({**self._request(call_path, Usage()), "tool": 1})
        try:
            yield True
        except Exception as error:
            self._tool_ended(call_path, key, counts=not is_graph_signal(error))
            raise
        else:
            self._tool_ended(call_path, key)

    def _tool_ended(self, call_path: str, key: str, *, counts: bool = True) -> None:
        if not counts:
            with self._lock:
                self._tools[call_path] -= 1
        if self.receipts is not None:
            self.receipts.write(key, {**self._request(call_path, Usage()), "tool": int(counts)})

    def repl(self, path: str, open: Callable[[], SandboxSession]) -> Repl:
        """Return the REPL of the run at `path`. It is opened when it runs its first cell. Raises `Cancelled`."""
        with self._lock:
            self.check_cancelled()
            return self.repls.setdefault(path, Repl(open))

    def journal(self, path: str, records: Sequence[Record]) -> Journal:
        """Return the journal of the run at `path`, extended by the new records.

        The first time in this process, the usage and the answers of earlier processes are restored from it.
        Raises `JournalError` if the records are not those that were written.
        """
        journal = self._journals.get(path)
        if journal is None or not journal.extend(records):
            journal = self._journals[path] = Journal(records, self.store)
        with self._lock:
            is_new = path not in self._joined
            self._joined.add(path)
        if is_new:
            self._join(path, EarlierWork.of(journal))
        return journal

    def _join(self, path: str, earlier: EarlierWork) -> None:
        with self._lock:
            new = [
                (call_path, used)
                for call_path, used, _ in earlier.paid
                if call_path not in self._spent and call_path not in self._below
            ]
        for call_path, usage in new:
            self.note(call_path, usage)
            self.ledger.add_spent(usage)
        for call_path, _, is_tool in earlier.paid:
            if is_tool:
                self._tools.setdefault(call_path, 1)
        self.answers.remember({key: CallResult(text) for key, text in earlier.answers.items()})
        self.child_runs.remember(earlier.runs)
        if not path:
            self.ledger.worked(earlier.seconds)

    def close(self, path: str = "") -> None:
        """Close the REPLs of the run at `path` and of all runs below it. They have ended on return, even if
        others close the tree at the same time."""
        if path:
            self._close(path)
            return
        with self._closing:
            self._close(path)
            if self.receipts is not None:
                self.receipts.close()

    def _close(self, path: str) -> None:
        with self._lock:
            below = [p for p in self.repls if not path or p == path or p.startswith(f"{path}/")]
            closing = [self.repls.pop(p) for p in below]
            for closed in below:
                self._journals.pop(closed, None)
        for repl in closing:
            repl.close()

    @contextmanager
    def awaiting(self, future: Future[Any]) -> Iterator[None]:
        """Wrap the wait for a model call, so that the call is cancelled with the tree."""
        with self._lock:
            self._waiting.add(future)
            cancelled = self._cancelled
        if cancelled:
            future.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(future)

    def cancel(self) -> None:
        """Admit nothing more, cancel the calls that sync nodes wait for, and start to close. Never blocks."""
        with self._lock:
            self._cancelled = True
            ending = [*self._waiting]
        for future in ending:
            future.cancel()
        self.child_run_limiter.release_all()
        start_thread(self.close)


def _runs_above(call_path: str) -> Iterator[str]:
    """Yield the paths of the runs that contain a call path, from the top run down."""
    path, asked_by_it, _ = call_path.partition(" ")
    parts = path.split("/") if path else []
    yield ""
    yield from ("/".join(parts[:count]) for count in range(1, len(parts) + bool(asked_by_it)))


@dataclass(slots=True)
class RunTreeRegistry:
    """The live trees in this process, by the id of their root run."""

    pace: Pace | None = None
    """The pace that all trees share. None: each has its own."""
    _alive: dict[str, RunTree] = field(default_factory=dict)
    _cancelled: set[str] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, run: str, budget: Budget, receipts: Path | None = None) -> RunTree:
        """Return the tree of a run. It is new if this process has not seen the run, or has closed it."""
        with self._lock:
            if run in self._cancelled:
                raise Cancelled
            if run not in self._alive:
                self._alive[run] = RunTree(budget, self.pace)
            tree = self._alive[run]
        if receipts is not None:
            tree.open_receipts(
                receipts
            )  # outside the lock: reading many receipts takes time, and other runs must not wait
        return tree

    def has_receipts(self, run: str) -> bool:
        """Return whether there is a live tree of this run, with its receipts."""
        with self._lock:
            tree = self._alive.get(run)
        return tree is not None and tree.receipts is not None

    def close(self, run: str) -> bool:
        """Close all live objects of a run, and return whether it has ended. Everything that matters is on disk."""
        with self._lock:
            self._cancelled.discard(run)
            tree = self._alive.pop(run, None)
            ended = run in self._ended
            self._ended.discard(run)
        if tree is not None:
            tree.close()
        return ended

    def end(self, run: str) -> None:
        """Close a run that has its answer. Its receipts are kept until the last checkpoint is written."""
        self.close(run)
        with self._lock:
            self._ended.add(run)

    def cancel(self, run: str) -> Callable[[], None]:
        """Cancel a run that others still work on: it starts nothing new. Return the function that ends their work.

        Then the holder of the run closes it.
        """
        with self._lock:
            self._cancelled.add(run)
            tree = self._alive.get(run)
        return _nothing if tree is None else tree.cancel


def _nothing() -> None:
    """Do nothing: no work is done for a run without a tree."""
