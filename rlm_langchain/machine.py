"""What a graph is built from, and what is alive while it works. Neither is ever in state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import BaseMessage

from rlm_langchain import prices
from rlm_langchain.calling import Retry
from rlm_langchain.context import ContextStore, approximate_tokens
from rlm_langchain.journal import Journal, Repl
from rlm_langchain.ledger import Ledger
from rlm_langchain.models import Model
from rlm_langchain.protocols import Sandbox, SandboxSession, Strategy
from rlm_langchain.types import Budget, ContextRef, Limits, Usage


OUTPUT_TOKENS = 4_096
"""Reserved for the output of a call that has no cap of its own."""
MESSAGE_TOKENS = 8
"""What providers add around each message."""


@dataclass(slots=True)
class Tree:
    """A tree of runs at work: its account, its gate, its REPLs. Gone after a crash; state brings it back."""

    ledger: Ledger
    gate: asyncio.Semaphore
    """Bounds model calls in flight for the whole tree. Never held across recursion."""
    repls: dict[str, Repl] = field(default_factory=dict)
    waiting: set[Future[Any]] = field(default_factory=set)
    """Model calls that sync nodes wait for; cancelled when the tree is closed."""
    _joined: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def repl(self, path: str, open: Callable[[], SandboxSession]) -> Repl:
        """The REPL of the run at `path`, opened when it first runs a cell."""
        with self._lock:
            return self.repls.setdefault(path, Repl(open))

    def join(self, path: str, journal: Journal) -> None:
        """Book what the run at `path` spent in earlier processes, the first time that it is seen in this one."""
        with self._lock:
            if path in self._joined:
                return
            self._joined.add(path)
        root, sub = journal.usage
        self.ledger.book(root.plus(sub))
        if not path:
            self.ledger.elapsed += journal.seconds

    def close(self, path: str = "") -> None:
        """End the REPLs of the run at `path` and of all below it."""
        with self._lock:
            below = [p for p in self.repls if not path or p == path or p.startswith(f"{path}/")]
            closing = [self.repls.pop(p) for p in below]
        for repl in closing:
            repl.close()

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
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, run: str, budget: Budget) -> Tree:
        """The tree of a run; a new one when this process has not seen it, or has closed it."""
        with self._lock:
            if run in self._cancelled:
                raise Cancelled("the run was interrupted")
            if run not in self._alive:
                self._alive[run] = Tree(Ledger(budget), asyncio.Semaphore(budget.concurrency))
            return self._alive[run]

    def close(self, run: str) -> None:
        """Let go of everything that is alive for a run. What matters is in the journal."""
        with self._lock:
            self._cancelled.discard(run)
            tree = self._alive.pop(run, None)
        if tree is not None:
            tree.close()

    def cancel(self, run: str) -> None:
        """End a run that other threads still work on: what they wait for ends, and they begin nothing new."""
        with self._lock:
            self._cancelled.add(run)
            tree = self._alive.pop(run, None)
        if tree is not None:
            tree.cancel()


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that does not change during a run: captured when the graph is built."""

    root: Model
    subs: tuple[Model, ...]
    """For sub-calls: one per depth, the last one for all below it."""
    sandbox: Sandbox
    strategies: tuple[Strategy, ...] = ()
    budget: Budget = Budget()
    limits: Limits = Limits()
    store: ContextStore = field(default_factory=ContextStore)
    retry: Retry = Retry()
    trees: Trees = field(default_factory=Trees)

    def runs_at(self, depth: int) -> Model:
        """The root model of a run at this depth."""
        return self.root if depth == 0 else self.leaf_at(depth - 1)

    def leaf_at(self, depth: int) -> Model:
        """The model that answers the sub-calls of a run at this depth."""
        return self.subs[min(depth, len(self.subs) - 1)]

    def tree(self, run: str, path: str, journal: Journal) -> Tree:
        """The living tree of a run, knowing what this run has spent so far."""
        tree = self.trees.get(run, self.budget)
        tree.join(path, journal)
        return tree

    def open(self, context: ContextRef | None, tree: Tree) -> SandboxSession:
        """A fresh REPL over a context. Raises `SandboxError`, or `JournalError` for a context that changed."""
        file = None if context is None else self.store.open(context)
        left = tree.ledger.seconds_left()
        seconds = self.limits.seconds if left is None else min(self.limits.seconds, max(left, 1.0))
        prelude = "\n\n".join(strategy.prelude for strategy in self.strategies if strategy.prelude)
        return self.sandbox.open(file, prelude, replace(self.limits, seconds=seconds))

    def estimate(self, model: Model, messages: Sequence[BaseMessage]) -> Usage:
        """What a call may use at most, as far as it can be known: reserved before it is made."""
        read = sum(approximate_tokens(str(message.content)) + MESSAGE_TOKENS for message in messages)
        wanted = Usage(calls=1, input=read, output=self.budget.output_tokens or OUTPUT_TOKENS)
        return wanted._replace(cost=prices.cost(model, wanted))

    @property
    def steps(self) -> int:
        """LangGraph's recursion limit for one run: beyond what the budget can take."""
        calls = self.budget.calls or 1_000_000
        return 100 + 4 * self.budget.iterations + 4 * calls
