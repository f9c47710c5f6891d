"""Handlers of calls that cost nothing. The node `execute` answers them at once, without a task of the graph."""

from __future__ import annotations

from rlm_langchain.durability.receipts import recorded_value
from rlm_langchain.graph.calls.handler import CallHandler, CallSite
from rlm_langchain.records import depth_of
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.types import Plain, Reply


class BudgetHandler(CallHandler):
    """Handles `budget()`. The reply differs each time, so a receipt keeps it for a replay."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return what is left of the budget."""
        key = f"{site.numbered.call_path} budget"
        return Reply(recorded_value(site.tree.receipts, key, lambda: _remaining(site, journal)))


class HistoryHandler(CallHandler):
    """Handles the call for the history of a run, which a summary has replaced in the prompt."""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return all turns and outputs so far, as text."""
        return Reply(journal.history())


def _remaining(site: CallSite, journal: Journal) -> Plain:
    components, path = site.components, site.numbered.path
    turns = max(0, components.max_iterations(path) - journal.iterations)
    levels = components.budget.depth - 1 - depth_of(path)
    return {**site.tree.ledger.remaining(), "iterations": turns, "depth": levels}
