"""The node `finalise`: closes a run with its answer, its status, its citations and its coverage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import TypedDict

from rlm_langchain.answers.citations import cite
from rlm_langchain.answers.coverage import ReadRanges, recorded_ranges
from rlm_langchain.answers.words import problem_in_words
from rlm_langchain.budget.limits import STOPS
from rlm_langchain.context.long_text import value_fields
from rlm_langchain.context.sanitize import unfence
from rlm_langchain.errors import JournalError
from rlm_langchain.graph.components import Components
from rlm_langchain.records import (
    AnswerRecord,
    Citation,
    Coverage,
)
from rlm_langchain.trajectory.degradation import empty_searches, is_blank, limit_of, shortfalls
from rlm_langchain.trajectory.journal import DAMAGED, Journal
from rlm_langchain.trajectory.messages import prompt_of, whole_text
from rlm_langchain.trajectory.recorder import Recorder
from rlm_langchain.types import ContextRef, Shortfall, Status, StopReason

if TYPE_CHECKING:
    from rlm_langchain.graph.state import RLMState


class Evidence(TypedDict, total=False):
    """Fields of a run's output that depend on its options: on citations, and on a context."""

    citations: list[Citation]
    dropped_citations: int
    coverage: Coverage


class _End(NamedTuple):
    """The status of a run, its stop reason, and what its answer lacks."""

    status: Status
    stop_reason: StopReason
    degraded: dict[Shortfall, int]


def finalise_run(components: Components, state: RLMState) -> dict[str, Any]:
    """Return the output of a run, and release its resources. Raises `JournalError` for a damaged journal."""
    journal = Journal(state["trajectory"])
    if not journal.confirms_answer(state.get("answer")):
        raise JournalError(DAMAGED)
    ref = None if journal.answered is None else journal.answered.get("value_ref")
    quoted = state.get("answer") if ref is None else components.store.load(ref)
    recorder, (answer, evidence) = Recorder(), _take_out_quotes(components, state, journal, quoted)
    end = _end(components, state, journal, answer, evidence)
    failed = end.status == "failed"
    answer = None if failed else answer
    read, coverage = _read_ranges(components, state, journal)
    if coverage is not None:
        evidence["coverage"] = coverage
    shown = value_fields(components.store, answer) if state["path"] else {"value": answer}
    answer = shown["value"]
    recorder.record(_answer_record(state["path"], answer, shown.get("value_ref"), end, evidence, read))
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
        "found": ("\n".join(map(unfence, journal.last_outputs)) or None) if failed else None,
        "misfit": _schema_problem(components, state) if failed else None,
        # The next question on this thread starts a new run, with receipts of its own.
        "run": None,
        **evidence,
    }


def _schema_problem(components: Components, state: RLMState) -> str | None:
    """Return why the last answer of a run does not fit its schema. None if there is no schema or no answer."""
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


def _answer_record(
    path: str, answer: Any, ref: ContextRef | None, end: _End, evidence: Evidence, read: ReadRanges
) -> AnswerRecord:
    """Build the record of the answer. `ref` refers to the whole of a long one."""
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
    """Return how a run with this answer ended, and what the answer lacks."""
    calls = journal.calls_since_question
    degraded, limit = shortfalls(calls), limit_of(calls)
    if (flaw := journal.flaw_of_answer) and answer is not None:
        degraded[flaw] = degraded.get(flaw, 0) + 1
    missing: StopReason | None = limit or ("degraded" if degraded else None)
    typed = bool(components.answer_schema(state["path"]))
    status, reason = _verdict(_stop_reason(state, journal), answer, missing, typed=typed)
    # These do not make the answer partial.
    minor: dict[Shortfall, int] = {
        "empty_context": int(journal.has_empty_context),
        "found_nothing": empty_searches(calls),
        "dropped_citations": evidence.get("dropped_citations", 0),
        "no_citations": int(status != "failed" and _lacks_evidence(journal, evidence)),
    }
    degraded.update((kind, count) for kind, count in minor.items() if count)
    return _End(status, reason, degraded)


def _lacks_evidence(journal: Journal, evidence: Evidence) -> bool:
    """Return whether an answer that needs quotes has none. Dropped quotes are counted separately."""
    return (
        "citations" in evidence
        and not evidence["citations"]
        and not evidence.get("dropped_citations")
        and journal.can_be_quoted
    )


def _stop_reason(state: RLMState, journal: Journal) -> StopReason:
    """Return why the run ended. A limit is no reason if the last turn still gave an answer."""
    reason: StopReason = state.get("stop_reason") or "answer"
    if reason not in STOPS or reason == "seconds":  # when time is up, something was cut short
        return reason
    if journal.answered:
        return "answer"
    return "prose" if journal.answered_at_once else reason


def _take_out_quotes(
    components: Components, state: RLMState, journal: Journal, answer: Any
) -> tuple[Any, Evidence]:
    """Return the answer without its quotes, and the citations found. Unchanged if the run needs no quotes."""
    if not components.wants_citations(state["path"]):
        return answer, Evidence()
    answer, citations, unfound = cite(components.store, journal.contexts, answer)
    return answer, Evidence(citations=citations, dropped_citations=len(unfound))


def _read_ranges(components: Components, state: RLMState, journal: Journal) -> tuple[ReadRanges, Coverage | None]:
    """Return the ranges of the contexts that this run's root model has read, and for the top run the coverage by
    all models of the tree."""
    tracker = components.coverage_tracker(components.trees.get(state["run"], components.budget), state, journal)
    if not tracker.contexts:
        return [], None
    records, read = state["trajectory"], ReadRanges()
    profile = components.root_model(state["path"]).profile
    last_turn = max((number for number, record in enumerate(records) if record["type"] == "turn"), default=0)
    for record in records[:last_turn]:  # what came after the last turn was shown to nobody
        if record["type"] == "output":
            read += tracker.ranges_in(record["text"])
        if record["type"] == "question":
            read += tracker.ranges_in(prompt_of(components.store, record))
        if record["type"] == "question" and record.get("whole"):
            read += tracker.range_of(record["context"]) or tracker.ranges_in(
                whole_text(components.store, record, profile)
            )
    return read, None if state["path"] else tracker.coverage([*read, *recorded_ranges(records)])


def _verdict(
    reason: StopReason, answer: Any, missing: StopReason | None, *, typed: bool
) -> tuple[Status, StopReason]:
    """Return the status and the stop reason. A blank answer counts as none, unless it fits a schema.

    `missing` is the reason why calls that the answer is based on were not answered in full, or None.
    """
    has_answered = reason in ("answer", "prose")
    if is_blank(answer) and not (typed and has_answered):
        return "failed", "no_answer" if has_answered else reason
    if not has_answered:
        return "partial", reason
    return ("partial", missing) if missing else ("complete", reason)
