"""Bounds the requests of a tree: how many are in flight, and how many begin in a minute."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from rlm_langchain.types import Budget

MINUTE = 60.0


class Gate:
    """Held while a request is in flight, never between tries and never across recursion."""

    def __init__(self, budget: Budget) -> None:
        self._flight = asyncio.Semaphore(budget.concurrency)
        self._pace = Pace(budget.requests_per_minute) if budget.requests_per_minute else None

    async def __aenter__(self) -> None:
        await self._flight.acquire()
        try:
            if self._pace is not None:
                await self._pace.turn()
        except BaseException:
            self._flight.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flight.release()


class Pace:
    """At most `rate` turns in any minute, wherever the minute begins. In order of asking."""

    def __init__(self, rate: int) -> None:
        self._begun: deque[float] = deque(maxlen=rate)
        """When the latest turns were, by the clock of event loops."""
        self._next = asyncio.Lock()

    async def turn(self) -> None:
        """Return when the next request may begin."""
        loop = asyncio.get_running_loop()
        async with self._next:
            if len(self._begun) == self._begun.maxlen:
                await asyncio.sleep(self._begun[0] + MINUTE - loop.time())
            self._begun.append(loop.time())
