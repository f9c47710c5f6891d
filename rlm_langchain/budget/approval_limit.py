"""What a person has agreed to, for a whole tree: so much may be reached without asking.

A fan-out that is let go counts from then on, call by call until each is asked and the account knows it: several
runs that fan out at once would else each find room for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from rlm_langchain.budget.ledger import Ledger
from rlm_langchain.types import Usage, total_usage


class ApprovalLimit:
    """How far a tree may go, in dollars (a float) or calls (an int), and which calls were let go."""

    def __init__(self, above: float | int | None, ledger: Ledger) -> None:
        self.above = above
        self.approved_up_to = above
        """What may be reached without asking; None: anything."""
        self._ledger = ledger
        self._promised: dict[str, Usage] = {}
        """What calls that were let go may use, by their place, until they are asked."""
        self._lock = threading.Lock()

    def raise_to(self, until: float | int | None) -> None:
        """A person has agreed to this, now or in an earlier process."""
        with self._lock:
            if until is not None and self.approved_up_to is not None:
                self.approved_up_to = max(self.approved_up_to, until)

    def request(self, calls: Mapping[str, Usage]) -> float | int | None:
        """Let calls go, by their places; or, when a person has to be asked first, what they would reach."""
        with self._lock:
            if self.approved_up_to is not None and (reached := self._reached(calls)) > self.approved_up_to:
                return reached
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

    def _reached(self, calls: Mapping[str, Usage]) -> float | int:
        all_of_it = total_usage([self._ledger.committed, *self._promised.values(), *calls.values()])
        if isinstance(self.above, int):
            return all_of_it.calls
        return float("inf") if all_of_it.cost is None else all_of_it.cost
