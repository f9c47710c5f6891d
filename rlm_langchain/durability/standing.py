"""How a thread stands, by its last checkpoint and what its tasks have written since.

LangGraph's `StateSnapshot.next` alone does not tell it: between the last write of a step and the next checkpoint it
is empty, as it is at the end. The tasks of the step are still there.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from rlm_langchain.errors import JournalError
from rlm_langchain.trajectory.journal import check_state
from rlm_langchain.types import Status

State = Status | Literal["new", "stopped", "waiting", "broken"]


class Standing(NamedTuple):
    """How a thread stands."""

    state: State
    """`complete`, `partial` or `failed`: its last question was answered so. `new`: it was never asked anything.
    `waiting`: for a person. `stopped`: it can be resumed. `broken`: what the saver has of it is damaged."""
    is_saved: bool = True
    """Whether its last checkpoint says so. Otherwise the run ended before it could write that one."""

    @property
    def is_open(self) -> bool:
        """Whether there is a question that was not answered yet."""
        return self.state in ("stopped", "waiting")

    @property
    def has_ended(self) -> bool:
        """Whether the last question was answered, or given up without an answer."""
        return self.state in ("complete", "partial", "failed")


NEW = Standing("new")


def standing_of(snapshot: Any) -> Standing:
    """Return how a thread stands, by LangGraph's snapshot of it."""
    values, tasks = snapshot.values, snapshot.tasks
    try:
        check_state(values)
    except JournalError:
        return Standing("broken")
    records, status = list(values.get("trajectory") or []), values.get("status")
    has_answer = bool(records) and records[-1]["type"] == "answer" and status is not None
    if tasks and (snapshot.next or not has_answer):
        return Standing("waiting" if snapshot.interrupts else "stopped")
    if has_answer:
        return Standing(status, is_saved=not tasks)
    return Standing("broken" if records else "new")
