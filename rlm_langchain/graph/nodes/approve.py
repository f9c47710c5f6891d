"""The node `approve`: asks a person before a batch of calls that would exceed the approved spending.

It is a separate node because LangGraph reruns an interrupted node from its start, and this one does nothing before
the interrupt.
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
from rlm_langchain.graph.boundary import ACCEPTED_ANSWERS, CHECKPOINTER_KEY
from rlm_langchain.graph.calls.handler import CallSite
from rlm_langchain.graph.calls.table import handler_of
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.state import Approval
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.trajectory.recorder import NumberedCall, Recorder
from rlm_langchain.types import Call, Usage, total_usage

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState


QUERY_CHARS = 2_000
"""Maximum characters of the run's question in the interrupt, and of the reason in a record."""
CALL_CHARS = 200
"""Maximum characters of a call's prompt in the interrupt, and of an invalid answer in an error message."""
MAX_CALLS_SHOWN = 10
"""Maximum number of calls that the interrupt describes."""


def approval_needed(
    components: Components, state: RLMState, tree: RunTree, calls: Sequence[NumberedCall]
) -> Approval | None:
    """Return the approval that a person must give before these calls are made, or None if none is needed."""
    reserved = {
        call.call_path: handler_of(call.call.kind).reservation(CallSite(components, tree, call)) for call in calls
    }
    paid = {path: usage for path, usage in reserved.items() if usage != Usage()}
    first = min((call.number for call in calls), default=-1)
    asked, limit = state.get("approval"), tree.approval_limit
    if asked and asked["granted"] and asked["first"] == first:
        limit.reserve(paid)
        return None
    until = limit.request(paid) if paid else None
    if until is None:
        return None
    spent = tree.ledger.spent
    return Approval(
        first=first,
        calls=len(paid),
        about=[_describe_call(call.call) for call in calls if call.call_path in paid][:MAX_CALLS_SHOWN],
        estimated_usd=total_usage(paid.values()).cost,
        spent_calls=spent.calls,
        spent_usd=spent.cost,
        until=until,
        granted=None,
    )


def restore_approvals(state: RLMState, tree: RunTree) -> None:
    """Restore the approved spending from the state, and release the reservations of the run's last batch."""
    asked = state.get("approval")
    if asked and asked["granted"]:
        tree.approval_limit.raise_to(asked["until"])
    tree.approval_limit.forget_run(state["path"])


def ask_person(state: RLMState) -> dict[str, Any]:
    """Interrupt the graph until a person answers, and record the answer."""
    asked = state.get("approval")
    if asked is None:
        raise JournalError(
            "the run waits for an approval that it never requested; go back to an earlier turn with `rlm fork`"
        )
    answer = _wait_for_answer(
        {
            "ask": "approve",
            "question": question_text(asked, state["path"]),
            "query": clip(cast(str, state["query"]), QUERY_CHARS),
            "path": state["path"],
            **asked,
        }
    )
    granted, reason = is_approval(answer), _reason_given(answer)
    recorder = Recorder()
    word = "approved" if granted else "declined"
    because = f": {reason}" if reason else ""
    recorder.note(state["path"], "reader", f"a person {word} {asked['calls']} calls{because}")
    return {**recorder.written(), "approval": Approval(**{**asked, "granted": granted})}


def check_saver(components: Components, config: RunnableConfig) -> None:
    """Raise `ConfigurationError` if approvals are enabled without a checkpointer to store the paused run."""
    if components.budget.asks_person and config.get("configurable", {}).get(CHECKPOINTER_KEY) is None:
        raise ConfigurationError(
            "approve_above_calls and approve_above_usd pause a run, which needs a checkpointer and a thread: "
            "create_rlm(..., checkpointer=InMemorySaver()) and config={'configurable': {'thread_id': ...}}"
        )


def questions(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the approval requests of a paused run, or an empty list if it is not paused.

    There are several if several runs of the tree ask at once. Each is an `Approval` with the `id` of
    its interrupt, the `path` and `query` of its run, and the `question` as text.
    """
    asked = [{"id": one.id, **one.value} for one in output.get("__interrupt__", ()) if isinstance(one.value, dict)]
    return [one for one in asked if one.get("ask") == "approve"]


def answered(output: Mapping[str, Any], answer: Callable[[dict[str, Any]], Any]) -> Command[Any]:
    """Return the command that resumes a paused thread. `answer` is called with each of the `questions`.

    Raises `InvalidApproval` if `answer` returns neither a yes nor a no.
    """
    answers = {one["id"]: answer(one) for one in questions(output)}
    for one in answers.values():
        is_approval(one)
    return Command(resume=answers)


def is_approval(answer: Any) -> bool:
    """Return whether an answer approves. Raises `InvalidApproval` if it is neither a yes nor a no.

    Accepted: True, False, `{"approve": ...}` and `{"decisions": [...]}`; see `ACCEPTED_ANSWERS`.
    """
    match answer:
        case bool():
            return answer
        case {"approve": bool(granted)} if len(answer) == 1:
            return granted
        case {"decisions": [_, *_] as decisions} if len(answer) == 1:
            kinds = {_decision(one) for one in decisions}
            if len(kinds) == 1 and None not in kinds:
                return kinds == {"approve"}
    raise InvalidApproval(
        f"an approval cannot be answered with {clip(repr(answer), CALL_CHARS)}; {ACCEPTED_ANSWERS}"
    )


def _wait_for_answer(asked: dict[str, Any]) -> Any:
    """Interrupt, and return a valid answer. Raises `InvalidApproval` for anything else.

    LangGraph stores an invalid answer and returns it again when the run is resumed, before the next answer.
    """
    answer = interrupt(asked)
    while True:
        try:
            is_approval(answer)
        except InvalidApproval:
            with suppress(GraphInterrupt):  # there is no other answer yet
                answer = interrupt(asked)
                continue
            raise
        return answer


def _describe_call(call: Call) -> dict[str, str]:
    """Return a description of a call for a person: its prompt, or the function's name and arguments."""
    if call.kind == "function":
        with suppress(ValueError, TypeError, RecursionError):
            name, *arguments = json.loads(call.prompt)
            return {
                "kind": call.kind,
                "name": clip(str(name), CALL_CHARS),
                "arguments": clip(json.dumps(arguments), CALL_CHARS),
            }
    return {"kind": call.kind, "prompt": clip(call.prompt, CALL_CHARS)}


def _decision(value: Any) -> str | None:
    """Return "approve" or "reject" for a decision in LangChain's format, None for any other value."""
    match value:
        case {"type": "approve" | "reject" as kind} if value.keys() <= {"type", "message"}:
            return str(kind)
    return None


def _reason_given(answer: Any) -> str:
    """Return the messages of decisions in LangChain's format, for the records."""
    decisions = answer.get("decisions", ()) if isinstance(answer, dict) else ()
    return clip("; ".join(str(one["message"]) for one in decisions if one.get("message")), QUERY_CHARS)


def question_text(asked: Approval, path: str) -> str:
    """Format the question to the person."""
    calls = "1 sub-call is" if asked["calls"] == 1 else f"{asked['calls']:,} sub-calls are"
    where = f" (by the child run {path})" if path else ""
    cost, spent = asked["estimated_usd"], asked["spent_usd"]
    price = "an unknown price" if cost is None else f"{_dollars(cost)} at most"
    made = "was 1 model call" if asked["spent_calls"] == 1 else f"were {asked['spent_calls']:,} model calls"
    paid = "" if spent is None else f", {_dollars(spent)}"
    return f"{calls} about to be made{where}, for {price}; so far there {made}{paid}. Continue?"


def _dollars(usd: float) -> str:
    return f"${usd:,.4f}"
