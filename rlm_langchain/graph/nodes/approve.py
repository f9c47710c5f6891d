"""`approve`: asks a person before a fan-out that costs more than was agreed.

A node of its own, since LangGraph runs an interrupted node again from its top: here nothing has been done yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, interrupt

from rlm_langchain.errors import ConfigurationError, JournalError
from rlm_langchain.graph.boundary import SAVER
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.table import handler_of
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.state import Approval
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.recorder import NumberedCall, Recorder
from rlm_langchain.types import Usage, total_usage

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState


def approval_needed(
    components: Components, state: RLMState, tree: RunTree, calls: Sequence[NumberedCall]
) -> Approval | None:
    """Return the question that these calls need answered first; None when they may go."""
    reserved = {
        call.place: handler_of(call.call.kind).reservation(CallSite(components, tree, call)) for call in calls
    }
    wanted = {place: usage for place, usage in reserved.items() if usage != Usage()}
    first = min((call.number for call in calls), default=-1)
    asked, agreement = state.get("approval"), tree.agreement
    if asked and asked["granted"] and asked["first"] == first:
        agreement.reserve(wanted)
        return None
    reached = agreement.request(wanted) if wanted else None
    if reached is None:
        return None
    spent = tree.ledger.spent
    return Approval(
        first=first,
        calls=len(wanted),
        estimated_usd=total_usage(wanted.values()).cost,
        spent_calls=spent.calls,
        spent_usd=spent.cost,
        until=reached + (agreement.above or 0),
        granted=None,
    )


def restore_approvals(state: RLMState, tree: RunTree) -> None:
    """Take over what was agreed to before, in this process or an earlier one. The last fan-out is over."""
    tree.agreement.raise_to(state.get("agreed"))
    asked = state.get("approval")
    if asked and asked["granted"]:
        tree.agreement.raise_to(asked["until"])
    tree.agreement.forget_run(state["path"])


def ask_person(state: RLMState) -> dict[str, Any]:
    """Ask a person, wait for as long as it takes, and record the answer."""
    asked = state.get("approval")
    if asked is None:
        raise JournalError("a run waits for an approval that it never asked for; go back with `rlm fork`")
    answer = interrupt({"ask": "approve", "path": state["path"], **asked})
    granted = answer is True or (isinstance(answer, dict) and answer.get("approve") is True)
    recorder = Recorder()
    word = "approved" if granted else "declined"
    recorder.note(state["path"], "reader", f"a person {word} {asked['calls']} calls")
    return {"trajectory": recorder.records, "approval": Approval(**{**asked, "granted": granted})}


def check_saver(components: Components, config: RunnableConfig) -> None:
    """Raise `ConfigurationError` when a person is to be asked, and nothing could keep the run meanwhile."""
    if components.budget.approve_above is not None and config.get("configurable", {}).get(SAVER) is None:
        raise ConfigurationError(
            "approve_above pauses a run, which needs a checkpointer to be kept in and a thread to be found by: "
            "create_rlm(..., checkpointer=InMemorySaver()) and config={'configurable': {'thread_id': ...}}"
        )


def questions(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what paused runs want to know, of one run or of several that ask at once: `Approval`s, with the
    `id` and the `path` of each. Empty when the run has ended."""
    asked = [{"id": one.id, **one.value} for one in output.get("__interrupt__", ()) if isinstance(one.value, dict)]
    return [one for one in asked if one.get("ask") == "approve"]


def answered(output: Mapping[str, Any], answer: Callable[[dict[str, Any]], bool]) -> Command[Any]:
    """Return what to invoke the same thread with: `answer` says yes or no to each of the `questions`."""
    return Command(resume={one["id"]: bool(answer(one)) for one in questions(output)})
