"""Live objects of a tree of runs. State holds none of them: they are rebuilt from the journal."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlm_langchain.answers.coverage import CoverageTracker
from rlm_langchain.budget.approval_limit import ApprovalLimit
from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import Ledger, Receipt, Reservation
from rlm_langchain.budget.limiters import ChildRunLimiter, RequestLimiter
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.errors import RLMError
from rlm_langchain.models.learned import Learned
from rlm_langchain.models.provider_errors import is_graph_signal
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.records import Record, child_path
from rlm_langchain.run.cancellation import Cancelled, in_new_thread
from rlm_langchain.run.repl import Repl
from rlm_langchain.run.single_flight import SingleFlight
from rlm_langchain.trajectory.call_kinds import kind_of
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.types import CallResult, Usage


class RunTree:
    """A tree of runs while it works: its ledger, its request limiters, its REPLs."""

    def __init__(self, budget: Budget) -> None:
        self.ledger = Ledger(budget)
        self.agreement = ApprovalLimit(budget, self.ledger)
        self.gate = RequestLimiter(budget)
        self.tool_gate = RequestLimiter(replace(budget, requests_per_minute=None))
        """For custom tools, which take no model's turn."""
        self.levels = ChildRunLimiter(budget)
        self.answers = SingleFlight[CallResult]()
        """Of models, by model and fingerprint. With a wave in its key: a flawed reply, which answers only there."""
        self.child_runs = SingleFlight[str]()
        """The answers of child runs, by depth and fingerprint."""
        self.repls: dict[str, Repl] = {}
        self._waiting: set[Future[Any]] = set()
        """Model calls that sync nodes wait for."""
        self._cancelled = False
        self.receipts: Receipts | None = None
        """Of a run that can be resumed."""
        self.reading: CoverageTracker | None = None
        """Tells which parts of the contexts models have read; None until a run of the tree begins to work here."""
        self.broken: RLMError | None = None
        """Why nothing more may be asked. What is in flight still arrives, and is kept; then this is raised."""
        self.learned = Learned()
        """What the providers of its models do not take, and how much these read."""
        self._spent: dict[str, Usage] = {}
        """By place in the tree."""
        self._lost: dict[str, int] = {}
        """By place in the tree: how many requests had no reply."""
        self._below: dict[str, Usage] = {}
        """By the path of a run: what it and the runs below it have spent."""
        self._joined: set[str] = set()
        self._journals: dict[str, Journal] = {}
        """By the path of the run, as far as they were read."""
        self._tools: dict[str, int] = {}
        """By place in the tree: how many times a tool was run there, in this process or before."""
        self.gate.check = self.tool_gate.check = self.check_cancelled
        self._keeping = threading.Lock()
        self._closing = threading.Lock()
        self._lock = threading.Lock()

    def keep(self, path: Path) -> None:
        """Keep receipts there, and book those that are there: replies of earlier processes, seen here or
        not. Whoever comes meanwhile waits."""
        with self._keeping:
            if self.receipts is not None:
                return
            receipts = Receipts(path)
            for place, used, tools, is_lost in receipts.requests():
                self.ledger.add_spent(used)
                if tools:
                    self._tools[place] = self._tools.get(place, 0) + tools
                if is_lost:
                    self.lost(place, used)
                else:
                    self.note(place, used)
            self.ledger.worked(receipts.seconds_worked())
            self.gate.room = self.receipts = receipts

    def breaks(self, error: RLMError) -> None:
        """Ask nothing more, for this reason; the first one counts."""
        self.broken = self.broken or error

    def check(self) -> None:
        """Raise what has broken this tree, if anything has, and `Cancelled`."""
        self.check_cancelled()
        if self.broken is not None:
            raise self.broken

    def check_cancelled(self) -> None:
        """Raise `Cancelled` when nothing may begin any more."""
        if self._cancelled:
            raise Cancelled

    def note(self, place: str, usage: Usage) -> None:
        """Remember where in the tree it was that so much was spent."""
        with self._lock:
            self._spent[place] = self._spent.get(place, Usage()).plus(usage)
            for path in _runs_above(place):
                self._below[path] = self._below.get(path, Usage()).plus(usage)

    def spent_below(self, path: str) -> Usage:
        """Return what the run at `path` and those below it have spent."""
        with self._lock:
            return self._below.get(path, Usage())

    def spent_at(self, place: str) -> Usage:
        """Return what was spent at this very place."""
        with self._lock:
            return self._spent.get(place, Usage())

    def lost_at(self, place: str) -> int:
        """Return how many requests were sent from this very place whose reply never came."""
        with self._lock:
            return self._lost.get(place, 0)

    def charged(self, place: str, reply: CallResult) -> CallResult:
        """Return the reply to a call with everything that was spent at its place, in this process and before."""
        return reply._replace(used=self.spent_at(place).plus(self.spent_below(place)), lost=self.lost_at(place))

    @asynccontextmanager
    async def reserve(
        self, place: str, wanted: Usage, *, last: bool = False, estimate: Callable[[], Usage] | None = None
    ) -> AsyncIterator[Reservation]:
        """Reserve a call in the ledger, as `Ledger.reserve` does, and keep on disk what is sent and used."""
        if self.receipts is not None:
            await self.receipts.open()
        async with self.ledger.reserve(wanted, last=last, estimate=estimate, place=place, log=self) as entry:
            yield entry

    def sent(self, place: str, most: Usage) -> str:
        """Keep on disk that a request is about to be sent. Raises `JournalError` when that is not possible."""
        if self.receipts is None:
            return ""
        return self.receipts.write_sent(self._request(place, most._replace(estimated=True)))

    def booked(self, place: str, key: str, used: Usage, reply: Receipt | None) -> None:
        """Keep on disk what a request has used, and its reply."""
        self.note(place, used)
        if self.receipts is None:
            return
        if reply is None:
            self.receipts.write(key, self._request(place, used))
        else:
            self.receipts.write(reply.key, {**self._request(place, used), **reply.fields, "settles": key})

    def lost(self, place: str, most: Usage) -> None:
        """Note that a reply never came. On disk, nothing settles the request, and that says the same."""
        self.note(place, most)
        with self._lock:
            self._lost[place] = self._lost.get(place, 0) + 1

    def _request(self, place: str, used: Usage) -> dict[str, Any]:
        return {"place": place, "usage": used.record(), "worked": self.ledger.seconds}

    @asynccontextmanager
    async def tool_call(self, place: str) -> AsyncIterator[bool]:
        """Run a tool or a function in here, unless this gives False: no call of one is left.

        It counts before it runs, on disk too: a process that is killed meanwhile has run it. One that pauses for a
        person counts when it runs again, from its beginning.
        """
        with self._lock:
            is_left = sum(self._tools.values()) < self.ledger.budget.tool_calls
            if is_left:
                self._tools[place] = self._tools.get(place, 0) + 1
        if not is_left:
            yield False
            return
        key = ""
        if self.receipts is not None:
            await self.receipts.open()
            key = self.receipts.write_sent({**self._request(place, Usage()), "tool": 1})
        try:
            yield True
        except Exception as error:
            self._tool_ended(place, key, counts=not is_graph_signal(error))
            raise
        else:
            self._tool_ended(place, key)

    def _tool_ended(self, place: str, key: str, *, counts: bool = True) -> None:
        if not counts:
            with self._lock:
                self._tools[place] -= 1
        if self.receipts is not None:
            self.receipts.write(key, {**self._request(place, Usage()), "tool": int(counts)})

    def repl(self, path: str, open: Callable[[], SandboxSession]) -> Repl:
        """Return the REPL of the run at `path`, opened when it first runs a cell. Raises `Cancelled`."""
        with self._lock:
            self.check_cancelled()
            return self.repls.setdefault(path, Repl(open))

    def journal(self, path: str, records: Sequence[Record]) -> Journal:
        """Return the journal of the run at `path`, read on from where it was read before.

        Its first time in this process, what it did in earlier ones is taken over: the account, the answers. Raises
        `JournalError` when it is not what was written then.
        """
        journal = self._journals.get(path)
        if journal is None or not journal.extend(records):
            journal = self._journals[path] = Journal(records)
        with self._lock:
            is_new = path not in self._joined
            self._joined.add(path)
        if is_new:
            self._join(path, journal)
        return journal

    def _join(self, path: str, journal: Journal) -> None:
        journal.check()
        spendings = [*_spendings(journal)]
        with self._lock:
            new = [
                (place, used) for place, used in spendings if place not in self._spent and place not in self._below
            ]
        for place, usage in new:
            self.note(place, usage)
            self.ledger.add_spent(usage)
        for place in _tools_of(journal):
            self._tools.setdefault(place, 1)
        self.answers.remember({key: CallResult(text) for key, text in journal.answers().items()})
        self.child_runs.remember(journal.runs())
        if not path:
            self.ledger.worked(journal.seconds)

    def close(self, path: str = "") -> None:
        """End the REPLs of the run at `path` and of all below it. They have ended when this returns, whoever
        else closes the tree at the same time."""
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
        """Wait for a model call in here: when the tree is cancelled, so is the call."""
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
        """Admit nothing more, end what sync nodes wait for, and begin to close. Never waits."""
        with self._lock:
            self._cancelled = True
            ending = [*self._waiting]
        for future in ending:
            future.cancel()
        self.levels.open()
        in_new_thread(self.close)


def _runs_above(place: str) -> Iterator[str]:
    """Yield the paths of the runs to which a place belongs: the top one, and those from there down to it."""
    path, asked_by_it, _ = place.partition(" ")
    parts = path.split("/") if path else []
    yield ""
    yield from ("/".join(parts[:count]) for count in range(1, len(parts) + bool(asked_by_it)))


def _spendings(journal: Journal) -> Iterator[tuple[str, Usage]]:
    """Yield each place of a journal at which something was spent since the question, and how much."""
    for record in journal.account:
        if record["type"] == "turn":
            yield turn_place(record["path"], record["turn"]), Usage(**record["usage"])
        elif record["type"] == "note":
            yield turn_place(record["path"], len(journal.turns)), Usage(**record["usage"])
        elif record["type"] == "call" and "child" in record:
            yield from _spendings(Journal(record["child"]))
        elif record["type"] == "call":
            yield child_path(record["path"], record["call"]), Usage(**record["usage"])


def _tools_of(journal: Journal) -> Iterator[str]:
    """Yield the places at which tools and functions were called since the question."""
    for record in journal.account:
        if record["type"] == "call" and "child" in record:
            yield from _tools_of(Journal(record["child"]))
        elif record["type"] == "call" and kind_of(record["kind"]).is_counted:
            yield child_path(record["path"], record["call"])


def turn_place(path: str, turn: int) -> str:
    """Return the place in the tree of a root turn."""
    return f"{path} turn {turn}"


@dataclass(slots=True)
class RunTreeRegistry:
    """The trees that are alive in this process, by the id of their root run."""

    _alive: dict[str, RunTree] = field(default_factory=dict)
    _cancelled: set[str] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, run: str, budget: Budget, receipts: Path | None = None) -> RunTree:
        """Return the tree of a run; a new one when this process has not seen it, or has closed it."""
        with self._lock:
            if run in self._cancelled:
                raise Cancelled
            if run not in self._alive:
                self._alive[run] = RunTree(budget)
            tree = self._alive[run]
        if receipts is not None:
            tree.keep(receipts)  # which may be many: other runs do not wait for them to be read
        return tree

    def has_read(self, run: str) -> bool:
        """Return whether there is a tree of this run, with its receipts."""
        with self._lock:
            tree = self._alive.get(run)
        return tree is not None and tree.receipts is not None

    def close(self, run: str) -> bool:
        """Let go of everything that is alive for a run, and say whether it has ended. What matters is on disk."""
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
        """Admit nothing more of a run that others still work on. Returns what ends that which they wait for.

        Whoever holds the run closes it then.
        """
        with self._lock:
            self._cancelled.add(run)
            tree = self._alive.get(run)
        return _nothing if tree is None else tree.cancel


def _nothing() -> None:
    """Nothing works for a run that has no tree."""
