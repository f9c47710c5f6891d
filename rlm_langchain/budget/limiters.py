"""Limits on parallel work: requests in flight and per minute, active child runs."""

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
    """A store for replies. A request starts only if there is room for its reply."""

    async def open(self) -> None:
        """Prepare the store."""

    def reserve_space(self) -> None:
        """Reserve space for one reply. Raises if there is none."""

    def release(self) -> None:
        """Release the reserved space."""


class PerEventLoop(Generic[T]):
    """One object per event loop. asyncio's locks belong to one loop, and several loops may work on a tree."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def of_this_loop(self) -> T:
        """Return the object of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._made:
            self._made[loop] = self._make()
        return self._made[loop]


class Pace:
    """Requests in flight and requests per minute, of one tree of runs or of several that share them."""

    def __init__(self, concurrency: int, requests_per_minute: int | None = None) -> None:
        self._semaphores: PerEventLoop[asyncio.Semaphore] = PerEventLoop(lambda: asyncio.Semaphore(concurrency))
        self._rate = RateLimiter(requests_per_minute) if requests_per_minute else None

    async def acquire(self) -> None:
        """Return when a request may start. `release` must follow."""
        await self._semaphores.of_this_loop().acquire()
        try:
            if self._rate is not None:
                await self._rate.wait_turn()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Record that a request has ended."""
        self._semaphores.of_this_loop().release()


class RequestLimiter:
    """Held while a request is in flight, but not between attempts and not across recursion."""

    reply_store: ReplyStore | None = None
    """Store in which space for the reply is reserved before a request starts."""
    check: Callable[[], None] = staticmethod(lambda: None)
    """Raises if nothing may start any more. Called last, after all waiting, because the request is in flight
    afterwards."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def __aenter__(self) -> None:
        await self._pace.acquire()
        try:
            if self.reply_store is not None:
                await self.reply_store.open()
                self.reply_store.reserve_space()
            self.check()
        except BaseException:
            self._pace.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.reply_store is not None:
            self.reply_store.release()
        self._pace.release()


class RateLimiter:
    """Allows at most `rate` requests in any 60 seconds, in the order in which they ask."""

    def __init__(self, rate: int) -> None:
        self._starts: deque[float] = deque(maxlen=rate)
        """Start times of the latest requests, by the event loop's clock."""
        self._next: PerEventLoop[asyncio.Lock] = PerEventLoop(asyncio.Lock)

    async def wait_turn(self) -> None:
        """Return when the next request may start."""
        loop = asyncio.get_running_loop()
        async with self._next.of_this_loop():
            if len(self._starts) == self._starts.maxlen:
                await asyncio.sleep(self._starts[0] + MINUTE - loop.time())
            self._starts.append(loop.time())


class ChildRunLimiter:
    """Limits the child runs that work at once on each level, because each of them holds a sandbox.

    The limit is twice the number of parallel calls: while some runs compute, others keep the models busy. Each
    depth has its own limit, so that a run waiting for its children never blocks them.
    """

    def __init__(self, budget: Budget) -> None:
        width = 2 * budget.concurrency
        self._tasks: PerEventLoop[dict[int, asyncio.Semaphore]] = PerEventLoop(
            lambda: defaultdict(lambda: asyncio.Semaphore(width))
        )
        self._threads: dict[int, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(width))
        self._lock = threading.Lock()

    def task_semaphore(self, depth: int) -> asyncio.Semaphore:
        """Return the semaphore for tasks of an event loop. Hold it while a run at this depth works."""
        return self._tasks.of_this_loop()[depth]

    def thread_semaphore(self, depth: int) -> threading.Semaphore:
        """Return the semaphore for threads."""
        with self._lock:
            return self._threads[depth]

    def release_all(self) -> None:
        """Release all waiting threads, because the tree is cancelled and they only have to end."""
        with self._lock:
            for semaphores in self._threads.values():
                semaphores.release(1_000_000)
