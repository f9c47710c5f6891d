"""Decides how far a tree of runs may go before a person is asked.

The calls of an approved fan-out count at once, until each of them has been made and is in the ledger. Otherwise
several runs that fan out at the same time could each claim the same room.
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
    """Limits up to which a tree of runs need not ask. None: no limit."""

    calls: int | None
    usd: float | None


class ApprovalLimit:
    """The approved number of calls and dollars of a tree, and the calls that were allowed within it."""

    def __init__(self, budget: Budget, ledger: Ledger) -> None:
        self.approved_up_to = Reach(calls=budget.approve_above_calls, usd=budget.approve_above_usd)
        """The approved limits."""
        self._budget = budget
        self._ledger = ledger
        self._promised: dict[str, Usage] = {}
        """Estimated usage of allowed calls that have not started, by call path."""
        self._lock = threading.Lock()

    def raise_to(self, until: Reach | None) -> None:
        """Raise the approved limits to those that a person has accepted, now or in an earlier process."""
        if until is None:
            return
        with self._lock:
            now = self.approved_up_to
            self.approved_up_to = Reach(
                calls=_more(now["calls"], until["calls"]), usd=_more(now["usd"], until["usd"])
            )

    def request(self, calls: Mapping[str, Usage]) -> Reach | None:
        """Allow calls, by call path, and return None.

        If a person has to be asked first, return the limits that apply after a yes: these calls, plus as much again
        as the budget allows without asking.
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
        """Allow calls that a person has approved."""
        with self._lock:
            self._promised.update(calls)

    def started(self, call_path: str) -> None:
        """Forget the allowance of a call, or of the child run at this path: the ledger counts it from now on."""
        with self._lock:
            self._promised.pop(call_path.partition(" ")[0], None)

    def forget_run(self, path: str) -> None:
        """Drop the allowances of a run whose fan-out has finished."""
        with self._lock:
            for call_path in [call_path for call_path in self._promised if call_path.rpartition("/")[0] == path]:
                del self._promised[call_path]


def _more(approved: T | None, until: T | None) -> T | None:
    """Return the larger limit. None, no limit, stays None."""
    return approved if approved is None or until is None else max(approved, until)


def _next(approved: T | None, reached: T, step: T | None) -> T | None:
    """Return the approved limit if it covers `reached`, else the limit that would apply after a yes."""
    return approved if approved is None or reached <= approved else reached + (step or 0)
