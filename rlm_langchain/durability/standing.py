"""The state of a thread, according to its last checkpoint and what its tasks have written since.

LangGraph's `StateSnapshot.next` is not enough: it is empty at the end of a run, but also between the last write of
a step and the next checkpoint. The tasks of the step are still there.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from rlm_langchain.errors import JournalError
from rlm_langchain.trajectory.journal import check_state
from rlm_langchain.types import Status

ThreadState = Status | Literal["new", "stopped", "waiting", "broken"]


class Standing(NamedTuple):
    """The state of a thread."""

    state: ThreadState
    """`complete`, `partial` or `failed`: the status of its last answer. `new`: there was no question yet.
    `waiting`: for a person. `stopped`: it can be resumed. `broken`: its data in the checkpointer is damaged."""
    is_saved: bool = True
    """Whether its last checkpoint says so. If not, the run ended before it could write that checkpoint."""

    @property
    def is_open(self) -> bool:
        """Return whether there is an unanswered question."""
        return self.state in ("stopped", "waiting")

    @property
    def has_ended(self) -> bool:
        """Return whether the last question was answered, or abandoned without an answer."""
        return self.state in ("complete", "partial", "failed")


NEW = Standing("new")


def standing_of(snapshot: Any) -> Standing:
    """Return the state of a thread from LangGraph's snapshot."""
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
