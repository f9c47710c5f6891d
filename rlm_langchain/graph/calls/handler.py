"""The protocol of a call handler: it handles one kind of call from the REPL to the host. See `calls/table.py`."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

from langchain_core.runnables import RunnableConfig

from rlm_langchain.graph.components import Components
from rlm_langchain.graph.state import TreeInfo
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.journal import Journal
from rlm_langchain.trajectory.recorder import NumberedCall
from rlm_langchain.types import CallResult, ContextRef, Reply, Usage


class CallSite(NamedTuple):
    """A call, with the components and the run tree to answer it with."""

    components: Components
    tree: RunTree
    asked: NumberedCall
    context: ContextRef | None = None
    """The context of the calling run, for a handler that `needs_context`."""


class CallHandler(Protocol):
    """Handles one kind of call: defines its functions in the REPL, estimates its cost, answers it.

    Every method has a default, for a kind that defines no function, costs nothing, and shares its task with other
    calls.
    """

    needs_context: ClassVar[bool] = False
    """Whether `answer` needs the context of the calling run."""

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines functions of this kind in the REPL of the run at `path`."""
        return ""

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return the part of the root model's prompt that describes these functions."""
        return ""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return the reply if it is free and needs no task of the graph, else None."""
        return None

    def reservation(self, site: CallSite) -> Usage:
        """Return the most that the call may use, for a person to approve."""
        return Usage()

    def own_task(self, site: CallSite, tree: TreeInfo) -> dict[str, Any] | None:
        """Return the payload of a task for this call alone. None for a call that shares its task with others."""
        return None

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Return the result. An error of the call is part of the result; a fault of the host raises an
        `RLMError`."""
        return unhandled(site)

    def model(self, site: CallSite) -> str:
        """Return the name of the model that answers, or an empty text."""
        return ""


def unhandled(site: CallSite) -> CallResult:
    """Return the result of a call whose kind has no handler."""
    return CallResult(None, f"there is nothing here that answers {site.asked.call.kind!r}")
