"""The budget of a batch: limits for all of its rows together, over all runs of the batch.

Each row gets a grant when it starts or resumes: its own budget, which its ledger enforces. Grants and past spending
together never exceed the budget, so the batch does not exceed it either. When a row ends, what it has not used goes
back.

The remaining budget is shared equally by the rows that can start now. A grant is at least what a row needs: the
90th percentile of the rows that have ended, plus a little. If less is left, no row starts until others return
something, so a row that starts can usually be finished. Until the first row has ended, the need is unknown: a
single row runs, with half of the budget.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Any, Final, Literal, NamedTuple

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import ROUNDING
from rlm_langchain.budget.limits import TREE_LIMITS
from rlm_langchain.types import StopReason, Usage
from rlm_langchain.validation import NumberRule, check_keywords, check_numbers

LIMIT_NAMES: Final[tuple[Literal["usd", "calls", "tokens"], ...]] = ("usd", "calls", "tokens")
MEASURES: Final[dict[str, Callable[[Usage], float | None]]] = {
    limit.field: stop.measure for limit, stop in TREE_LIMITS if limit.field in LIMIT_NAMES and stop.measure
}
"""Functions from a usage to the amount that counts towards a limit, by limit."""
INTEGER_LIMITS: Final = frozenset({"calls", "tokens"})
MIN_GRANT: Final = {"usd": ROUNDING, "calls": 1, "tokens": 1}
"""The smallest useful grant, by limit."""
RULES: Final = (NumberRule("usd"), NumberRule("calls", whole=True), NumberRule("tokens", whole=True))
HEADROOM: Final = 1.25
"""Factor from the usage of other rows to the need of a row: calls reserve more than they use."""
PILOT_SHARE: Final = 0.5
"""Share of the remaining budget that the first row gets."""


@dataclass(frozen=True, slots=True)
class BatchBudget:
    """Limits for all rows of a batch together, over all times that it is run. None: no limit."""

    usd: float | None = None
    """Dollars, as reported by the provider, otherwise from price lists."""
    calls: int | None = None
    """Model calls of root and sub-models."""
    tokens: int | None = None
    """Input and output tokens."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a limit of the wrong type or out of range."""
        check_numbers(self, RULES)

    @property
    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        return {name: limit for name in LIMIT_NAMES if (limit := getattr(self, name)) is not None}


check_keywords(BatchBudget)


def consumed(name: str, usage: Usage) -> float:
    """Return the amount of a usage that counts towards a limit. An unknown cost is infinite."""
    used = MEASURES[name](usage)
    return inf if used is None else used


class Grant(NamedTuple):
    """The part of the budget that a running row may use."""

    amounts: dict[str, float]
    """Amounts by limit, including what the row used in earlier processes."""
    own_limits: frozenset[str]
    """Limits where the row's own budget is lower than its part of the shared one."""


@dataclass(slots=True)
class BudgetAllocator:
    """Divides a budget among rows: tracks what is spent, what is granted, and what rows need. Not thread-safe."""

    budget: BatchBudget
    spent: Usage = Usage()
    """Usage of the rows that are not running now."""
    _granted: dict[str, Grant] = field(default_factory=dict)
    """Grants of the running rows, by thread."""
    _used: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LIMIT_NAMES})
    """Amounts that rows which have ended used, by limit, sorted."""

    @property
    def needs_pilot(self) -> bool:
        """Return whether a single row should run first: there is a limit, and the need of a row is unknown."""
        return bool(self.budget.limits) and not self._used["calls"]

    def remaining(self, name: str) -> float:
        """Return the amount of a limit that is neither spent nor granted."""
        granted = sum(grant.amounts[name] for grant in self._granted.values())
        return max(0.0, self.budget.limits[name] - consumed(name, self.spent) - granted)

    def exhausted_limit(self) -> StopReason | None:
        """Return the limit whose remaining amount is too small for another row, or None."""
        for name in LIMIT_NAMES:
            if name in self.budget.limits and self.remaining(name) < max(self.need(name), MIN_GRANT[name]):
                return name
        return None

    def need(self, name: str) -> float:
        """Return the amount of a limit that a row needs, or 0 if no row has ended yet."""
        used = self._used[name]
        if not used:
            return 0.0
        most = used[(9 * len(used) - 1) // 10]
        return {"usd": most * HEADROOM, "calls": most + 1, "tokens": ceil(most * HEADROOM)}[name]

    def grant(
        self, thread: str, budget: Budget, slots: int, before: Usage = Usage(), lost: Usage = Usage()
    ) -> Budget | None:
        """Return the budget of a row that starts or resumes, or None if too little is left.

        `budget` is the row's own budget, and `slots` the number of rows that could start now. `before` is what the
        row has used so far, and `lost` the part of it spent on requests whose reply never came.
        """
        amounts: dict[str, float] = {}
        own: set[str] = set()
        for name in self.budget.limits:
            so_far, limit = consumed(name, before), getattr(budget, name)
            amount = self._share(name, slots, so_far - consumed(name, lost) if so_far < inf else 0.0)
            if limit is not None and limit <= so_far + amount:
                own.add(name)
                amount = max(0.0, limit - so_far)
            if amount > self.remaining(name) or (amount <= 0 and name not in own):
                return None
            amounts[name] = so_far + amount
        self.spent = _minus(self.spent, before)
        self._granted[thread] = Grant(amounts, frozenset(own))
        most: dict[str, Any] = {
            name: int(most) if name in INTEGER_LIMITS else most for name, most in amounts.items()
        }
        return replace(budget, **most)

    def _share(self, name: str, slots: int, so_far: float) -> float:
        """Return the additional amount for a row whose `so_far` used amount has led to replies."""
        share = self.remaining(name) * PILOT_SHARE if self.needs_pilot else self.remaining(name) / slots
        amount = max(share, self.need(name) - so_far, MIN_GRANT[name])
        return float(int(amount)) if name in INTEGER_LIMITS else amount

    def release(self, thread: str, used: Usage | None, reason: StopReason | None = None) -> None:
        """Give back the part of its grant that a row has not used.

        `used` is the usage of the row. None: it is unknown, and the whole grant counts as spent. `reason` says why
        the run ended. None: it did not end, and may be resumed.
        """
        grant = self._granted.pop(thread)
        self.spent = self.spent.plus(_as_usage(grant.amounts) if used is None else used)
        if used is not None and reason is not None:
            self.record_usage(
                used, cut=reason if reason in grant.amounts and reason not in grant.own_limits else None
            )

    def record_usage(self, used: Usage, cut: StopReason | None = None) -> None:
        """Add the usage of a row that has ended to the estimate of the need. `cut`: the limit that cut it short."""
        for name in LIMIT_NAMES:
            if (amount := consumed(name, used)) < inf:
                insort(self._used[name], 2 * amount if name == cut else amount)


def _as_usage(granted: Mapping[str, float]) -> Usage:
    return Usage(int(granted.get("calls", 0)), int(granted.get("tokens", 0)), 0, 0, granted.get("usd", 0.0), True)


def _minus(usage: Usage, other: Usage) -> Usage:
    cost = None if usage.cost is None or other.cost is None else max(0.0, usage.cost - other.cost)
    return Usage(
        usage.calls - other.calls,
        usage.input - other.input,
        usage.cached - other.cached,
        usage.output - other.output,
        cost,
        usage.estimated,
    )
