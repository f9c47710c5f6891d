"""The budget account of a tree of runs. No request is sent to a model that the ledger has not admitted.

A call reserves what it may use, is made, and settles for what the provider says it used. What is reserved and
spent together never passes a limit. A reservation is for the worst case, and most of it comes back: so a call
that only others' reservations stand in the way of waits for them, in turn, and is refused when what is spent
leaves too little. What one more root turn would need is held back, so that a run that has used up the rest can
still make a last call for an answer.

A provider may bill more than was reserved. So the account is looked at again at the moment of sending, and what a
model was seen to use beyond its reservation is reserved for its next calls.

A request that was sent may be billed, even if its reply never comes. It is booked then at what was reserved for it,
as an estimate. A `RequestLog` does the same for requests that were in flight when their process was killed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import floor, inf
from typing import NamedTuple, Protocol

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limits import TREE_LIMITS, Limit, Stop
from rlm_langchain.errors import RLMError
from rlm_langchain.types import StopReason, Usage

HELD_SHARE = 0.5
"""Of a limit: the most that is held back for the last call. A budget may be too small for both."""
HELD_TIME = 0.2
"""Of the time: held back for the last call, and no more than so many seconds:"""
HELD_SECONDS = 30.0
ROUNDING = 1e-9
"""Dollars are floats: sums of them are right to far less than this."""


class BudgetRefused(RLMError):
    """A reservation does not fit into the budget."""

    def __init__(self, reason: StopReason, sentence: str) -> None:
        self.reason: StopReason = reason
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class Overrun:
    """How far a model went beyond what was reserved for its calls: the next ones reserve as much more."""

    input: int = 0
    """Tokens that it has read beyond the most that we had counted: some providers add words of their own."""
    output: int = 0
    """The most tokens of a reply."""
    price: float = 1.0
    """What it billed, as a multiple of what its tokens cost by the price that we know."""
    cost: float = 0.0
    """The most dollars of a call that should have been free."""

    def tokens(self, wanted: Usage) -> Usage:
        """What a call may use, with as many tokens as this model was seen to use."""
        return wanted._replace(input=wanted.input + self.input, output=max(wanted.output, self.output))

    def dollars(self, cost: float | None) -> float | None:
        """What it may cost."""
        return None if cost is None else max(cost * self.price, self.cost)

    def seen(self, wanted: Usage, used: Usage, expected: float | None, then: Overrun | None = None) -> Overrun:
        """The same, after a call for which `wanted` was reserved, and whose tokens should have cost `expected`.

        `then` is the overrun that was known when it was reserved (None: this one). Of calls that were in flight at
        once, each went beyond its reservation by the same words: they do not add up.
        """
        billed = used.cost if used.cost is not None and expected is not None else 0.0
        price = billed / expected if expected else 1.0
        return Overrun(
            max(self.input, (then or self).input + max(0, used.input - wanted.input)),
            max(self.output, used.output if used.output > wanted.output else 0),
            max(self.price, price if price > 1 + ROUNDING else 1.0),
            max(self.cost, billed if expected == 0 else 0.0),
        )


class RequestLog(Protocol):
    """Keeps which requests were sent, and what each has used, so that a killed process can be accounted for."""

    def sent(self, place: str, most: Usage) -> str:
        """Keep that a request is about to be sent from `place`, and may use up to `most`. Return its key. Raises
        when that cannot be kept: then nothing may be sent."""

    def booked(self, place: str, key: str, used: Usage, reply: Receipt | None) -> None:
        """Keep what a request has used; with `reply`, its reply as well."""

    def lost(self, place: str, most: Usage) -> None:
        """Note that the reply to a request never came."""


class Receipt(NamedTuple):
    """A reply to be kept on disk."""

    key: str
    fields: dict[str, object]


@dataclass(slots=True, eq=False)
class Reservation:
    """A reservation of a call, over all its requests.

    Whoever sends requests calls `renew` and `begin` before each of them, and `book`, `lose` or `withdraw` after it.
    """

    ledger: Ledger
    wanted: Usage
    last: bool
    estimate: Callable[[], Usage]
    place: str = ""
    """Where in the tree the call is made."""
    log: RequestLog | None = None
    key: str = ""
    """Of the request in flight, in the log."""
    overruns: Mapping[str, Overrun] = field(default_factory=dict)
    """What was known of overruns when `wanted` was estimated."""
    admitted: bool = True
    in_flight: bool = False

    async def renew(self) -> None:
        """Reserve again, in turn, if the reservation was given back. Raises `BudgetRefused`."""
        if not self.admitted:
            self.wanted = self.estimate()
            await self.ledger.admit(self)

    def begin(self) -> bool:
        """Look at the account at the moment of sending, and log the request. False: it does not fit any more, and
        was given back. Raises what the log raises: then nothing may be sent."""
        if not self.ledger.begin(self):
            return False
        if self.log:
            try:
                self.key = self.log.sent(self.place, self.wanted)
            except BaseException:
                self.ledger.withdraw(self)
                raise
        return True

    def overrun(self, model: str) -> Overrun:
        """How far this model was known to go beyond its reservations when this one was made."""
        return self.overruns.get(model, Overrun())

    def book(self, used: Usage, reply: Receipt | None = None) -> None:
        """Book at once what a request has used: nothing is sent any more that does not fit beside it."""
        self.ledger.settle(self, used)
        if self.log:
            self.log.booked(self.place, self.key, used, reply)

    def lose(self) -> None:
        """A request was sent, and its reply never came: book all that was reserved, as an estimate."""
        lost = self.wanted._replace(estimated=True)
        self.ledger.settle(self, lost)
        if self.log:
            self.log.lost(self.place, lost)

    def withdraw(self) -> None:
        """The request has failed in a way that costs nothing; the reservation stays, for the next try."""
        was_in_flight = self.in_flight
        self.ledger.withdraw(self)
        if self.log and was_in_flight:
            self.log.booked(self.place, self.key, Usage(), None)


@dataclass(slots=True, eq=False)
class _QueuedCall:
    """A call that waits for its turn."""

    entry: Reservation
    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]
    """Done when the call is admitted, or refused."""

    def tell(self, refusal: BudgetRefused | None) -> None:
        """Wake it, on its own loop."""
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
    """Seconds that earlier processes have spent on this run."""
    clock: Callable[[], float] = time.monotonic
    reserve_for_last_call: Usage = Usage(calls=1)
    """What the last call is thought to need. The root run keeps it up to date."""
    overruns: Mapping[str, Overrun] = field(default_factory=dict)
    """By the name of the model."""
    _reserved: Usage = Usage()
    _in_flight: Usage = Usage()
    """Of what is reserved: for requests that were sent."""
    _queue: deque[_QueuedCall] = field(default_factory=deque)
    """First come, first served: else small calls would keep a large one waiting for ever."""
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
        place: str = "",
        log: RequestLog | None = None,
    ) -> AsyncIterator[Reservation]:
        """Hold `wanted` while a call is made. A request that an error or a cancel cuts off in flight is lost.

        `last` may use what is held back. `estimate` is called again before each request. `log` keeps the requests,
        sent from `place`. Raises `BudgetRefused`.
        """
        entry = Reservation(self, wanted, last, estimate or (lambda: wanted), place, log, admitted=False)
        await self.admit(entry)
        try:
            yield entry
        finally:
            if entry.in_flight:  # cut off
                entry.lose()
            self.settle(entry, Usage())

    async def admit(self, entry: Reservation) -> None:
        """Wait until the entry fits beside all others. Raises `BudgetRefused`."""
        with self._lock:
            if refusal := self._refusal(self.spent, entry.wanted, entry.last):
                raise refusal
            if not self._queue and self._fits(entry):
                self._hold(entry)
                return
            loop = asyncio.get_running_loop()
            waiting = _QueuedCall(entry, loop, loop.create_future())
            self._queue.append(waiting)
        try:
            await waiting.turn
        except BaseException:
            self._leave(waiting)
            raise

    def begin(self, entry: Reservation) -> bool:
        """Whether the entry fits beside what is spent and what is in flight; then it is in flight, too."""
        overruns, wanted = self.overruns, entry.estimate()
        with self._lock:
            gone = self.spent.plus(self._in_flight)
            fits = entry.admitted and self._refusal(gone, wanted, entry.last) is None
            self._release(entry)
            if fits:
                entry.wanted, entry.overruns = wanted, overruns
                self._hold(entry)
                self._in_flight = self._in_flight.plus(wanted)
                entry.in_flight = True
            self._serve()
            return fits

    def settle(self, entry: Reservation, used: Usage) -> None:
        """Book what was used, and give the reservation back."""
        with self._lock:
            self._release(entry)
            self.spent = self.spent.plus(used)
            self._serve()

    def withdraw(self, entry: Reservation) -> None:
        """The entry is not in flight any more."""
        with self._lock:
            self._land(entry)

    def overrun(self, model: str) -> Overrun:
        """How far this model was seen to go beyond its reservations."""
        return self.overruns.get(model, Overrun())

    def add_spent(self, used: Usage) -> None:
        """Add what was spent before this process, by a run that is being resumed."""
        with self._lock:
            self.spent = self.spent.plus(used)

    def worked(self, seconds: float) -> None:
        """Earlier processes have worked on this run for so long, at least."""
        self.elapsed = max(self.elapsed, seconds)

    def learn(
        self, model: str, wanted: Usage, used: Usage, expected: float | None, then: Overrun | None = None
    ) -> None:
        """See whether a call went beyond its reservation. Its tokens should have cost `expected`; `then` as in
        `Overrun.seen`."""
        with self._lock:
            found = self.overrun(model).seen(wanted, used, expected, then)
            self.overruns = {**self.overruns, model: found}  # reservations keep the old one

    def limit_reached(self, wanted: Usage) -> StopReason | None:
        """Which limit refuses a call of this size, whatever of the reservations may come back."""
        with self._lock:
            refusal = self._refusal(self.spent, wanted, last=False)
        return refusal.reason if refusal else None

    @property
    def committed(self) -> Usage:
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

    def remaining(self) -> dict[str, float | int | None]:
        """What is left of each limit, as `budget()` shows it in the REPL. None: no limit."""
        gone = self.committed
        return {limit.field: self._left(limit, stop, gone) for limit, stop in TREE_LIMITS}

    def running_low(self) -> dict[str, float | int]:
        """The limits of which less than a quarter is left, with what is left."""
        return {
            name: rest
            for name, rest in self.remaining().items()
            if rest is not None and rest < getattr(self.budget, name) / 4
        }

    def _left(self, limit: Limit, stop: Stop, gone: Usage) -> float | int | None:
        most: float | int | None = getattr(self.budget, limit.field)
        if most is None:
            return None
        rest = most - (stop.measure(gone) or 0 if stop.measure else self.seconds)
        return max(0, rest) if limit.whole else _down(rest, stop.parts)

    def _hold(self, entry: Reservation) -> None:
        entry.admitted = True
        self._reserved = self._reserved.plus(entry.wanted)

    def _release(self, entry: Reservation) -> None:
        self._land(entry)
        if entry.admitted:
            self._reserved = _minus(self._reserved, entry.wanted)
            entry.admitted = False

    def _land(self, entry: Reservation) -> None:
        if entry.in_flight:
            self._in_flight = _minus(self._in_flight, entry.wanted)
            entry.in_flight = False

    def _leave(self, waiting: _QueuedCall) -> None:
        """A call goes away before its turn, or just when it came."""
        with self._lock:
            if waiting in self._queue:
                self._queue.remove(waiting)
            self._release(waiting.entry)
            self._serve()

    def _serve(self) -> None:
        """Admit or refuse those who wait, in order, for as long as the first of them can be told."""
        while self._queue:
            entry = self._queue[0].entry
            refusal = self._refusal(self.spent, entry.wanted, entry.last)
            if not refusal:
                if not self._fits(entry):
                    return
                self._hold(entry)
            self._queue.popleft().tell(refusal)

    def _fits(self, entry: Reservation) -> bool:
        return self._refusal(self.spent.plus(self._reserved), entry.wanted, entry.last) is None

    def _refusal(self, gone: Usage, wanted: Usage, last: bool) -> BudgetRefused | None:
        """Why a call does not fit beside what is gone."""
        after = gone.plus(wanted)
        for limit, stop in TREE_LIMITS:
            most: float | int | None = getattr(self.budget, limit.field)
            if most is None or stop.measure is None:
                continue
            used = stop.measure(after)
            all_of_it = inf if used is None else used
            held = 0.0 if last or not stop.held_back else stop.measure(self.reserve_for_last_call) or 0.0
            held = min(held, most * HELD_SHARE)
            if all_of_it > most - held + ROUNDING:
                spare = "" if last else f", with {held:,.6g} held back for a last call"
                return BudgetRefused(
                    stop.reason, f"{all_of_it:,.6g} {limit.field} do not fit into {most:,.6g}{spare}"
                )
        if (left := self.seconds_left(last=last)) is not None and left <= 0:
            return BudgetRefused("seconds", f"the {self.budget.seconds:g} seconds are over")
        return None


def _down(left: float, parts: float) -> float:
    """Cut to so many parts of one. Rounded up, there would seem to be more left than there is."""
    return floor(max(0.0, left) * parts + ROUNDING) / parts


def _minus(usage: Usage, other: Usage) -> Usage:
    """A reservation comes back. The last one leaves nothing, also where floats would leave a trace."""
    if usage[:4] == other[:4]:
        return Usage()
    cost = None if usage.cost is None or other.cost is None else usage.cost - other.cost
    return Usage(usage.calls - other.calls, usage.input - other.input, 0, usage.output - other.output, cost)
