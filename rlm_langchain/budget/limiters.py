"""Bounds what a tree does at once: requests in flight, requests that begin in a minute, child runs at work."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from rlm_langchain.budget.budget import Budget

MINUTE = 60.0


T = TypeVar("T")


class ReplyStore(Protocol):
    """Where replies are kept: a request begins only when there is room for its reply."""

    async def open(self) -> None:
        """Get ready to keep something."""

    def reserve_space(self) -> None:
        """Hold room for one reply. Raises when there is none."""

    def release(self) -> None:
        """Give the room back."""


class PerEventLoop(Generic[T]):
    """One of a kind for each event loop: asyncio's locks belong to one, and a tree may be worked on by several."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def here(self) -> T:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            self._made[loop] = self._make()
        return self._made[loop]


class RequestLimiter:
    """Held while a request is in flight, never between tries and never across recursion."""

    room: ReplyStore | None = None
    """Where there must be room for the reply before a request begins."""
    check: Callable[[], None] = staticmethod(lambda: None)
    """Raises when nothing may begin any more. Looked at last, after all waiting: what begins then is in flight."""

    def __init__(self, budget: Budget) -> None:
        self._flights: PerEventLoop[asyncio.Semaphore] = PerEventLoop(lambda: asyncio.Semaphore(budget.concurrency))
        self._pace = RateLimiter(budget.requests_per_minute) if budget.requests_per_minute else None

    async def __aenter__(self) -> None:
        await self._flights.here().acquire()
        try:
            if self._pace is not None:
                await self._pace.turn()
            if self.room is not None:
                await self.room.open()
                self.room.reserve_space()
            self.check()
        except BaseException:
            self._flights.here().release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.room is not None:
            self.room.release()
        self._flights.here().release()


class RateLimiter:
    """At most `rate` turns in any minute, wherever the minute begins. In order of asking."""

    def __init__(self, rate: int) -> None:
        self._begun: deque[float] = deque(maxlen=rate)
        """When the latest turns were, by the clock of event loops."""
        self._next: PerEventLoop[asyncio.Lock] = PerEventLoop(asyncio.Lock)

    async def turn(self) -> None:
        """Return when the next request may begin."""
        loop = asyncio.get_running_loop()
        async with self._next.here():
            if len(self._begun) == self._begun.maxlen:
                await asyncio.sleep(self._begun[0] + MINUTE - loop.time())
            self._begun.append(loop.time())


class ChildRunLimiter:
    """So many child runs work at once on each level, since each of them holds a sandbox.

    Twice as many as there are calls at once: while some compute, others keep the models busy. A level for
    each depth: a run that waits for those below it never takes a place from them.
    """

    def __init__(self, budget: Budget) -> None:
        width = 2 * budget.concurrency
        self._tasks: PerEventLoop[dict[int, asyncio.Semaphore]] = PerEventLoop(
            lambda: defaultdict(lambda: asyncio.Semaphore(width))
        )
        self._threads: dict[int, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(width))
        self._lock = threading.Lock()

    def place(self, depth: int) -> asyncio.Semaphore:
        """For a task of an event loop: hold it while a run at this depth works."""
        return self._tasks.here()[depth]

    def place_of_thread(self, depth: int) -> threading.Semaphore:
        """The same for a thread."""
        with self._lock:
            return self._threads[depth]

    def open(self) -> None:
        """Let all threads through that wait: the tree is cancelled, and they have nothing to do but end."""
        with self._lock:
            for places in self._threads.values():
                places.release(1_000_000)
