"""The purse of a batch: what all of its rows may spend together, over all times that the batch is run.

Each run gets a grant from the purse when it starts or goes on: a budget of its own, which its ledger never passes.
The grants and what was spent together never pass the purse, so the batch does not either. A run that ends returns
what it has not used.

What is left is shared equally by the places at which rows can start, but a grant is at least the need of a row:
what nine of ten rows that have ended stayed within, and a little more. If not that much is left, nothing starts
before other rows return something. So a row that starts can be finished. As long as no row has ended, nothing is
known of the need: one row goes ahead alone, with half of the purse.
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

FIELDS: Final[tuple[Literal["usd", "calls", "tokens"], ...]] = ("usd", "calls", "tokens")
MEASURES: Final[dict[str, Callable[[Usage], float | None]]] = {
    limit.field: stop.measure for limit, stop in TREE_LIMITS if limit.field in FIELDS and stop.measure
}
"""Returns how much of a limit a usage consumes."""
WHOLE: Final = frozenset({"calls", "tokens"})
LEAST: Final = {"usd": ROUNDING, "calls": 1, "tokens": 1}
"""The smallest amount that a run can use."""
RULES: Final = (NumberRule("usd"), NumberRule("calls", whole=True), NumberRule("tokens", whole=True))
SPARE: Final = 1.25
"""The need of a row, as a multiple of what other rows have used: calls reserve more than they use."""
PILOT_SHARE: Final = 0.5
"""Share of what is left that the first row may use."""


@dataclass(frozen=True, slots=True)
class Purse:
    """What all rows of a batch may use together, over all times that it is run. None: no limit."""

    usd: float | None = None
    """Dollars, as reported by the provider, else by price lists."""
    calls: int | None = None
    """Model calls of all kinds."""
    tokens: int | None = None
    """Input and output tokens."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a limit of the wrong type or out of range."""
        check_numbers(self, RULES)

    @property
    def limits(self) -> dict[str, float]:
        """Return the limits that there are."""
        return {name: limit for name in FIELDS if (limit := getattr(self, name)) is not None}


check_keywords(Purse)


def used_of(name: str, usage: Usage) -> float:
    """Return how much of a limit a usage consumes. What is not known is more than any limit."""
    used = MEASURES[name](usage)
    return inf if used is None else used


class Grant(NamedTuple):
    """What a run may use that works now."""

    amounts: dict[str, float]
    """By limit, with what it used before."""
    own: frozenset[str]
    """The limits that the run would have anyway, whatever is in the purse."""


@dataclass(slots=True)
class Account:
    """What is left of a purse, what is granted, and what rows need. Not safe for threads."""

    purse: Purse
    spent: Usage = Usage()
    """What rows have used that do not work now."""
    _granted: dict[str, Grant] = field(default_factory=dict)
    """The grants of the runs that work now, by thread."""
    _used: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIELDS})
    """What each row that has ended used, sorted."""

    @property
    def needs_pilot(self) -> bool:
        """Return whether one row should go ahead, because there is a limit and nothing is known of the need."""
        return bool(self.purse.limits) and not self._used["calls"]

    def left(self, name: str) -> float:
        """Return what is left of a limit that the purse has, without what is granted."""
        granted = sum(grant.amounts[name] for grant in self._granted.values())
        return max(0.0, self.purse.limits[name] - used_of(name, self.spent) - granted)

    def empty(self) -> StopReason | None:
        """Return the limit of which not even the need of one row is left, or None."""
        for name in FIELDS:
            if name in self.purse.limits and self.left(name) < max(self.need(name), LEAST[name]):
                return name
        return None

    def need(self, name: str) -> float:
        """Return how much of a limit a row needs: 0 as long as no row has ended."""
        used = self._used[name]
        if not used:
            return 0.0
        most = used[(9 * len(used) - 1) // 10]
        return {"usd": most * SPARE, "calls": most + 1, "tokens": ceil(most * SPARE)}[name]

    def grant(
        self, thread: str, budget: Budget, places: int, before: Usage = Usage(), lost: Usage = Usage()
    ) -> Budget | None:
        """Return the budget of a run that starts or goes on, or None if not enough is left.

        `budget` is the most that the run may use in all, and `places` the number of rows that could start now.
        `before` is what it has used, `lost` the part of it that has brought it no further.
        """
        amounts: dict[str, float] = {}
        own: set[str] = set()
        for name in self.purse.limits:
            so_far, limit = used_of(name, before), getattr(budget, name)
            amount = self._share(name, places, so_far - used_of(name, lost) if so_far < inf else 0.0)
            if limit is not None and limit <= so_far + amount:
                own.add(name)
                amount = max(0.0, limit - so_far)
            if amount > self.left(name) or (amount <= 0 and name not in own):
                return None
            amounts[name] = so_far + amount
        self.spent = _minus(self.spent, before)
        self._granted[thread] = Grant(amounts, frozenset(own))
        most: dict[str, Any] = {name: int(most) if name in WHOLE else most for name, most in amounts.items()}
        return replace(budget, **most)

    def _share(self, name: str, places: int, so_far: float) -> float:
        """Return how much more of a limit a run may use that has come as far as others with `so_far`."""
        share = self.left(name) * PILOT_SHARE if self.needs_pilot else self.left(name) / places
        amount = max(share, self.need(name) - so_far, LEAST[name])
        return float(int(amount)) if name in WHOLE else amount

    def settle(self, thread: str, used: Usage | None, reason: StopReason | None = None) -> None:
        """Return what a run has not used. `reason`: why it ended; None: it did not, and may go on later.

        `used` is None if it is not known what the run has used. Then all that it was granted counts as spent.
        """
        grant = self._granted.pop(thread)
        self.spent = self.spent.plus(_as_usage(grant.amounts) if used is None else used)
        if used is not None and reason is not None:
            self.learn(used, cut=reason if reason in grant.amounts and reason not in grant.own else None)

    def learn(self, used: Usage, cut: StopReason | None = None) -> None:
        """Take into account what a row used that has ended. `cut`: the limit of its grant that cut it short."""
        for name in FIELDS:
            if (amount := used_of(name, used)) < inf:
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
