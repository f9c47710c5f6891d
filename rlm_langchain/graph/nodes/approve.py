"""`approve`: a person is asked before a fan-out that costs more than was agreed.

A node of its own, since LangGraph runs an interrupted node again from its top: here nothing has been done yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphInterrupt
from langgraph.types import Command, interrupt

from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.context.sanitize import clip
from rlm_langchain.errors import ConfigurationError, InvalidApproval, JournalError
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


ANSWERS = (
    'resume with True or False, {"approve": True} or {"approve": False}, or, as LangChain writes decisions, '
    '{"decisions": [{"type": "approve"}]} or {"decisions": [{"type": "reject"}]}'
)
"""What an approval may be answered with."""
QUERY = 2_000
"""Characters of the run's question that the pause shows. That of a child run may be of any length."""
SHOWN = 200
"""Characters of an answer that cannot be used, in the error."""


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
    until = agreement.request(wanted) if wanted else None
    if until is None:
        return None
    spent = tree.ledger.spent
    return Approval(
        first=first,
        calls=len(wanted),
        estimated_usd=total_usage(wanted.values()).cost,
        spent_calls=spent.calls,
        spent_usd=spent.cost,
        until=until,
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
    said = _answer_to(
        {
            "ask": "approve",
            "question": question(asked, state["path"]),
            "query": clip(state["query"], QUERY),
            "path": state["path"],
            **asked,
        }
    )
    granted, reason = is_approval(said), _reason(said)
    recorder = Recorder()
    word = "approved" if granted else "declined"
    recorder.record(
        NoteRecord(
            type="note",
            path=state["path"],
            to="reader",
            text=f"a person {word} {asked['calls']} calls{f': {reason}' if reason else ''}",
            time=time.time(),
        )
    )
    return {"trajectory": recorder.records, "approval": Approval(**{**asked, "granted": granted})}


def check_saver(components: Components, config: RunnableConfig) -> None:
    """Raise `ConfigurationError` when a person is to be asked, and nothing could keep the run meanwhile."""
    if components.budget.asks_person and config.get("configurable", {}).get(SAVER) is None:
        raise ConfigurationError(
            "approve_above_calls and approve_above_usd pause a run, which needs a checkpointer to be kept in and a "
            "thread to be found by: "
            "create_rlm(..., checkpointer=InMemorySaver()) and config={'configurable': {'thread_id': ...}}"
        )


def questions(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a run that has paused asks, of one run or of several that ask at once: `Approval`s, each with its
    `id`, the `path` and `query` of its run, and the `question` to a person. Empty when the run has ended."""
    asked = [{"id": one.id, **one.value} for one in output.get("__interrupt__", ()) if isinstance(one.value, dict)]
    return [one for one in asked if one.get("ask") == "approve"]


def answered(output: Mapping[str, Any], answer: Callable[[dict[str, Any]], Any]) -> Command[Any]:
    """Return what to invoke the same thread with: `answer` says yes or no to each of the `questions`.

    Raises `InvalidApproval` for what is neither.
    """
    return Command(resume={one["id"]: is_approval(answer(one)) for one in questions(output)})


def is_approval(answer: Any) -> bool:
    """Return whether a person has said yes. Raises `InvalidApproval` for what is neither a yes nor a no."""
    match answer:
        case bool():
            return answer
        case {"approve": bool(granted)} if len(answer) == 1:
            return granted
        case {"decisions": [_, *_] as decisions} if len(answer) == 1:
            said = {_decision(one) for one in decisions}
            if len(said) == 1 and None not in said:
                return said == {"approve"}
    raise InvalidApproval(f"an approval cannot be answered with {clip(repr(answer), SHOWN)}; {ANSWERS}")


def _answer_to(asked: dict[str, Any]) -> Any:
    """Return what a person says: a yes or a no. Raises `InvalidApproval` for anything else.

    LangGraph keeps such an answer, and gives it again when the run is resumed: the next one is after it.
    """
    said = interrupt(asked)
    while True:
        try:
            is_approval(said)
        except InvalidApproval:
            with suppress(GraphInterrupt):  # there is no other answer yet
                said = interrupt(asked)
                continue
            raise
        return said


def _decision(given: Any) -> str | None:
    """Return "approve" or "reject" for a decision in LangChain's format; None for any other."""
    match given:
        case {"type": "approve" | "reject" as kind} if given.keys() <= {"type", "message"}:
            return str(kind)
    return None


def _reason(said: Any) -> str:
    """Return the words that come with decisions in LangChain's format, for the reader of the records."""
    decisions = said.get("decisions", ()) if isinstance(said, dict) else ()
    return clip("; ".join(str(one["message"]) for one in decisions if one.get("message")), QUERY)


def question(asked: Approval, path: str) -> str:
    """Return what a person has to decide, in words."""
    calls = "1 sub-call is" if asked["calls"] == 1 else f"{asked['calls']:,} sub-calls are"
    where = f" (by the child run {path})" if path else ""
    cost, spent = asked["estimated_usd"], asked["spent_usd"]
    price = "a price that is not known" if cost is None else f"{_dollars(cost)} at most"
    paid = "" if spent is None else f", {_dollars(spent)}"
    return (
        f"{calls} about to be made{where}, for {price}; "
        f"so far there were {asked['spent_calls']:,} model calls{paid}. Go on?"
    )


def _dollars(usd: float) -> str:
    return f"${usd:,.4f}"


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
