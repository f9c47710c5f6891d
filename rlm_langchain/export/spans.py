"""Exports runs as spans: OTLP JSON with OpenTelemetry's GenAI conventions, and Chrome's trace format.

Spans contain no text of contexts, prompts or replies unless `content` is set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rlm_langchain.records import CallRecord, Record
from rlm_langchain.trajectory.tree import CallView, RanCell, RunView, Trajectory, TurnView
from rlm_langchain.types import UsageRecord

Json = dict[str, Any]
NANOSECONDS, MICROSECONDS = 1_000_000_000, 1_000_000
OPERATIONS = {"llm": "chat", "vision": "chat", "rlm": "invoke_agent", "search": "retrieval"}
"""`gen_ai.operation.name` by kind of call. Other kinds are `execute_tool`."""


@dataclass(slots=True)
class Span:
    """A span: a piece of work with its start, its end and its parent."""

    name: str
    start: float
    """Seconds since the epoch."""
    end: float
    key: str
    """Kind, path and number, unique within the run."""
    parent: str | None
    """Key of the parent span."""
    attributes: Json = field(default_factory=dict)
    error: str | None = None


def spans(records: Iterable[Record], *, content: bool = False) -> list[Span]:
    """Return the spans of a run, parents first. `content` adds prompts, code and replies as attributes."""
    tree = Trajectory.of(records)
    top = tree.runs.get("")
    return [] if top is None or top.question is None else [*_of_run(top, None, content)]


def _of_run(run: RunView, parent: str | None, content: bool) -> Iterator[Span]:
    if run.question is None:
        return
    key = f"run {run.path}"
    inner: list[Span] = []
    for turn in run.turns:
        inner += _of_turn(run, turn, key, content)
    start = run.question["time"]
    end = run.answer["time"] if run.answer else max([start, *(span.end for span in inner)])
    attributes: Json = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "rlm", "rlm.path": run.path}
    if run.answer:
        attributes |= {"rlm.status": run.answer["status"], "rlm.stop_reason": run.answer["stop_reason"]}
    if content:
        attributes |= {"rlm.question": run.question["query"]}
        attributes |= {"rlm.answer": str(run.answer["answer"])} if run.answer else {}
    failed = run.answer["stop_reason"] if run.answer and run.answer["status"] == "failed" else None
    yield Span("invoke_agent rlm", start, end, key, parent, attributes, failed)
    yield from inner


def _of_turn(run: RunView, turn: TurnView, parent: str, content: bool) -> Iterator[Span]:
    record = turn.record
    attributes: Json = {"gen_ai.operation.name": "chat", "rlm.turn": record["turn"], "rlm.path": run.path}
    attributes |= _of_model(record["model"], record["usage"])
    attributes |= {"rlm.retries": record["retries"]} if record["retries"] else {}
    attributes |= {"gen_ai.response.finish_reasons": [record["flaw"]]} if "flaw" in record else {}
    attributes |= {"gen_ai.output.messages": record["text"]} if content else {}
    key, end = f"turn {run.path} {record['turn']}", record["time"]
    yield Span(f"chat {record['model']}", end - record["seconds"], end, key, parent, attributes)
    for cell in turn.cells:
        yield from _of_cell(run, cell, parent, content)


def _of_cell(run: RunView, cell: RanCell, parent: str, content: bool) -> Iterator[Span]:
    key = f"cell {run.path} {cell.record['cell']}"
    inner: list[Span] = []
    for number, call in sorted(cell.calls.items()):
        inner += _of_call(run, number, call, key, content)
    start, output = cell.record["time"], cell.output
    end = output["time"] if output else max([start, *(span.end for span in inner)])
    attributes: Json = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "python"}
    attributes |= {"rlm.cell": cell.record["cell"], "rlm.path": run.path}
    if output:
        attributes |= {"rlm.outcome": output["outcome"], "rlm.compute_seconds": output["seconds"]}
    if content:
        attributes |= {"gen_ai.tool.call.arguments": cell.record["code"]}
        attributes |= {"gen_ai.tool.call.result": output["text"]} if output else {}
    failed = "the cell raised an error" if output and output["error"] else None
    yield Span("execute_tool python", start, end, key, parent, attributes, failed)
    yield from inner


def _of_call(run: RunView, number: int, call: CallView, parent: str, content: bool) -> Iterator[Span]:
    if call.run is not None:
        yield from _of_run(call.run, parent, content)
    record = call.record
    if record is None or call.run is not None:
        return
    operation = OPERATIONS.get(record["kind"], "execute_tool")
    attributes = {"gen_ai.operation.name": operation, "rlm.call": number, "rlm.kind": record["kind"]}
    attributes |= {"rlm.path": run.path} | _of_model(record["model"], record["usage"])
    attributes |= {f"rlm.{name}": record[name] for name in ("memo", "refused", "flaw", "lost") if name in record}
    attributes |= {"rlm.prompt.characters": record["prompt_chars"]}
    if content:
        attributes |= {"gen_ai.input.messages": record["preview"], "gen_ai.output.messages": str(record["value"])}
    name = f"{operation} {record['model'] or record['kind']}"
    start, end = record["time"] - _seconds(record), record["time"]
    yield Span(name, start, end, f"call {run.path} {number}", parent, attributes, record["error"])


def _seconds(record: CallRecord) -> float:
    return max(0.0, record["seconds"])


def _of_model(model: str, usage: UsageRecord) -> Json:
    if not model:
        return {}
    attributes: Json = {
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": usage["input"],
        "gen_ai.usage.output_tokens": usage["output"],
        "gen_ai.usage.cache_read.input_tokens": usage["cached"],
        "rlm.usage.estimated": usage["estimated"],
    }
    return attributes if usage["cost"] is None else attributes | {"rlm.cost_usd": usage["cost"]}


# --- OpenTelemetry ---


def otlp(records: Iterable[Record], *, content: bool = False) -> Json:
    """Return the spans of a run as an OTLP request in JSON, for a collector's `/v1/traces` or a file.

    Ids are hashes, so exporting a run again gives the same ids.
    """
    found = spans(records, content=content)
    trace = _id(f"{found[0].start} {found[0].key}", 32) if found else ""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": "rlm_langchain"})},
                "scopeSpans": [{"scope": {"name": "rlm_langchain"}, "spans": [_otlp(one, trace) for one in found]}],
            }
        ]
    }


def _otlp(span: Span, trace: str) -> Json:
    return {
        "traceId": trace,
        "spanId": _id(f"{trace} {span.key}", 16),
        **({} if span.parent is None else {"parentSpanId": _id(f"{trace} {span.parent}", 16)}),
        "name": span.name,
        "kind": 3 if span.attributes["gen_ai.operation.name"] == "chat" else 1,  # client, else internal
        "startTimeUnixNano": str(round(span.start * NANOSECONDS)),
        "endTimeUnixNano": str(round(span.end * NANOSECONDS)),
        "attributes": _attributes(span.attributes),
        "status": {"code": 1} if span.error is None else {"code": 2, "message": span.error},
    }


def _attributes(attributes: Json) -> list[Json]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: object) -> Json:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(one) for one in value]}}
        case _:
            return {"stringValue": str(value)}


def _id(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:digits]


# --- Chrome and Perfetto ---


def chrome(records: Iterable[Record], *, content: bool = False) -> Json:
    """Return the spans of a run in Chrome's trace format, for ui.perfetto.dev and `chrome://tracing`.

    Each run is a process. Concurrent spans, such as the calls of a batch, are on separate rows (thread ids).
    """
    found = spans(records, content=content)
    processes = {path: number for number, path in enumerate(dict.fromkeys(_path(span) for span in found))}
    first = min((span.start for span in found), default=0.0)
    free: dict[int, list[float]] = {}
    events: list[Json] = []
    for path, process in processes.items():
        name = f"run {path}" if path else "root run"
        events.append({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}})
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        process = processes[_path(span)]
        row = _free_row(free.setdefault(process, []), span)
        events.append(
            {
                "ph": "X",
                "name": span.name,
                "cat": span.key.partition(" ")[0] + (",error" if span.error else ""),
                "pid": process,
                "tid": row,
                "ts": round((span.start - first) * MICROSECONDS),
                "dur": round((span.end - span.start) * MICROSECONDS),
                "args": span.attributes | ({"error": span.error} if span.error else {}),
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _path(span: Span) -> str:
    return str(span.attributes["rlm.path"])


def _free_row(rows: list[float], span: Span) -> int:
    """Return the first row that is free at the start of a span, and occupy it until the end."""
    for row, end in enumerate(rows):
        if end <= span.start:
            rows[row] = span.end
            return row
    rows.append(span.end)
    return len(rows) - 1
