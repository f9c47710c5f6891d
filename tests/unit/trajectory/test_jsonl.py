from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rlm_langchain.errors import InputError
from rlm_langchain.trajectory.jsonl import Trace, read_trace, write_trace
from rlm_langchain.trajectory.tree import flatten
from tests.records import RecordBuilder, nested


def test_a_trace_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, nested())
    assert read_trace(path) == list(flatten(nested()))


def test_each_line_is_one_json_object(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    records = RecordBuilder().note("a\nb\u2028c\x00").answer(["é", None, 1.5]).records
    write_trace(path, records)
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == records
    assert lines[-1] == b""


def test_a_record_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Trace(path) as trace:
        trace.write(RecordBuilder().note("now").records[0])
        assert len(read_trace(path)) == 1


def test_a_stream_tells_a_child_run_before_so_the_call_is_written_without_it(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Trace(path) as trace:
        for record in nested():
            trace.write(record)
    assert [r["path"] for r in read_trace(path)] == [""] * len(nested())
    assert b"child" not in path.read_bytes()


def test_a_lone_surrogate_is_kept_in_the_file_and_replaced_when_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, RecordBuilder().note("a\udc80b").records)
    assert rb"a\udc80b" in path.read_bytes()
    [note] = read_trace(path)
    assert note["type"] == "note"
    assert note["text"] == "a?b"


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, RecordBuilder().note("one").note("two").records)
    path.write_bytes(path.read_bytes()[:-5])
    assert len(read_trace(path)) == 1


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("no json", "line 2 of"),
        ("[" * 100_000, "line 2 of"),
        ('{"type": "dance", "path": ""}', "dance"),
        ('{"type": "note", "path": "", "to": "model", "time": 1}', "text: Field required"),
        ('{"type": "note", "path": 3, "to": "model", "text": "t", "time": 1}', "path"),
        ("7", "line 2 of"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, wrong: str) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, RecordBuilder().note("fine").records)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=wrong) as caught:
        read_trace(path)
    assert "line 2 of" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("path", "../../x"), ("path", "0/" * 5_000 + "0"), ("path", "9" * 5_000), ("path", "-1"), ("time", math.nan)],
)
def test_a_place_or_a_number_that_no_run_has_is_no_record(tmp_path: Path, field: str, value: object) -> None:
    record = {**RecordBuilder().note("a").records[0], field: value}
    (tmp_path / "t.jsonl").write_text(f"{json.dumps(record)}\n")
    with pytest.raises(InputError, match=r"line 1 of .* is not a record"):
        read_trace(tmp_path / "t.jsonl")


def test_a_file_that_cannot_be_read_or_is_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_trace(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="--trace FILE"):
        read_trace(tmp_path / "empty")


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        Trace(tmp_path / "no" / "folder.jsonl")
    with pytest.raises(InputError, match="directory"):
        Trace(tmp_path)
