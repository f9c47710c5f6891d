"""What a person has agreed to, for a whole tree: so much may be reached without asking.

A fan-out that is let go counts from then on, call by call until each is asked and the account knows it: several
runs that fan out at once would else each find room for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TypeVar

from typing_extensions import TypedDict

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import Ledger
from rlm_langchain.types import Usage, total_usage

T = TypeVar("T", int, float)


class Reach(TypedDict):
    """How far a tree of runs may go without asking. None: as far as it likes."""

    calls: int | None
    usd: float | None


class ApprovalLimit:
    """How far a tree may go, in calls and in dollars, and which calls were let go."""

    def __init__(self, budget: Budget, ledger: Ledger) -> None:
        self.approved_up_to = Reach(calls=budget.approve_above_calls, usd=budget.approve_above_usd)
        """What may be reached without asking."""
        self._budget = budget
        self._ledger = ledger
        self._promised: dict[str, Usage] = {}
        """What calls that were let go may use, by their place, until they are asked."""
        self._lock = threading.Lock()

    def raise_to(self, until: Reach | None) -> None:
        """A person has agreed to this, now or in an earlier process."""
        if until is None:
            return
        with self._lock:
            now = self.approved_up_to
            self.approved_up_to = Reach(
                calls=_more(now["calls"], until["calls"]), usd=_more(now["usd"], until["usd"])
            )

    def request(self, calls: Mapping[str, Usage]) -> Reach | None:
        """Let calls go, by their places, and return None.

        When a person has to be asked first, return how far the tree may go once they have agreed: past these calls,
        and as much again as the budget allows without asking.
        """
        with self._lock:
            limit, now = self._budget, self.approved_up_to
            reached = total_usage([self._ledger.committed, *self._promised.values(), *calls.values()])
            dollars = float("inf") if reached.cost is None else reached.cost
            until = Reach(
                calls=_next(now["calls"], reached.calls, limit.approve_above_calls),
                usd=_next(now["usd"], dollars, limit.approve_above_usd),
            )
            if until != now:
                return until
            self._promised.update(calls)
            return None

    def reserve(self, calls: Mapping[str, Usage]) -> None:
        """Let calls go that a person was asked about."""
        with self._lock:
            self._promised.update(calls)

    def started(self, place: str) -> None:
        """The call at this place, or the first of the child run there, is on the account now."""
        with self._lock:
            self._promised.pop(place.partition(" ")[0], None)

    def forget_run(self, path: str) -> None:
        """The run at `path` waits for none of its calls any more."""
        with self._lock:
            for place in [place for place in self._promised if place.rpartition("/")[0] == path]:
                del self._promised[place]


def _more(approved: T | None, until: T | None) -> T | None:
    """The larger one; without a limit there is nothing to raise."""
    return approved if approved is None or until is None else max(approved, until)


def _next(approved: T | None, reached: T, step: T | None) -> T | None:
    """What is approved, when `reached` is within it; else what would be after a yes."""
    return approved if approved is None or reached <= approved else reached + (step or 0)
