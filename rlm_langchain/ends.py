"""`prepare` and `finalise`: how a run begins, and what it gives back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlm_langchain.conversation import shown
from rlm_langchain.errors import InputError, JournalError
from rlm_langchain.journal import DAMAGED, Journal
from rlm_langchain.machine import Machine
from rlm_langchain.prompts import render
from rlm_langchain.scribe import Scribe, depth_of
from rlm_langchain.tools import guidance as tool_guidance
from rlm_langchain.types import AnswerRecord, ContextRef, QuestionRecord, Status

if TYPE_CHECKING:
    from rlm_langchain.graph import RLMState

_ENDED = ("answer", "status", "stop_reason")
"""What the record of an answer holds as well as the state."""


def opening(machine: Machine, state: RLMState) -> dict[str, Any]:
    """Put the question to the run. Raises `InputError` for an empty one."""
    query, path = state.get("query", ""), state.get("path", "")
    if not isinstance(query, str) or not query.strip():
        raise InputError(f"the query is {query!r}; ask a question, as text")
    context = machine.store.reference(state.get("context"))
    scribe = Scribe()
    scribe.write(
        QuestionRecord(
            type="question",
            path=path,
            query=query,
            text=_question(machine, path, query, context),
            time=time.time(),
            context=context,
        )
    )
    return {
        "query": query,
        "context": context,
        "run": state.get("run") or uuid.uuid4().hex,
        "path": path,
        "trajectory": scribe.records,
        "answer": None,
        "stop_reason": None,
    }


def closing(machine: Machine, state: RLMState) -> dict[str, Any]:
    """The run's output, and the end of what was alive for it."""
    journal = Journal(state["trajectory"])
    root, sub = journal.usage
    reason = state.get("stop_reason") or "answer"
    answer = state.get("answer")
    status: Status = "partial"
    if reason in ("answer", "prose"):
        status = "complete"
    elif answer is None:
        status, answer = "failed", _found(journal)
    scribe = Scribe()
    scribe.write(
        AnswerRecord(
            type="answer",
            path=state["path"],
            answer=answer,
            status=status,
            stop_reason=reason,
            time=time.time(),
        )
    )
    if not state["path"]:
        machine.trees.end(state["run"])
    return {
        "trajectory": scribe.records,
        "answer": answer,
        "status": status,
        "stop_reason": reason,
        "usage": {"root": root.record(), "sub": sub.record()},
        "cost_usd": root.plus(sub).cost,
        "iterations": journal.iterations,
        "sub_calls": sub.calls,
    }


def check(values: Mapping[str, Any]) -> None:
    """Raise `JournalError` when the state of a run, as a saver gave it back, is not what was written."""
    journal, records = Journal(values.get("trajectory", [])), values.get("trajectory", [])
    journal.check()
    last = records[-1] if records else None
    if last and last["type"] == "answer" and any(values.get(key) != last[key] for key in _ENDED):
        raise JournalError(DAMAGED)


def _question(machine: Machine, path: str, query: str, context: ContextRef | None) -> str:
    profile = machine.runs_at(depth_of(path)).profile
    about = render(profile, "no_context")
    if context is not None:
        preview = shown(context["preview"], 2_000)
        about = render(profile, "context", about=context["about"], preview=preview)
    guidance = [machine.sandbox.guidance, *(strategy.guidance for strategy in machine.strategies_for(context))]
    guidance.append(tool_guidance(machine.tools_at(path)))
    if machine.search and (context is not None or machine.search.outside is not None):
        guidance.append(machine.search.guidance(profile))
    said = "\n\n".join(text.strip() for text in guidance if text.strip())
    if schema := machine.schema_at(path):
        query = render(profile, "schema", question=query, schema=schema.json)
    return render(profile, "question", guidance=f"{said}\n\n" if said else "", question=query, context=about)


def _found(journal: Journal) -> str | None:
    """What the last cell showed: all that a run without an answer has."""
    outputs = [output for output in journal.outputs.values() if output["chars"]]
    return outputs[-1]["text"] if outputs else None
