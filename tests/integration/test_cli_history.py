"""The runs that the command keeps without being asked to."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlm_langchain.cli.session import history
from rlm_langchain.runnable.create import create_rlm
from rlm_langchain.testing.models import script
from rlm_langchain.trajectory.jsonl import write_trace
from tests.commands import Command
from tests.servers.scripted import rlm, serve
from tests.servers.server import Server


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(rlm("print(llm_query('item 7'))\nFINAL(len(context))")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("word " * 20_000)
    return path


def keep(name: str, question: str, answer: int = 1, age: float = 0.0) -> Path:
    """A run in the history that was written `age` seconds ago."""
    history.folder().mkdir(parents=True, exist_ok=True)
    path = history.folder() / f"{name}.jsonl"
    write_trace(path, create_rlm(script(f"FINAL({answer})")).invoke(question)["trajectory"])
    at = path.stat().st_mtime - age
    os.utime(path, (at, at))
    return path


def names() -> list[str]:
    return [run.name for run in history.runs()]


def test_a_run_without_a_name_is_kept_shown_listed_found_compared_and_forgotten(
    command: Command, server: Server, text: Path
) -> None:
    ask = ["ask", "How long is it?", text, "-m", "openai:scripted"]
    first = command(*ask)
    assert (first.code, first.out) == (0, "100000\n")
    assert first.err.count("RLM_HISTORY=off turns this off") == 1
    assert "RLM_HISTORY" not in command("ask", "What is refunded?", text, "-m", "openai:scripted").err
    again, before = names()
    path = history.folder() / f"{before}.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = command("show")
    assert (shown.err, shown.out.count("What is refunded?")) == (f"the last run: {again}\n", 1)
    assert "> item 7" in command("show", before).out
    listed = json.loads(command("runs", "--json").out)
    assert [(line["thread"], line["question"]) for line in listed] == [
        (again, "What is refunded?"),
        (before, "How long is it?"),
    ]
    assert {(line["state"], line["turns"], line["calls"]) for line in listed} == {("complete", 1, 2)}
    assert command("runs", "REFUND").out.count("\n") == 2
    assert command("runs", "nothing of it").out == "none of 2 runs has the words 'nothing of it' in its question\n"
    assert "What is refunded?" in command("compare", before, again).out
    assert command("show", before, "--html", text.with_name("run.html")).code == 0
    assert command("forget", before, again).code == 0
    assert names() == []
    assert not path.exists()


def test_a_run_with_a_name_is_kept_once_and_the_last_of_all_is_shown(
    command: Command, server: Server, text: Path
) -> None:
    assert command("ask", "Named?", text, "-m", "openai:scripted", "--thread", "one").code == 0
    assert names() == []
    assert command("show").err == "the last run: one\n"
    keep("20300101-000000", "Kept?", age=-60.0)
    assert command("show").err == "the last run: 20300101-000000\n"
    keep("20300101-000000", "Kept?", age=9_000.0)
    assert command("show").err == "the last run: one\n"


def test_it_is_off_when_it_is_told_so_and_another_value_is_an_error_before_anything_is_paid(
    command: Command, server: Server, text: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_HISTORY", "off")
    done = command("ask", "How long?", text, "-m", "openai:scripted")
    assert (done.code, (home / "history").exists()) == (0, False)
    assert "and RLM_HISTORY is off" in command("show").err
    calls = server.calls
    monkeypatch.setenv("RLM_HISTORY", "0")
    done = command("ask", "How long?", text, "-m", "openai:scripted")
    assert (done.code, server.calls) == (2, calls)
    assert "RLM_HISTORY is '0': set it to off, or leave it unset" in done.err


def test_old_many_and_large_runs_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    day = 86_400.0
    keep("old", "?", age=31 * day)
    history.prune()
    assert names() == ["old"], "the last one is kept"
    for number in range(4):
        keep(f"new{number}", "?", age=float(number))
    (history.folder() / "empty.jsonl").touch()
    os.utime(history.folder() / "empty.jsonl", (1.0, 1.0))
    history.prune()
    assert names() == ["new0", "new1", "new2", "new3"]
    assert not (history.folder() / "empty.jsonl").exists()
    monkeypatch.setattr(history, "MAX_RUNS", 3)
    history.prune()
    assert names() == ["new0", "new1", "new2"]
    monkeypatch.setattr(history, "MAX_BYTES", 1)
    history.prune()
    assert names() == ["new0"]


def test_a_history_that_cannot_be_written_is_told_and_the_run_goes_on(
    command: Command, server: Server, text: Path, home: Path
) -> None:
    (home / "history").touch()
    done = command("ask", "How long?", text, "-m", "openai:scripted")
    assert (done.code, done.out) == (0, "100000\n")
    assert "is not kept in the history (File exists)" in done.err


def test_a_damaged_run_is_listed_as_broken(command: Command) -> None:
    keep("one", "?").write_text("{}\n")
    assert [line["state"] for line in json.loads(command("runs", "--json").out)] == ["broken"]
    assert "is not a record" in command("show", "one").err
