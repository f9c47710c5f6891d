"""The one account of a tree of runs: nothing is sent to a model that it has not admitted.

A call reserves what it may use, is made, and settles for what the provider says it used. What is reserved and
spent together never passes a limit. What one more root turn would need is held back, so that a run that has
used up the rest can still make a last call for an answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rlm_langchain.errors import RLMError
from rlm_langchain.types import Budget, StopReason, Usage

HELD_SHARE = 0.5
"""Of a limit: the most that is held back for the last call. A budget may be too small for both."""
HELD_TIME = 0.1
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
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = -1.0

    def __post_init__(self) -> None:
        self._begun = self.clock()

    @contextmanager
    def reserve(self, wanted: Usage, *, last: bool = False) -> Iterator[Entry]:
        """Hold `wanted` while a call is made, then book `entry.used`, also on an error or a cancel.

        `last` may use what is held back. Raises `Refused`.
        """
        entry = Entry()
        with self._lock:
            if refusal := self._refusal(wanted, last):
                raise refusal
            self._reserved = self._reserved.plus(wanted)
        try:
            yield entry
        finally:
            with self._lock:
                self._reserved = _minus(self._reserved, wanted)
                self.spent = self.spent.plus(entry.used)

    def book(self, used: Usage) -> None:
        """Add what was spent before this process: by a run that is being resumed."""
        with self._lock:
            self.spent = self.spent.plus(used)

    def stop(self, wanted: Usage) -> StopReason | None:
        """Which limit a call of this size would hit now, if any."""
        with self._lock:
            refusal = self._refusal(wanted, last=False)
        return refusal.reason if refusal else None

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
        with self._lock:
            gone = self.spent.plus(self._reserved)
        limit = self.budget
        return {
            "calls": _left(limit.calls, gone.calls),
            "tokens": _left(limit.tokens, gone.tokens),
            "usd": None if limit.usd is None else round(max(0.0, limit.usd - (gone.cost or 0.0)), 6),
            "seconds": None if limit.seconds is None else round(max(0.0, limit.seconds - self.seconds), 1),
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

    def _refusal(self, wanted: Usage, last: bool) -> Refused | None:
        limit, after = self.budget, self.spent.plus(self._reserved).plus(wanted)
        held = Usage() if last else self.held
        limits: tuple[tuple[StopReason, float, float | None, float], ...] = (
            ("calls", after.calls, limit.calls, held.calls),
            ("tokens", after.tokens, limit.tokens, held.tokens),
            ("usd", after.cost or 0.0, limit.usd, held.cost or 0.0),
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


def _minus(usage: Usage, other: Usage) -> Usage:
    cost = None if usage.cost is None or other.cost is None else usage.cost - other.cost
    return Usage(usage.calls - other.calls, usage.input - other.input, 0, usage.output - other.output, cost)
