"""What `rlm export` and `rlm dataset` write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlm_langchain.cli import run
from rlm_langchain.cli.session import history
from rlm_langchain.trajectory.jsonl import write_trace
from tests.records import RecordBuilder, nested


def kept(name: str, answer: object) -> None:
    history.folder().mkdir(parents=True, exist_ok=True)
    records = RecordBuilder().question(f"{name}?").turn(0, f"turn of {name}").answer(answer).records
    write_trace(history.folder() / f"{name}.jsonl", records)


@pytest.mark.parametrize("form", ["otlp", "chrome", "jsonl"])
def test_a_run_is_written_to_a_file_that_is_never_replaced(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trace(tmp_path / "steps.jsonl", nested())
    out = tmp_path / "out"
    assert run(["export", str(tmp_path / "steps.jsonl"), "--as", form, "--out", str(out)]) == 0
    assert "How many?" not in out.read_text() or form == "jsonl"
    out.write_text("mine")
    assert run(["export", str(tmp_path / "steps.jsonl"), "--as", form, "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    assert "already exists: give another file" in capsys.readouterr().err


def test_runs_with_the_right_answer_become_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, answer in (("one", "Yes "), ("two", "no"), ("three", 3)):
        kept(name, answer)
    right = tmp_path / "right.jsonl"
    right.write_text(
        '{"query": "One?", "answer": "yes"}\n\n{"query": "two?", "answer": "yes"}\n{"query": "three?", "answer": 3}'
    )
    more = ["--answers", str(right), "--min-reward", "1", "--as", "neutral", "--held-out", "0"]
    assert run(["dataset", "--out", str(tmp_path / "data"), *more]) == 0
    assert "turns train: 2\nleft out: 1 runs: reward too low\n" in capsys.readouterr().out
    turns = map(json.loads, (tmp_path / "data" / "turns.train.jsonl").read_text().splitlines())
    assert {turn["question"] for turn in turns} == {"one?", "three?"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--min-reward", "1"], "min_reward needs a scorer"),
        (["--held-out", "2"], "is not a share"),
        (["--answers", "nowhere"], "cannot read nowhere"),
        (["--answers", __file__], "is not an object with query and answer"),
        (["nobody"], "there is no run and no file called 'nobody'"),
        (["--as", "xml"], "xml"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    more: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "--out", str(tmp_path / "data"), *more]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
