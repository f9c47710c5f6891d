"""`approve`: a person is asked before a fan-out that costs more than was agreed.

A node of its own, since LangGraph runs an interrupted node again from its top: here nothing has been done yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, interrupt

from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.errors import ConfigurationError, JournalError
from rlm_langchain.graph.boundary import SAVER
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.state import Approval
from rlm_langchain.records import NoteRecord, child_path, depth_of
from rlm_langchain.run.reservation import reservation_for
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.recorder import Recorder
from rlm_langchain.types import (
    Call,
    Excerpt,
    Usage,
    total_usage,
)

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState


def approval_needed(
    components: Components, state: RLMState, tree: RunTree, calls: Mapping[int, Call]
) -> Approval | None:
    """The question that these calls, by their numbers, need answered first; None when they may go."""
    wanted = {
        child_path(state["path"], n): _wanted(components, tree, state["path"], call) for n, call in calls.items()
    }
    wanted = {place: usage for place, usage in wanted.items() if usage.calls}  # tools spend no model call
    first, asked, agreement = min(calls, default=-1), state.get("approval"), tree.agreement
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
    """What was agreed to before, in this process or an earlier one. The calls of the last fan-out are over."""
    tree.agreement.raise_to(state.get("agreed"))
    asked = state.get("approval")
    if asked and asked["granted"]:
        tree.agreement.raise_to(asked["until"])
    tree.agreement.forget_run(state["path"])


def ask_person(state: RLMState) -> dict[str, Any]:
    """Ask, wait for as long as it takes, and note the answer."""
    asked = state.get("approval")
    if asked is None:
        raise JournalError("a run waits for an approval that it never asked for; go back with `rlm fork`")
    said = interrupt({"ask": "approve", "path": state["path"], **asked})
    granted = said is True or (isinstance(said, dict) and said.get("approve") is True)
    recorder = Recorder()
    word = "approved" if granted else "declined"
    recorder.record(
        NoteRecord(
            type="note",
            path=state["path"],
            to="reader",
            text=f"a person {word} {asked['calls']} calls",
            time=time.time(),
        )
    )
    return {"trajectory": recorder.records, "approval": Approval(**{**asked, "granted": granted})}


def check_saver(components: Components, config: RunnableConfig) -> None:
    """Raise `ConfigurationError` when a person is to be asked, and nothing could keep the run meanwhile."""
    if components.budget.approve_above is not None and config.get("configurable", {}).get(SAVER) is None:
        raise ConfigurationError(
            "approve_above pauses a run, which needs a checkpointer to be kept in and a thread to be found by: "
            "create_rlm(..., checkpointer=InMemorySaver()) and config={'configurable': {'thread_id': ...}}"
        )


def questions(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run that has paused wants to know, of one run or of several that ask at once: `Approval`s, with the
    `id` and the `path` of each. Empty when the run has ended."""
    asked = [{"id": one.id, **one.value} for one in output.get("__interrupt__", ()) if isinstance(one.value, dict)]
    return [one for one in asked if one.get("ask") == "approve"]


def answered(output: Mapping[str, Any], answer: Callable[[dict[str, Any]], bool]) -> Command[Any]:
    """What to invoke the same thread with: `answer` says yes or no to each of the `questions`."""
    return Command(resume={one["id"]: bool(answer(one)) for one in questions(output)})


def _wanted(components: Components, tree: RunTree, path: str, call: Call) -> Usage:
    """What a call may use. A child run is known by its first turn only: its own fan-outs ask for themselves."""
    if call.kind not in ("llm", "rlm"):
        return Usage()
    model = components.sub_model(depth_of(path))
    return reservation_for(tree.ledger, model, [HumanMessage(_said(components, call))])


def _said(components: Components, call: Call) -> str:
    """What a model may read of a call. A piece that is longer than any prompt is for a child run, or for nobody."""
    context = call.context
    if context is None or (isinstance(context, Excerpt) and context.stop - context.start > components.limits.value):
        return call.prompt
    return call.prompt + to_prompt_text(context)
