"""The handlers of all kinds of calls, by the name of the kind."""

from __future__ import annotations

from rlm_langchain.graph.calls.child_run import ChildRunHandler
from rlm_langchain.graph.calls.free import BudgetHandler, HistoryHandler
from rlm_langchain.graph.calls.functions import FunctionHandler
from rlm_langchain.graph.calls.handler import CallHandler
from rlm_langchain.graph.calls.model_call import ModelCallHandler
from rlm_langchain.graph.calls.search import SearchHandler
from rlm_langchain.graph.calls.tools import ToolHandler

HANDLERS: dict[str, CallHandler] = {
    "llm": ModelCallHandler(),
    "rlm": ChildRunHandler(),
    "tool": ToolHandler(),
    "search": SearchHandler(),
    "function": FunctionHandler(),
    "budget": BudgetHandler(),
    "history": HistoryHandler(),
}
"""In the order in which preludes run, guidance is read, and tasks are sent. Facts for readers of records are beside
the names in `trajectory/call_kinds.py`."""


class _UnknownHandler(CallHandler):
    """Refuses a call of a kind that nothing handles."""


_UNKNOWN = _UnknownHandler()


def handler_of(kind: str) -> CallHandler:
    """Return what handles a kind of call. Code may name any kind: one that nobody handles is refused."""
    return HANDLERS.get(kind, _UNKNOWN)
