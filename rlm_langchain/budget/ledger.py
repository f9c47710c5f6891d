"""The account of a tree of runs. No request is sent to a model unless the ledger has admitted it.

A call reserves the most that it may use, is made, and then settles for the usage that the provider reports.
Reserved and spent amounts together never pass a limit. Reservations assume the worst case, and most of them are
released again. So a call that does not fit only because of other reservations waits for them, in order, and is
refused once spending itself leaves too little. The needs of one more root turn are held back, so that a run that
has used up the rest can still make a last call for an answer.

A provider may bill more than was reserved. So the account is checked again at the moment of sending, with a new
estimate: if a model used more than its reservation, its next calls reserve that much more.

A request that was sent may be billed even if its reply never comes. It is then booked with what was reserved for
it, as an estimate. A `RequestLog` does the same for requests that were in flight when their process was killed.

Calls of tools are no usage of a model: `RunTree.tool_call` counts them.
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
from typing import NamedTuple, Protocol

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limits import LEDGER_LIMITS, Limit, Stop
from rlm_langchain.errors import RLMError
from rlm_langchain.types import StopReason, Usage

LAST_CALL_SHARE = 0.5
"""Largest share of a limit that is held back for the last call. A small budget may not cover both."""
LAST_CALL_TIME_SHARE = 0.2
"""Share of the time that is held back for the last call, up to `LAST_CALL_SECONDS`."""
LAST_CALL_SECONDS = 30.0
ROUNDING = 1e-9
"""Tolerance for sums of dollars, which are floats. Their error is far smaller."""


class BudgetRefused(RLMError):
    """A reservation does not fit into the budget."""

    def __init__(self, reason: StopReason, sentence: str) -> None:
        self.reason: StopReason = reason
        super().__init__(sentence)


class RequestLog(Protocol):
    """Records which requests were sent, and what each has used, so that a killed process can be accounted for."""

    def sent(self, call_path: str, most: Usage) -> str:
        """Record that a request is about to be sent from `call_path`, and may use up to `most`. Return its key.

        Raises if it cannot be recorded; then nothing may be sent.
        """

    def booked(self, call_path: str, key: str, used: Usage, reply: Receipt | None) -> None:
        """Record what a request has used, and with `reply` its reply as well."""

    def lost(self, call_path: str, most: Usage) -> None:
        """Record that the reply to a request never came."""


class Receipt(NamedTuple):
    """A reply to store on disk."""

    key: str
    fields: dict[str, object]


@dataclass(slots=True, eq=False)
class Reservation:
    """The reservation of a call, over all its requests.

    A caller that sends requests calls `renew` and `begin` before each, and `book`, `lose` or `withdraw` after it.
    """

    ledger: Ledger
    wanted: Usage
    last: bool
    estimate: Callable[[], Usage]
    call_path: str = ""
    """Path of the call in the tree."""
    log: RequestLog | None = None
    key: str = ""
    """Key of the request in flight, in the log."""
    admitted: bool = True
    in_flight: bool = False

    async def renew(self) -> None:
        """Reserve again, in order, if the reservation was released. Raises `BudgetRefused`."""
        if not self.admitted:
            self.wanted = self.estimate()
            await self.ledger.admit(self)

    def begin(self) -> bool:
        """Check the account at the moment of sending, and log the request. False: the call no longer fits, and its
        reservation was released. Raises what the log raises; then nothing may be sent."""
        if not self.ledger.begin(self):
            return False
        if self.log:
            try:
                self.key = self.log.sent(self.call_path, self.wanted)
            except BaseException:
                self.ledger.withdraw(self)
                raise
        return True

    def book(self, used: Usage, reply: Receipt | None = None) -> None:
        """Add the usage of a request to the spending at once, so that other calls take it into account."""
        self.ledger.settle(self, used)
        if self.log:
            self.log.booked(self.call_path, self.key, used, reply)

    def lose(self) -> None:
        """Book all that was reserved, as an estimate, for a request that was sent and whose reply never came."""
        lost = self.wanted._replace(estimated=True)
        self.ledger.settle(self, lost)
        if self.log:
            self.log.lost(self.call_path, lost)

    def withdraw(self) -> None:
        """Record that the request failed without any cost. The reservation stays, for the next attempt."""
        was_in_flight = self.in_flight
        self.ledger.withdraw(self)
        if self.log and was_in_flight:
            self.log.booked(self.call_path, self.key, Usage(), None)


@dataclass(slots=True, eq=False)
class _QueuedCall:
    """A call that waits for its turn."""

    entry: Reservation
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    """Done when the call is admitted or refused."""

    def wake(self, refusal: BudgetRefused | None) -> None:
        """Wake the call, on its own event loop."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake, refusal)

    def _wake(self, refusal: BudgetRefused | None) -> None:
        if self.turn.done():
            return
        if refusal:
            self.turn.set_exception(refusal)
        else:
            self.turn.set_result(None)


@dataclass(slots=True)
class Ledger:
    """Budget and spending of a tree of runs. Safe for threads and tasks."""

    budget: Budget
    spent: Usage = Usage()
    elapsed: float = 0.0
    """Seconds that earlier processes have worked on this run."""
    clock: Callable[[], float] = time.monotonic
    reserve_for_last_call: Usage = Usage(calls=1)
    """Estimated need of the last call. The root run keeps it up to date."""
    _reserved: Usage = Usage()
    _in_flight: Usage = Usage()
    """The part of the reservations whose requests have been sent."""
    _queue: deque[_QueuedCall] = field(default_factory=deque)
    """Waiting calls, first come, first served. Otherwise small calls could delay a large one for ever."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = -1.0

    def __post_init__(self) -> None:
        self._begun = self.clock()

    @asynccontextmanager
    async def reserve(
        self,
        wanted: Usage,
        *,
        last: bool = False,
        estimate: Callable[[], Usage] | None = None,
        call_path: str = "",
        log: RequestLog | None = None,
    ) -> AsyncIterator[Reservation]:
        """Reserve `wanted` while a call is made. A request that an error or a cancellation cuts off in flight is
        booked as lost.

        `last` may use what is held back for the last call. `estimate` is called again before each request. `log`
        stores the requests, sent from `call_path`. Raises `BudgetRefused`.
        """
        entry = Reservation(self, wanted, last, estimate or (lambda: wanted), call_path, log, admitted=False)
        await self.admit(entry)
        try:
            yield entry
        finally:
            if entry.in_flight:  # cut off
                entry.lose()
            self.settle(entry, Usage())

    async def admit(self, entry: Reservation) -> None:
        """Wait until the entry fits next to all others. Raises `BudgetRefused`."""
        with self._lock:
            if refusal := self._refusal(entry.wanted, self.spent, last=entry.last):
                raise refusal
            if not self._queue and self._fits(entry):
                self._admit(entry)
                return
            loop = asyncio.get_running_loop()
            waiting = _QueuedCall(entry, loop, loop.create_future())
            self._queue.append(waiting)
        try:
            await waiting.turn
        except BaseException:
            self._stop_waiting(waiting)
            raise

    def begin(self, entry: Reservation) -> bool:
        """Return whether the entry fits next to all that is spent and in flight. If so, it is now in flight,
        too."""
        wanted = entry.estimate()
        with self._lock:
            fits = entry.admitted and self._refusal(wanted, self.spent, self._in_flight, last=entry.last) is None
            self._release(entry)
            if fits:
                entry.wanted = wanted
                self._admit(entry)
                self._in_flight = self._in_flight.plus(wanted)
                entry.in_flight = True
            self._admit_waiting()
            return fits

    def settle(self, entry: Reservation, used: Usage) -> None:
        """Add the usage to the spending and release the reservation."""
        with self._lock:
            self._release(entry)
            self.spent = self.spent.plus(used)
            self._admit_waiting()

    def withdraw(self, entry: Reservation) -> None:
        """Record that the entry is no longer in flight."""
        with self._lock:
            self._end_flight(entry)

    def add_spent(self, used: Usage) -> None:
        """Add the spending of earlier processes on a run that is resumed."""
        with self._lock:
            self.spent = self.spent.plus(used)

    def worked(self, seconds: float) -> None:
        """Record that earlier processes have worked on this run for at least this many seconds."""
        self.elapsed = max(self.elapsed, seconds)

    def limit_reached(self, wanted: Usage) -> StopReason | None:
        """Return the limit that refuses a call of this size even if all reservations were released, or None."""
        with self._lock:
            refusal = self._refusal(wanted, self.spent, last=False)
        return refusal.reason if refusal else None

    @property
    def committed(self) -> Usage:
        """Return what is spent and what is reserved."""
        with self._lock:
            return self.spent.plus(self._reserved)

    @property
    def seconds(self) -> float:
        """Return the seconds of work since the run began, over all its processes."""
        return self.elapsed + self.clock() - self._begun

    def seconds_left(self, *, last: bool = False) -> float | None:
        """Return the seconds until work must stop, or with `last` until the last call must have returned. None: no
        limit."""
        limit = self.budget.seconds
        if limit is None:
            return None
        held_back_amount = 0.0 if last else min(limit * LAST_CALL_TIME_SHARE, LAST_CALL_SECONDS)
        return max(0.0, limit - held_back_amount - self.seconds)

    def remaining(self) -> dict[str, float | int | None]:
        """Return what is left of each limit, as `budget()` shows it in the REPL. None: no limit."""
        used_so_far = self.committed
        return {limit.field: self._left(limit, stop, used_so_far) for limit, stop in LEDGER_LIMITS}

    def running_low(self) -> dict[str, float | int]:
        """Return the limits of which less than a quarter is left, with what is left."""
        return {
            name: rest
            for name, rest in self.remaining().items()
            if rest is not None and rest < getattr(self.budget, name) / 4
        }

    def _left(self, limit: Limit, stop: Stop, used_so_far: Usage) -> float | int | None:
        most: float | int | None = getattr(self.budget, limit.field)
        if most is None:
            return None
        rest = most - (stop.measure(used_so_far) or 0 if stop.measure else self.seconds)
        return max(0, rest) if limit.whole else _rounded_down(rest, stop.parts)

    def _admit(self, entry: Reservation) -> None:
        entry.admitted = True
        self._reserved = self._reserved.plus(entry.wanted)

    def _release(self, entry: Reservation) -> None:
        self._end_flight(entry)
        if entry.admitted:
            self._reserved = _subtract(self._reserved, entry.wanted)
            entry.admitted = False

    def _end_flight(self, entry: Reservation) -> None:
        if entry.in_flight:
            self._in_flight = _subtract(self._in_flight, entry.wanted)
            entry.in_flight = False

    def _stop_waiting(self, waiting: _QueuedCall) -> None:
        """Remove a call that was cancelled while it waited, or at the moment it was admitted."""
        with self._lock:
            if waiting in self._queue:
                self._queue.remove(waiting)
            self._release(waiting.entry)
            self._admit_waiting()

    def _admit_waiting(self) -> None:
        """Admit or refuse waiting calls in order, until the first of them has to wait longer."""
        while self._queue:
            entry = self._queue[0].entry
            refusal = self._refusal(entry.wanted, self.spent, last=entry.last)
            if not refusal:
                if not self._fits(entry):
                    return
                self._admit(entry)
            self._queue.popleft().wake(refusal)

    def _fits(self, entry: Reservation) -> bool:
        return self._refusal(entry.wanted, self.spent, self._reserved, last=entry.last) is None

    def _refusal(self, wanted: Usage, *used: Usage, last: bool) -> BudgetRefused | None:
        """Return why a call does not fit next to all that is used, or None."""
        for limit, stop in LEDGER_LIMITS:
            most: float | int | None = getattr(self.budget, limit.field)
            if most is None or stop.measure is None:
                continue
            all_of_it: float = 0
            for usage in (*used, wanted):
                part = stop.measure(usage)
                all_of_it += inf if part is None else part
            held_back_amount = (
                0.0 if last or not stop.held_back else stop.measure(self.reserve_for_last_call) or 0.0
            )
            held_back_amount = min(held_back_amount, most * LAST_CALL_SHARE)
            if all_of_it > most - held_back_amount + ROUNDING:
                spare = "" if last else f", with {held_back_amount:,.6g} held back for a last call"
                return BudgetRefused(
                    stop.reason, f"{all_of_it:,.6g} {limit.field} do not fit into {most:,.6g}{spare}"
                )
        if (left := self.seconds_left(last=last)) is not None and left <= 0:
            return BudgetRefused("seconds", f"the {self.budget.seconds:g} seconds are over")
        return None


def _rounded_down(left: float, parts: float) -> float:
    """Round down to a multiple of 1/`parts`. Rounding up would promise more than is left."""
    return floor(max(0.0, left) * parts + ROUNDING) / parts


def _subtract(usage: Usage, other: Usage) -> Usage:
    """Subtract a reservation. Subtracting the last one gives exactly zero, without a floating-point remainder."""
    if usage[:4] == other[:4]:
        return Usage()
    cost = None if usage.cost is None or other.cost is None else usage.cost - other.cost
    return Usage(usage.calls - other.calls, usage.input - other.input, 0, usage.output - other.output, cost)
