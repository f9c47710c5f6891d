"""The one account of a tree of runs: nothing is sent to a model that it has not admitted.

A call reserves what it may use, is made, and settles for what the provider says it used. What is reserved and
spent together never passes a limit. A reservation is for the worst case, and most of it comes back: so a call
that only others' reservations stand in the way of waits for them, in turn, and is refused when what is spent
leaves too little. What one more root turn would need is held back, so that a run that has used up the rest can
still make a last call for an answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import floor, inf

from rlm_langchain.errors import RLMError
from rlm_langchain.types import Budget, StopReason, Usage

HELD_SHARE = 0.5
"""Of a limit: the most that is held back for the last call. A budget may be too small for both."""
HELD_TIME = 0.2
"""Of the time: held back for the last call, and no more than so many seconds:"""
HELD_SECONDS = 30.0
ROUNDING = 1e-9
"""Dollars are floats: sums of them are right to far less than this."""


class Refused(RLMError):
    """A reservation does not fit into the budget."""

    def __init__(self, reason: StopReason, sentence: str) -> None:
        self.reason: StopReason = reason
        super().__init__(sentence)


@dataclass(slots=True)
class Entry:
    """A reservation. Set `used` to what the call has really used; unset, nothing was."""

    used: Usage = Usage()


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call that waits for its turn."""

    wanted: Usage
    last: bool
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    """Done when the call is admitted, or refused."""
    admitted: bool = False

    def tell(self, refusal: Refused | None) -> None:
        """Wake it, on its own loop."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake, refusal)

    def _wake(self, refusal: Refused | None) -> None:
        if self.turn.done():
            return
        if refusal:
            self.turn.set_exception(refusal)
        else:
            self.turn.set_result(None)


@dataclass(slots=True)
class Ledger:
    """What a tree may spend, and has spent. Safe for threads and tasks."""

    budget: Budget
    spent: Usage = Usage()
    elapsed: float = 0.0
    """Seconds that earlier processes have spent on this run."""
    clock: Callable[[], float] = time.monotonic
    held: Usage = Usage(calls=1)
    """What the last call is thought to need. The root run keeps it up to date."""
    _reserved: Usage = Usage()
    _queue: deque[_Waiting] = field(default_factory=deque)
    """First come, first served: else small calls would keep a large one waiting for ever."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = -1.0

    def __post_init__(self) -> None:
        self._begun = self.clock()

    @asynccontextmanager
    async def reserve(self, wanted: Usage, *, last: bool = False) -> AsyncIterator[Entry]:
        """Hold `wanted` while a call is made, then book `entry.used`, also on an error or a cancel.

        `last` may use what is held back. Raises `Refused`.
        """
        entry = Entry()
        await self._admit(wanted, last)
        try:
            yield entry
        finally:
            self._settle(wanted, entry.used)

    def book(self, used: Usage) -> None:
        """Add what was spent before this process: by a run that is being resumed."""
        with self._lock:
            self.spent = self.spent.plus(used)

    def stop(self, wanted: Usage) -> StopReason | None:
        """Which limit refuses a call of this size, whatever of the reservations may come back."""
        with self._lock:
            refusal = self._refusal(self.spent, wanted, last=False)
        return refusal.reason if refusal else None

    @property
    def gone(self) -> Usage:
        """What is spent and what is reserved."""
        with self._lock:
            return self.spent.plus(self._reserved)

    @property
    def seconds(self) -> float:
        """Since the run began, over all its processes."""
        return self.elapsed + self.clock() - self._begun

    def seconds_left(self, *, last: bool = False) -> float | None:
        """Until work must stop; `last`: until the last call must be back. None without a limit."""
        limit = self.budget.seconds
        if limit is None:
            return None
        held = 0.0 if last else min(limit * HELD_TIME, HELD_SECONDS)
        return max(0.0, limit - held - self.seconds)

    def left(self) -> dict[str, float | int | None]:
        """What is left of each limit, as `budget()` shows it in the REPL. None: no limit."""
        gone, limit = self.gone, self.budget
        return {
            "calls": _left(limit.calls, gone.calls),
            "tokens": _left(limit.tokens, gone.tokens),
            "usd": None if limit.usd is None else _down(limit.usd - (gone.cost or 0.0), 1e6),
            "seconds": None if limit.seconds is None else _down(limit.seconds - self.seconds, 10),
        }

    def scarce(self) -> dict[str, float | int]:
        """The limits of which less than a quarter is left, with what is left."""
        limit = self.budget
        whole = {"calls": limit.calls, "tokens": limit.tokens, "usd": limit.usd, "seconds": limit.seconds}
        left = self.left()
        return {
            name: rest
            for name, most in whole.items()
            if most is not None and (rest := left[name]) is not None and rest < most / 4
        }

    async def _admit(self, wanted: Usage, last: bool) -> None:
        with self._lock:
            if refusal := self._refusal(self.spent, wanted, last):
                raise refusal
            if not self._queue and self._fits(wanted, last):
                self._reserved = self._reserved.plus(wanted)
                return
            loop = asyncio.get_running_loop()
            waiting = _Waiting(wanted, last, loop, loop.create_future())
            self._queue.append(waiting)
        try:
            await waiting.turn
        except BaseException:
            self._leave(waiting)
            raise

    def _leave(self, waiting: _Waiting) -> None:
        """A call goes away before its turn, or just when it came."""
        with self._lock:
            if waiting in self._queue:
                self._queue.remove(waiting)
            if waiting.admitted:
                self._reserved = _minus(self._reserved, waiting.wanted)
            self._serve()

    def _settle(self, wanted: Usage, used: Usage) -> None:
        with self._lock:
            self._reserved = _minus(self._reserved, wanted)
            self.spent = self.spent.plus(used)
            self._serve()

    def _serve(self) -> None:
        """Admit or refuse those who wait, in order, for as long as the first of them can be told."""
        while self._queue:
            first = self._queue[0]
            refusal = self._refusal(self.spent, first.wanted, first.last)
            if not refusal:
                if not self._fits(first.wanted, first.last):
                    return
                first.admitted = True
                self._reserved = self._reserved.plus(first.wanted)
            self._queue.popleft()
            first.tell(refusal)

    def _fits(self, wanted: Usage, last: bool) -> bool:
        return self._refusal(self.spent.plus(self._reserved), wanted, last) is None

    def _refusal(self, gone: Usage, wanted: Usage, last: bool) -> Refused | None:
        """Why a call does not fit beside what is gone."""
        limit, after = self.budget, gone.plus(wanted)
        held = Usage() if last else self.held
        limits: tuple[tuple[StopReason, float, float | None, float], ...] = (
            ("calls", after.calls, limit.calls, held.calls),
            ("tokens", after.tokens, limit.tokens, held.tokens),
            ("usd", inf if after.cost is None else after.cost, limit.usd, held.cost or 0.0),
        )
        for name, all_of_it, most, kept in limits:
            if most is not None and all_of_it > most - min(kept, most * HELD_SHARE) + ROUNDING:
                spare = "" if last else f", with {min(kept, most * HELD_SHARE):,.6g} held back for a last call"
                return Refused(name, f"{all_of_it:,.6g} {name} do not fit into {most:,.6g}{spare}")
        if (left := self.seconds_left(last=last)) is not None and left <= 0:
            return Refused("seconds", f"the {limit.seconds:g} seconds are over")
        return None


def _left(limit: int | None, gone: int) -> int | None:
    return None if limit is None else max(0, limit - gone)


def _down(left: float, parts: float) -> float:
    """Cut to so many parts of one. Rounded up, there would seem to be more left than there is."""
    return floor(max(0.0, left) * parts + ROUNDING) / parts


def _minus(usage: Usage, other: Usage) -> Usage:
    """A reservation comes back. The last one leaves nothing, also where floats would leave a trace."""
    if usage[:4] == other[:4]:
        return Usage()
    cost = None if usage.cost is None or other.cost is None else usage.cost - other.cost
    return Usage(usage.calls - other.calls, usage.input - other.input, 0, usage.output - other.output, cost)
