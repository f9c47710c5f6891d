"""What is alive while a tree of runs works. Nothing of it is ever in state: the journal brings it back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from aiolimiter import AsyncLimiter

from rlm_langchain.journal import Journal, Repl
from rlm_langchain.ledger import Ledger
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.receipts import Receipts
from rlm_langchain.types import Budget

Answers = dict[str, "asyncio.Future[Any] | str"]
"""By model and fingerprint: what was answered in this tree, or will be."""


class Gate:
    """Bounds the model calls of a tree: how many are in flight, and how many begin per minute.

    Held only while a request is in flight, never across recursion.
    """

    def __init__(self, budget: Budget) -> None:
        self._flight = asyncio.Semaphore(budget.concurrency)
        rate = budget.requests_per_minute
        self._rate = AsyncLimiter(rate, 60) if rate else AsyncExitStack()

    async def __aenter__(self) -> None:
        await self._rate.__aenter__()
        await self._flight.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flight.release()


class Tree:
    """A tree of runs at work: its account, its gate, its REPLs."""

    def __init__(self, budget: Budget) -> None:
        self.ledger = Ledger(budget)
        self.gate = Gate(budget)
        self.answers: Answers = {}
        self.repls: dict[str, Repl] = {}
        self.waiting: set[Future[Any]] = set()
        """Model calls that sync nodes wait for."""
        self.receipts: Receipts | None = None
        """Of a run that can be resumed."""
        self._joined: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def room(self) -> Iterator[None]:
        """Around a call: on disk there is room for its reply."""
        if self.receipts is None:
            yield
            return
        self.receipts.prepare()
        try:
            yield
        finally:
            self.receipts.settle()

    def repl(self, path: str, open: Callable[[], SandboxSession]) -> Repl:
        """The REPL of the run at `path`, opened when it first runs a cell."""
        with self._lock:
            return self.repls.setdefault(path, Repl(open))

    def join(self, path: str, journal: Journal) -> None:
        """Take over what a run did in earlier processes, the first time that it is seen in this one."""
        with self._lock:
            if path in self._joined:
                return
            self._joined.add(path)
        root, sub = journal.usage
        self.ledger.book(root.plus(sub))
        self.answers.update(journal.answers())
        if not path:
            self.ledger.elapsed += journal.seconds

    def close(self, path: str = "") -> None:
        """End the REPLs of the run at `path` and of all below it."""
        with self._lock:
            below = [p for p in self.repls if not path or p == path or p.startswith(f"{path}/")]
            closing = [self.repls.pop(p) for p in below]
        for repl in closing:
            repl.close()
        if not path and self.receipts is not None:
            self.receipts.close()

    def cancel(self) -> None:
        """Close, and end what sync nodes wait for."""
        for future in [*self.waiting]:
            future.cancel()
        self.close()


class Cancelled(Exception):
    """Unwinds the threads of a run that was interrupted; never seen outside."""


@dataclass(slots=True)
class Trees:
    """The trees that are alive in this process, by the id of their root run."""

    _alive: dict[str, Tree] = field(default_factory=dict)
    _cancelled: set[str] = field(default_factory=set)
    _ended: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, run: str, budget: Budget, receipts: Path | None = None) -> Tree:
        """The tree of a run; a new one when this process has not seen it, or has closed it."""
        with self._lock:
            if run in self._cancelled:
                raise Cancelled("the run was interrupted")
            if run not in self._alive:
                self._alive[run] = Tree(budget)
            tree = self._alive[run]
            if receipts is not None and tree.receipts is None:
                tree.receipts = Receipts(receipts)
            return tree

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
        """The run has its answer. Its receipts are kept until the last checkpoint is written."""
        self.close(run)
        with self._lock:
            self._ended.add(run)

    def cancel(self, run: str) -> None:
        """End a run that other threads still work on: what they wait for ends, and they begin nothing new."""
        with self._lock:
            self._cancelled.add(run)
            tree = self._alive.pop(run, None)
        if tree is not None:
            tree.cancel()
