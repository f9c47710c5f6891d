"""The handlers of all kinds of calls, by the name of the kind."""

from __future__ import annotations

from rlm_langchain.graph.calls.child_run import ChildRunHandler
from rlm_langchain.graph.calls.free import BudgetHandler, HistoryHandler
from rlm_langchain.graph.calls.functions import FunctionHandler
from rlm_langchain.graph.calls.handler import CallHandler
from rlm_langchain.graph.calls.model_call import ModelCallHandler
from rlm_langchain.graph.calls.search import SearchHandler
from rlm_langchain.graph.calls.tools import ToolHandler
from rlm_langchain.graph.calls.vision_call import VisionCallHandler

HANDLERS: dict[str, CallHandler] = {
    "llm": ModelCallHandler(),
    "vision": VisionCallHandler(),
    "rlm": ChildRunHandler(),
    "tool": ToolHandler(),
    "search": SearchHandler(),
    "function": FunctionHandler(),
    "budget": BudgetHandler(),
    "history": HistoryHandler(),
}
"""Preludes run, guidance is shown, and tasks are sent in this order. What readers of records need to know about a
kind is in `trajectory/call_kinds.py`."""


class _UnknownHandler(CallHandler):
    """Refuses a call of an unknown kind."""


_UNKNOWN = _UnknownHandler()


def handler_of(kind: str) -> CallHandler:
    """Return the handler of a kind of call. Code may name any kind; calls of an unknown one are refused."""
    return HANDLERS.get(kind, _UNKNOWN)
