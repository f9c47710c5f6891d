"""What handles one kind of call that code in the REPL makes of the host. The table of them: `calls/table.py`."""

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
    """A call, and what is at hand where it is handled."""

    components: Components
    tree: RunTree
    asked: NumberedCall
    context: ContextRef | None = None
    """What the run is about, for a kind that `needs_context`."""


class CallHandler(Protocol):
    """Handles one kind of call: what defines it in the REPL, what it may cost, how it is answered.

    Every method has a default, for a kind that defines nothing, costs nothing, and shares its task with others.
    """

    needs_context: ClassVar[bool] = False
    """Whether `answer` needs the context of the run that asks."""

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines functions of this kind in the REPL of the run at `path`."""
        return ""

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return what the root model reads of them."""
        return ""

    def free_reply(self, site: CallSite, journal: Journal) -> Reply | None:
        """Return the reply, if it costs nothing and needs no task; None when the call has to be sent."""
        return None

    def reservation(self, site: CallSite) -> Usage:
        """Return what the call may use at most, for a person to approve."""
        return Usage()

    def own_task(self, site: CallSite, tree: TreeInfo) -> dict[str, Any] | None:
        """Return what a task for this call alone carries; None for a call that shares its task with others."""
        return None

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Return the reply. What goes wrong with the call is a value; a fault of the host raises an `RLMError`."""
        return unhandled(site)

    def model(self, site: CallSite) -> str:
        """Return the name of the model that answers; empty when none does."""
        return ""


def unhandled(site: CallSite) -> CallResult:
    """Return the reply to a call that nothing here can answer."""
    return CallResult(None, f"there is nothing here that answers {site.asked.call.kind!r}")
