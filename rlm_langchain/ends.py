"""`prepare` and `finalise`: how a run begins, and what it gives back."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import TypedDict

from rlm_langchain.citations import cited
from rlm_langchain.context import quotable
from rlm_langchain.context.tables import table
from rlm_langchain.conversation import fenced, shown
from rlm_langchain.coverage import Read, in_records
from rlm_langchain.degradation import is_blank, limit_of, shortfalls
from rlm_langchain.errors import InputError, JournalError
from rlm_langchain.journal import DAMAGED, Journal
from rlm_langchain.machine import Machine
from rlm_langchain.prompts import has, render
from rlm_langchain.protocols import Strategy
from rlm_langchain.scribe import Scribe, depth_of
from rlm_langchain.tools import guidance as tool_guidance
from rlm_langchain.types import (
    AnswerRecord,
    CellRecord,
    Citation,
    ContextRef,
    Coverage,
    NoteRecord,
    OutputRecord,
    QuestionRecord,
    Shortfall,
    Status,
    StopReason,
)
from rlm_langchain.ways import whole_text

if TYPE_CHECKING:
    from rlm_langchain.graph import RLMState

GLIMPSE = 160
"""Characters of a context that a small model is shown."""
_ENDED = ("answer", "status", "stop_reason")
"""What the record of an answer holds as well as the state."""


class Evidence(TypedDict, total=False):
    """What the output of a run has besides: with citations, and with a context."""

    citations: list[Citation]
    dropped_citations: int
    coverage: Coverage


def opening(machine: Machine, state: RLMState) -> dict[str, Any]:
    """Put the question to the run. Raises `InputError` for an empty one."""
    query, path = state.get("query", ""), state.get("path", "")
    if not isinstance(query, str) or not query.strip():
        raise InputError(f"the query is {query!r}; ask a question, as text")
    journal, scribe = Journal(state.get("trajectory", [])), Scribe()
    context = machine.store.reference(state.get("context"), seconds=machine.budget.seconds)
    if context is not None and journal.knows(context):
        context = None
    if (cell := journal.given_up) is not None:
        scribe.write(_given_up(machine, cell))
    for note in more_ways(machine, journal, path) if journal.turns else ():
        scribe.write(note)
    scribe.write(_asked(machine, journal, path, query, context))
    return {
        "query": query,
        "context": None,
        "run": state.get("run") or uuid.uuid4().hex,
        "path": path,
        "agreed": state.get("agreed") if path else None,
        "tops": state.get("tops") if path else None,
        "trajectory": scribe.records,
        **dict.fromkeys(("answer", "status", "stop_reason", "approval", "degraded", "found")),
    }


def more_ways(machine: Machine, journal: Journal, path: str) -> list[NoteRecord]:
    """Tells the model of strategies that this machine has, and that it was not told of when it began."""
    every = machine.strategies_for(journal.contexts.get("context"), path)
    # What wants the context in the first prompt comes too late.
    new = [one for one in every if one.name not in journal.strategies and not one.whole]
    if not new:
        return []
    guidance = "\n\n".join(strategy.guidance.strip() for strategy in new)
    text = render(machine.runs_at(depth_of(path)).profile, "more_ways", guidance=guidance)
    names = [strategy.name for strategy in new]
    return [NoteRecord(type="note", path=path, to="model", text=text, time=time.time(), strategies=names)]


def _asked(machine: Machine, journal: Journal, path: str, query: str, context: ContextRef | None) -> QuestionRecord:
    """The record of a question. `context` is new to the REPL; None: there is none, or none that is new."""
    ways = machine.strategies_for(journal.contexts.get("context", context), path)
    record = QuestionRecord(
        type="question",
        path=path,
        query=query,
        text=_question(machine, journal, path, query, context, ways),
        time=time.time(),
        context=context,
        sandbox=machine.sandbox.name,
        strategies=[way.name for way in ways],
    )
    if examples := _examples(machine, journal, path, context):
        record["examples"] = examples
    if machine.auto:
        record["chosen"] = True
    if context is None and any(journal.contexts.values()):
        record["follows"] = True
    if context is not None and not journal.turns and any(way.whole for way in ways):
        record["whole"] = True
    return record


class _End(NamedTuple):
    """How a run has ended."""

    status: Status
    stop_reason: StopReason
    degraded: dict[Shortfall, int]


def closing(machine: Machine, state: RLMState) -> dict[str, Any]:
    """The run's output, and the end of what was alive for it."""
    journal = Journal(state["trajectory"])
    if not journal.gave(state.get("answer")):
        raise JournalError(DAMAGED)
    scribe, (answer, evidence) = Scribe(), _cited(machine, state, journal, state.get("answer"))
    end = _end(machine, state, journal, answer, evidence)
    failed = end.status == "failed"
    answer = None if failed else answer
    read, coverage = _read(machine, state, journal)
    if coverage is not None:
        evidence["coverage"] = coverage
    scribe.write(_answered(state["path"], answer, end, evidence, read))
    if not state["path"]:
        machine.trees.end(state["run"])
    root, sub = journal.usage
    return {
        "trajectory": scribe.records,
        "answer": answer,
        "status": end.status,
        "stop_reason": end.stop_reason,
        "usage": {"root": root.record(), "sub": sub.record()},
        "cost_usd": root.plus(sub).cost,
        "iterations": journal.iterations,
        "sub_calls": sub.calls,
        "degraded": end.degraded,
        "found": fenced(journal.found["text"]) if failed and journal.found else None,
        # The next question on this thread is a run of its own, with receipts of its own.
        "run": None,
        **evidence,
    }


def _answered(path: str, answer: Any, end: _End, evidence: Evidence, read: Read) -> AnswerRecord:
    """The record of the answer."""
    record = AnswerRecord(
        type="answer",
        path=path,
        answer=answer,
        status=end.status,
        stop_reason=end.stop_reason,
        time=time.time(),
    )
    if end.degraded:
        record["degraded"] = end.degraded
    if "citations" in evidence:
        record["citations"] = evidence["citations"]
    if read:
        record["read"] = read
    if "coverage" in evidence:
        record["coverage"] = evidence["coverage"]
    return record


def _end(machine: Machine, state: RLMState, journal: Journal, answer: Any, evidence: Evidence) -> _End:
    """How a run with this answer has ended, and what the answer lacks."""
    calls = journal.calls_since_question
    degraded, limit = shortfalls(calls), limit_of(calls)
    if (flaw := journal.flaw_of_words) and answer is not None:
        degraded[flaw] = degraded.get(flaw, 0) + 1
    missing: StopReason | None = limit or ("degraded" if degraded else None)
    typed = bool(machine.schema_at(state["path"]))
    status, reason = _verdict(state.get("stop_reason") or "answer", answer, missing, typed=typed)
    if dropped := evidence.get("dropped_citations"):
        degraded["dropped_citations"] = dropped  # the answer itself is whole
    return _End(status, reason, degraded)


def _cited(machine: Machine, state: RLMState, journal: Journal, answer: Any) -> tuple[Any, Evidence]:
    """The answer without its quotes, and those of them that were found, where they are wanted."""
    if not machine.cites_at(state["path"]):
        return answer, Evidence()
    answer, citations, unfound = cited(machine.store, journal.contexts, answer)
    return answer, Evidence(citations=citations, dropped_citations=len(unfound))


def _read(machine: Machine, state: RLMState, journal: Journal) -> tuple[Read, Coverage | None]:
    """What the root model of this run was shown of the contexts; and of the top run, what the tree has read."""
    reading = machine.reading(machine.trees.get(state["run"], machine.budget), state, journal)
    if not reading.contexts:
        return [], None
    records, read = state["trajectory"], Read()
    profile = machine.runs_at(depth_of(state["path"])).profile
    for record in records:
        if record["type"] in ("question", "output"):
            read += reading.read(record["text"])
        if record["type"] == "question" and record.get("whole"):
            read += reading.all_of(record["context"]) or reading.read(whole_text(machine.store, record, profile))
    return read, None if state["path"] else reading.coverage([*read, *in_records(records)])


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


def check(values: Mapping[str, Any]) -> None:
    """Raise `JournalError` when the state of a run, as a saver gave it back, is not what was written."""
    journal, records = Journal(values.get("trajectory", [])), values.get("trajectory", [])
    journal.check()
    if not records and values.get("path") is not None:  # a run that has begun has its question
        raise JournalError(DAMAGED)
    last = records[-1] if records else None
    if last and last["type"] == "answer" and any(values.get(key) != last[key] for key in _ENDED):
        raise JournalError(DAMAGED)


def _given_up(machine: Machine, cell: CellRecord) -> OutputRecord:
    """The end of a cell that another question came in the way of. It is not run again, so it left nothing."""
    return OutputRecord(
        type="output",
        path=cell["path"],
        cell=cell["cell"],
        outcome="died",
        text=render(machine.runs_at(depth_of(cell["path"])).profile, "given_up"),
        chars=0,
        error=True,
        seconds=0.0,
        time=time.time(),
    )


def _question(
    machine: Machine,
    journal: Journal,
    path: str,
    query: str,
    context: ContextRef | None,
    ways: Sequence[Strategy],
) -> str:
    """What the root model reads."""
    profile = machine.runs_at(depth_of(path)).profile
    query = quotable(query) if path else query  # code has put it together, out of who knows what
    if schema := machine.schema_at(path):
        query = render(profile, "schema", question=query, schema=schema.json)
    if machine.cites_at(path):
        query = render(profile, "citations", question=query)
    about = "" if context is None else _about(profile, journal.next_name, context)
    if journal.turns:
        return render(profile, "follow_up", question=query, context=about).strip()
    guidance = [machine.sandbox.guidance, *(way.guidance for way in ways)]
    guidance.append(tool_guidance(machine.tools_at(path)))
    if machine.search and (context is not None or machine.search.outside is not None):
        guidance.append(machine.search.guidance(profile))
    said = "\n\n".join(text.strip() for text in guidance if text.strip())
    about = about or render(profile, "no_context")
    return render(profile, "question", guidance=f"{said}\n\n" if said else "", question=query, context=about)


def _examples(machine: Machine, journal: Journal, path: str, context: ContextRef | None) -> str | None:
    """The examples that a conversation begins with, where a profile has some for this kind of context."""
    if journal.turns or context is None:
        return None
    profile = machine.runs_at(depth_of(path)).profile
    own = f"examples_{_kind(profile, context)}"
    return own if has(profile, own) else None


def _kind(profile: str, context: ContextRef) -> str:
    """What a profile calls the type of a context: some know tables."""
    kind = re.split("[ ,]", context["about"], maxsplit=1)[0]
    return "table" if kind == "str" and has(profile, "context_table") and table(context["preview"]) else kind


def _about(profile: str, name: str, context: ContextRef) -> str:
    """What is said of a context: in a profile's own words for its type, where it has some."""
    kind = _kind(profile, context)
    preview, line = quotable(context["preview"]), quotable(context["about"])
    found = table(preview) if kind == "table" else None
    own = f"context_{kind}"
    return render(
        profile,
        own if has(profile, own) else "context",
        called=name,
        about=line,
        short=re.split(r", [\d,]+ characters", line, maxsplit=1)[0],
        preview=shown(preview, 2_000),
        glimpse=preview[:GLIMPSE].removeprefix("["),
        **(found.words() if found else {}),
    )
