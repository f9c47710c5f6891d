"""`approve`: a person is asked before a fan-out that costs more than was agreed.

A node of its own, since LangGraph runs an interrupted node again from its top: here nothing has been done yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langgraph.types import interrupt
from typing_extensions import TypedDict

from rlm_langchain.errors import JournalError
from rlm_langchain.ledger import Ledger
from rlm_langchain.machine import Machine
from rlm_langchain.scribe import Scribe, depth_of
from rlm_langchain.types import Call, NoteRecord, Usage

if TYPE_CHECKING:
    from rlm_langchain.graph import RLMState


class Approval(TypedDict):
    """A question to a person, and the answer. The run resumes with `Command(resume=True)`, or False."""

    first: int
    """The number of the first call of the fan-out."""
    calls: int
    estimated_usd: float | None
    """At most, for this fan-out; None when the price is unknown."""
    spent_calls: int
    spent_usd: float | None
    until: float | int
    """What the run may reach without asking again, once this is granted."""
    granted: bool | None
    """None: not answered yet."""


def approval(
    machine: Machine, state: RLMState, ledger: Ledger, first: int, calls: Sequence[Call]
) -> Approval | None:
    """The question that these calls need answered first; None when they may go."""
    above = machine.budget.approve_above
    if above is None:
        return None
    asked = state.get("approval")
    if asked and asked["granted"] and asked["first"] == first:
        return None
    agreed = asked["until"] if asked and asked["granted"] else above
    wanted = _wanted(machine, state["path"], calls)
    if not wanted.calls:
        return None  # tools and searches spend no model call
    after = ledger.spent.plus(wanted)
    reached = after.calls if isinstance(above, int) else after.cost
    if reached is not None and reached <= agreed:
        return None
    return Approval(
        first=first,
        calls=len(calls),
        estimated_usd=wanted.cost,
        spent_calls=ledger.spent.calls,
        spent_usd=ledger.spent.cost,
        until=(reached or 0) + above,
        granted=None,
    )


def decide(state: RLMState) -> dict[str, Any]:
    """Ask, wait for as long as it takes, and note the answer."""
    asked = state.get("approval")
    if asked is None:
        raise JournalError("a run waits for an approval that it never asked for; go back with `rlm fork`")
    said = interrupt({"ask": "approve", "path": state["path"], **asked})
    granted = said is True or (isinstance(said, dict) and said.get("approve") is True)
    scribe = Scribe()
    word = "approved" if granted else "declined"
    scribe.write(
        NoteRecord(
            type="note",
            path=state["path"],
            to="reader",
            text=f"a person {word} {asked['calls']} calls",
            time=time.time(),
        )
    )
    return {"trajectory": scribe.records, "approval": Approval(**{**asked, "granted": granted})}


def _wanted(machine: Machine, path: str, calls: Sequence[Call]) -> Usage:
    model, total = machine.leaf_at(depth_of(path)), Usage()
    for call in (call for call in calls if call.kind in ("llm", "rlm")):
        total = total.plus(machine.estimate(model, [HumanMessage(f"{call.prompt}{call.context or ''}")]))
    return total
