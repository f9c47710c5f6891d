"""Timelines of runs: spans within spans, with the figures of the records, and no text unless it is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlm_langchain.export.spans import chrome, otlp, spans
from rlm_langchain.trajectory.tree import Trajectory
from tests.records import RecordBuilder, nested


def test_a_span_lies_within_its_parent() -> None:
    found = spans(nested())
    known = {span.key: span for span in found}
    assert len(known) == len(found)
    assert [span.key for span in found if span.parent is None] == ["run "]
    for number, span in enumerate(found):
        if span.parent is not None:
            assert span.parent in [one.key for one in found[:number]], "parents come first"
            assert span.start <= span.end <= known[span.parent].end
    assert known["run 1"].parent == "cell  0"


def test_tokens_and_dollars_equal_those_of_the_records() -> None:
    total = Trajectory.of(nested()).spent.total
    chats = [span.attributes for span in spans(nested()) if "gen_ai.usage.input_tokens" in span.attributes]
    assert sum(one["gen_ai.usage.input_tokens"] for one in chats) == total.input
    assert sum(one["gen_ai.usage.output_tokens"] for one in chats) == total.output
    assert sum(one["rlm.cost_usd"] for one in chats) == pytest.approx(total.cost)


@pytest.mark.parametrize("form", [otlp, chrome])
def test_spans_contain_no_text_without_content(form: Any) -> None:
    texts = ("How many?", "ask()", "Two calls.", "Is it so?", "Below?")
    assert not any(text in json.dumps(form(nested())) for text in texts)
    assert all(text in json.dumps(form(nested(), content=True)) for text in texts)


def test_an_otlp_request_has_hexadecimal_ids_and_times_in_nanoseconds() -> None:
    assert otlp(nested()) == otlp(nested())
    found = otlp(nested())["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ids = {span["spanId"] for span in found}
    assert len(ids) == len(found)
    assert {len(span["traceId"]) for span in found} == {32}
    assert {len(one) for one in ids} == {16}
    assert all(span["parentSpanId"] in ids for span in found if "parentSpanId" in span)
    assert found[0]["startTimeUnixNano"] == "1000000000000"
    assert {span["kind"] for span in found if span["name"].startswith("chat")} == {3}


def test_failed_spans_have_an_error_status() -> None:
    run = RecordBuilder().question().turn(0, "Go.", "ask()").cell(0, "ask()").wave(0, 0, 1)
    run.call(0, 0, error="too many requests").output(0, "", error=True).answer(None, "failed", "model")
    assert [span.error for span in spans(run.records)] == [
        "model",
        None,
        "the cell raised an error",
        "too many requests",
    ]
    found = otlp(run.records)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert found[-1]["status"] == {"code": 2, "message": "too many requests"}
    assert chrome(run.records)["traceEvents"][-1]["args"]["error"] == "too many requests"


def test_concurrent_spans_are_in_different_rows() -> None:
    run = RecordBuilder().question().turn(0, "Go.", "ask()").cell(0, "ask()").wave(0, 0, 5)
    for call in range(5):
        run.call(0, call, time=1_010.0, seconds=2.0, kind="vision" if call else "llm")
    events = [event for event in chrome(run.output(0, "").answer(1).records)["traceEvents"] if event["ph"] == "X"]
    rows: dict[tuple[int, int], int] = {}
    for event in events:
        assert event["ts"] >= rows.get((event["pid"], event["tid"]), 0)
        rows[event["pid"], event["tid"]] = event["ts"] + event["dur"]
    calls = [event for event in events if event["cat"] == "call"]
    assert len({event["tid"] for event in calls}) == 5
    assert {event["name"] for event in calls} == {"chat sub"}


def test_an_unfinished_run_has_its_spans_so_far() -> None:
    assert spans([]) == []
    assert otlp([])["resourceSpans"][0]["scopeSpans"][0]["spans"] == []
    for length in range(1, len(nested())):
        assert spans(nested()[:length])[0].key == "run "
