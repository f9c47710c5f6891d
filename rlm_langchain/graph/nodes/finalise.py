"""`finalise`: closes a run with its answer, its status and what it has read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import TypedDict

from rlm_langchain.answers.citations import cite
from rlm_langchain.answers.coverage import ReadRanges, read_in_records
from rlm_langchain.answers.words import problem_in_words
from rlm_langchain.budget.limits import STOPS
from rlm_langchain.context.long_text import value_fields
from rlm_langchain.context.sanitize import fenced
from rlm_langchain.errors import JournalError
from rlm_langchain.graph.components import Components
from rlm_langchain.records import (
    AnswerRecord,
    Citation,
    Coverage,
    depth_of,
)
from rlm_langchain.trajectory.degradation import empty_searches, is_blank, limit_of, shortfalls
from rlm_langchain.trajectory.journal import DAMAGED, Journal
from rlm_langchain.trajectory.messages import prompt_of, whole_text
from rlm_langchain.trajectory.recorder import Recorder
from rlm_langchain.types import ContextRef, Shortfall, Status, StopReason

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState


class Evidence(TypedDict, total=False):
    """What the output of a run has besides: with citations, and with a context."""

    citations: list[Citation]
    dropped_citations: int
    coverage: Coverage


class _End(NamedTuple):
    """How a run has ended."""

    status: Status
    stop_reason: StopReason
    degraded: dict[Shortfall, int]


def finalise_run(components: Components, state: RLMState) -> dict[str, Any]:
    """The run's output, and the end of what was alive for it."""
    journal = Journal(state["trajectory"])
    if not journal.confirms_answer(state.get("answer")):
        raise JournalError(DAMAGED)
    ref = None if journal.answered is None else journal.answered.get("value_ref")
    given = state.get("answer") if ref is None else components.store.load(ref)
    recorder, (answer, evidence) = Recorder(), _cited(components, state, journal, given)
    end = _end(components, state, journal, answer, evidence)
    failed = end.status == "failed"
    answer = None if failed else answer
    read, coverage = _read(components, state, journal)
    if coverage is not None:
        evidence["coverage"] = coverage
    shown = value_fields(components.store, answer) if state["path"] else {"value": answer}
    answer = shown["value"]
    recorder.record(_answered(state["path"], answer, shown.get("value_ref"), end, evidence, read))
    if not state["path"]:
        components.trees.end(state["run"])
    root, sub = journal.usage
    return {
        **recorder.written(),
        "answer": answer,
        "status": end.status,
        "stop_reason": end.stop_reason,
        "usage": {"root": root.record(), "sub": sub.record()},
        "cost_usd": root.plus(sub).cost,
        "iterations": journal.iterations,
        "sub_calls": sub.calls,
        "degraded": end.degraded,
        "found": ("\n".join(map(fenced, journal.last_outputs)) or None) if failed else None,
        "misfit": _misfit(components, state) if failed else None,
        # The next question on this thread is a run of its own, with receipts of its own.
        "run": None,
        **evidence,
    }


def _misfit(components: Components, state: RLMState) -> str | None:
    """Why the last answer of a run with a schema was none."""
    schema = components.answer_schema(state["path"])
    if schema is None:
        return None
    for record in reversed(state["trajectory"]):
        if record["type"] == "question":
            return None
        if record["type"] == "output" and "misfit" in record:
            return str(record["misfit"])
        if record["type"] == "turn" and not record["cells"] and record["text"].strip():
            return problem_in_words(record["text"], schema)
    return None


def _answered(
    path: str, answer: Any, ref: ContextRef | None, end: _End, evidence: Evidence, read: ReadRanges
) -> AnswerRecord:
    """The record of the answer, and the reference to a long one."""
    record = AnswerRecord(
        type="answer",
        path=path,
        answer=answer,
        status=end.status,
        stop_reason=end.stop_reason,
        time=time.time(),
    )
    if ref is not None:
        record["answer_ref"] = ref
    if end.degraded:
        record["degraded"] = end.degraded
    if "citations" in evidence:
        record["citations"] = evidence["citations"]
    if read:
        record["read"] = read
    if "coverage" in evidence:
        record["coverage"] = evidence["coverage"]
    return record


def _end(components: Components, state: RLMState, journal: Journal, answer: Any, evidence: Evidence) -> _End:
    """How a run with this answer has ended, and what the answer lacks."""
    calls = journal.calls_since_question
    degraded, limit = shortfalls(calls), limit_of(calls)
    if (flaw := journal.flaw_of_answer) and answer is not None:
        degraded[flaw] = degraded.get(flaw, 0) + 1
    missing: StopReason | None = limit or ("degraded" if degraded else None)
    typed = bool(components.answer_schema(state["path"]))
    status, reason = _verdict(_reason(state, journal), answer, missing, typed=typed)
    # With these the answer itself may be whole.
    told: dict[Shortfall, int] = {
        "empty_context": int(journal.has_empty_context),
        "found_nothing": empty_searches(calls),
        "dropped_citations": evidence.get("dropped_citations", 0),
        "no_citations": int(status != "failed" and _lacks_evidence(journal, evidence)),
    }
    degraded.update((kind, count) for kind, count in told.items() if count)
    return _End(status, reason, degraded)


def _lacks_evidence(journal: Journal, evidence: Evidence) -> bool:
    """Whether an answer that was to be quoted came without a quote. Those that were dropped are counted apart."""
    return (
        "citations" in evidence
        and not evidence["citations"]
        and not evidence.get("dropped_citations")
        and journal.can_be_quoted
    )


def _reason(state: RLMState, journal: Journal) -> StopReason:
    """Why the run ended. A limit that let the last turn give an answer did not end it."""
    reason: StopReason = state.get("stop_reason") or "answer"
    if reason not in STOPS or reason == "seconds":  # time that is over has cut something short
        return reason
    if journal.answered:
        return "answer"
    return "prose" if journal.answered_at_once else reason


def _cited(components: Components, state: RLMState, journal: Journal, answer: Any) -> tuple[Any, Evidence]:
    """The answer without its quotes, and those of them that were found, where they are wanted."""
    if not components.wants_citations(state["path"]):
        return answer, Evidence()
    answer, citations, unfound = cite(components.store, journal.contexts, answer)
    return answer, Evidence(citations=citations, dropped_citations=len(unfound))


def _read(components: Components, state: RLMState, journal: Journal) -> tuple[ReadRanges, Coverage | None]:
    """What the root model of this run was shown of the contexts; and of the top run, what the tree has read."""
    reading = components.coverage_tracker(components.trees.get(state["run"], components.budget), state, journal)
    if not reading.contexts:
        return [], None
    records, read = state["trajectory"], ReadRanges()
    profile = components.root_model(depth_of(state["path"])).profile
    for record in records:
        if record["type"] == "output":
            read += reading.find_read(record["text"])
        if record["type"] == "question":
            read += reading.find_read(prompt_of(components.store, record))
        if record["type"] == "question" and record.get("whole"):
            read += reading.whole_context(record["context"]) or reading.find_read(
                whole_text(components.store, record, profile)
            )
    return read, None if state["path"] else reading.coverage([*read, *read_in_records(records)])


def _verdict(
    reason: StopReason, answer: Any, missing: StopReason | None, *, typed: bool
) -> tuple[Status, StopReason]:
    """How the run ended, and why. An answer that is nothing is none, unless its type allows that.

    `missing`: why the answer lacks something that it was to be made of.
    """
    given = reason in ("answer", "prose")
    if is_blank(answer) and not (typed and given):
        return "failed", "no_answer" if given else reason
    if not given:
        return "partial", reason
    return ("partial", missing) if missing else ("complete", reason)
