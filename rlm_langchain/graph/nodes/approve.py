"""`approve`: asks a person before a fan-out that costs more than was agreed.

A node of its own, since LangGraph runs an interrupted node again from its top: here nothing has been done yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphInterrupt
from langgraph.types import Command, interrupt

from rlm_langchain.context.sanitize import clip
from rlm_langchain.errors import ConfigurationError, InvalidApproval, JournalError
from rlm_langchain.graph.boundary import ANSWERS, SAVER
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.table import handler_of
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.state import Approval
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.recorder import NumberedCall, Recorder
from rlm_langchain.types import Call, Usage, total_usage

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState


QUERY = 2_000
"""Characters of the run's question that the pause shows."""
SHOWN = 200
"""Characters of an answer that cannot be used, in the error, and of a call that is asked about."""
NAMED = 10
"""Calls of a fan-out that the pause shows."""


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
    until = agreement.request(wanted) if wanted else None
    if until is None:
        return None
    spent = tree.ledger.spent
    return Approval(
        first=first,
        calls=len(wanted),
        about=[_about(call.call) for call in calls if call.place in wanted][:NAMED],
        estimated_usd=total_usage(wanted.values()).cost,
        spent_calls=spent.calls,
        spent_usd=spent.cost,
        until=until,
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
    said = _answer_to(
        {
            "ask": "approve",
            "question": question(asked, state["path"]),
            "query": clip(cast(str, state["query"]), QUERY),
            "path": state["path"],
            **asked,
        }
    )
    granted, reason = is_approval(said), _reason(said)
    recorder = Recorder()
    word = "approved" if granted else "declined"
    because = f": {reason}" if reason else ""
    recorder.note(state["path"], "reader", f"a person {word} {asked['calls']} calls{because}")
    return {**recorder.written(), "approval": Approval(**{**asked, "granted": granted})}


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
    answers = {one["id"]: answer(one) for one in questions(output)}
    for given in answers.values():
        is_approval(given)
    return Command(resume=answers)


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


def _about(call: Call) -> dict[str, str]:
    """Return what a person may know of a call: what is asked, or of which function, with what."""
    if call.kind == "function":
        with suppress(ValueError, TypeError, RecursionError):
            name, *given = json.loads(call.prompt)
            return {"kind": call.kind, "name": clip(str(name), SHOWN), "arguments": clip(json.dumps(given), SHOWN)}
    return {"kind": call.kind, "prompt": clip(call.prompt, SHOWN)}


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
    made = "was 1 model call" if asked["spent_calls"] == 1 else f"were {asked['spent_calls']:,} model calls"
    paid = "" if spent is None else f", {_dollars(spent)}"
    return f"{calls} about to be made{where}, for {price}; so far there {made}{paid}. Go on?"


def _dollars(usd: float) -> str:
    return f"${usd:,.4f}"
