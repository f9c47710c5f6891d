"""Calls that cost nothing: answered where the cell waits, without a task of the graph."""

from __future__ import annotations

from rlm_langchain.durability.receipts import recorded_value
from rlm_langchain.graph.calls.handler import CallHandler, CallSite
from rlm_langchain.records import depth_of
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.types import Plain, Reply


class BudgetHandler(CallHandler):
    """Handles `budget()`: what is left. It differs each time, so a receipt keeps it like a model's reply."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return what is left of the budget, as code sees it."""
        key = f"{site.asked.call_path} budget"
        return Reply(recorded_value(site.tree.receipts, key, lambda: _left(site, journal)))


class HistoryHandler(CallHandler):
    """Handles the call for the history of a run, which a summary has taken the place of."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return all that was written and shown so far."""
        return Reply(journal.history())


def _left(site: CallSite, journal: Journal) -> Plain:
    components, depth = site.components, depth_of(site.asked.path)
    turns = max(0, components.max_iterations(depth) - journal.iterations)
    levels = components.budget.depth - 1 - depth
    return {**site.tree.ledger.remaining(), "iterations": turns, "depth": levels}
