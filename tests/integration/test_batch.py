"""`rlm batch`: many questions with one budget, which survives kills and is never exceeded."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from rlm_langchain import BatchBudget, Budget, ConfigurationError, create_batch, create_rlm
from tests.commands import Command
from tests.durable.scripted_run import mark, marks
from tests.forked_commands import CommandServer, command_server
from tests.servers.openai import Message, Reply, failure
from tests.servers.scripted import echo, serve
from tests.servers.server import Server

MODEL = ("--model", "openai:scripted", "--sandbox", "monty")
CALLS = 4
"""Calls of a row: a turn and its sub-calls."""
CELL = f"FINAL(' '.join(llm_query_batched([f'{{context}} part {{i}}' for i in range({CALLS - 1})])))"
WORD = re.compile(r"word-\d+-")


def script(messages: list[Message]) -> str | Reply:
    """A root model asks three sub-calls about its context, of which each names the word in it."""
    said = str(messages[-1]["content"])
    if messages[0]["role"] != "system":
        return f"{WORD.findall(said)[0]} {mark(messages)}"
    return f"```repl\n{CELL}\n# {mark(messages)}\n```"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(script, latency=0.02) as serving:
        monkeypatch.setenv("OPENAI_BASE_URL", serving.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield serving


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    with pytest.MonkeyPatch.context() as patch, serve(echo) as serving:
        patch.setenv("OPENAI_BASE_URL", serving.url)
        patch.setenv("OPENAI_API_KEY", "none")
        with command_server(tmp_path_factory.mktemp("logs")) as server:
            yield server


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"row {number}", "query": "Which word is it?", "context": f"word-{number}- is it", **more}


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_answers(results: list[dict[str, Any]], rows: int) -> None:
    """Each row has one result, and its own answer."""
    assert sorted(result["id"] for result in results) == sorted(f"row {number}" for number in range(rows))
    for result in results:
        assert result["status"] == "complete"
        assert WORD.findall(result["answer"]) == [f"word-{result['id'].split()[1]}-"] * (CALLS - 1)


def on_disk(home: Path) -> set[str]:
    """The marks of all replies that a process had received before it ended."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return set().union(*(marks(path.read_bytes()) for path in files))


def test_sixty_rows_share_the_rate_limit_and_the_concurrency(server, command, tmp_path):
    questions = written(tmp_path / "questions.jsonl", [row(number) for number in range(60)])
    out = tmp_path / "results.jsonl"
    done = command("batch", questions, "--out", out, *MODEL, "--concurrency", 6)
    assert done.code == 0, done.err
    check_answers(read(out), 60)
    assert "60 rows: 60 complete" in done.err
    assert server.calls == 60 * CALLS
    assert server.peak <= 6
    again = command("batch", questions, "--out", out, *MODEL)
    assert (again.code, server.calls) == (0, 60 * CALLS)
    assert "60 had ended before" in again.err


def test_a_batch_killed_repeatedly_resumes_and_requests_no_received_reply_again(server, commands, tmp_path, home):
    rows, limit = 12, 12 * CALLS + 40
    questions = written(tmp_path / "questions.jsonl", [row(number) for number in range(rows)])
    out = tmp_path / "results.jsonl"
    arguments = ("batch", questions, "--out", out, *MODEL, "--concurrency", 8, "--calls", limit)
    for calls in (2, 17, 40):
        command = commands.rlm(*arguments)
        server.wait(lambda server, calls=calls: server.calls >= calls)
        command.kill(signal.SIGKILL)
        assert command.code() is None
        server.wait(lambda server: not server.in_flight)
        received, asked = on_disk(home), server.calls
    assert len(received) > rows
    command = commands.rlm(*arguments)
    assert command.code() == 0, command.log.read_text()
    check_answers(read(out), rows)
    assert not received & {mark(request.messages) for request in server.requests[asked:]}
    assert server.calls <= limit


def test_a_batch_killed_with_calls_in_flight_stays_within_its_budget(server, commands, tmp_path):
    rows, limit = 10, 30
    questions = written(tmp_path / "questions.jsonl", [row(number) for number in range(rows)])
    out = tmp_path / "results.jsonl"
    arguments = ("batch", questions, "--out", out, *MODEL, "--calls")
    for calls in (8, 17):
        command = commands.rlm(*arguments, limit)
        server.wait(lambda server, calls=calls: server.calls >= calls)
        command.kill(signal.SIGKILL)
        command.code()
    command = commands.rlm(*arguments, limit)
    assert command.code() == 1, command.log.read_text()
    assert server.calls <= limit
    assert {result["status"] for result in read(out)} <= {"complete", "stopped", "not asked"}
    command = commands.rlm(*arguments, 10 * limit)
    assert command.code() == 0, command.log.read_text()
    check_answers(read(out), rows)


def test_ctrl_c_says_how_to_go_on(server, commands, tmp_path, home):
    questions = written(tmp_path / "questions.jsonl", [row(number) for number in range(8)])
    out = tmp_path / "results.jsonl"
    command = commands.rlm("batch", questions, "--out", out, *MODEL, "--name", "contracts", "--rows", 2)
    server.wait(lambda server: server.calls >= 2 * CALLS + 1)
    command.kill(signal.SIGINT)
    assert command.code() == 130
    said = command.log.read_text()
    assert "Interrupted; no more calls are made or paid for." in said
    assert f"`rlm batch {questions} --out {out} --name contracts --rows 2 --model openai:scripted" in said
    assert "Traceback" not in said
    received, asked = on_disk(home), server.calls
    command = commands.rlm("batch", questions, "--out", out, *MODEL, "--name", "contracts")
    assert command.code() == 0, command.log.read_text()
    check_answers(read(out), 8)
    assert not received & {mark(request.messages) for request in server.requests[asked:]}


def test_a_batch_uses_its_budget_never_exceeds_it_and_leaves_the_rest_not_asked(server, command, tmp_path):
    questions = written(tmp_path / "questions.jsonl", [row(number) for number in range(30)])
    out, limit = tmp_path / "results.jsonl", 100
    done = command("batch", questions, "--out", out, *MODEL, "--calls", limit)
    results = read(out)
    answered = [result for result in results if result["status"] == "complete"]
    assert done.code == 1
    assert {result["status"] for result in results} == {"complete", "not asked"}
    assert 0.95 * limit <= server.calls <= limit
    assert (
        f"{30 - len(answered)} not asked: the rest of the batch's budget is too small for another row (calls)"
        in done.err
    )
    assert command("batch", questions, "--out", out, *MODEL, "--calls", limit, "--quiet").code == 1
    assert server.calls <= limit, "what was spent before counts"
    out.unlink()  # the threads know it too
    assert command("batch", questions, "--out", out, *MODEL, "--calls", 1000).code == 0
    check_answers(read(out), 30)
    assert server.calls == 30 * CALLS


def test_a_budget_of_zero_asks_nothing(server, command, tmp_path):
    questions = written(tmp_path / "questions.jsonl", [row(0), row(1)])
    out = tmp_path / "results.jsonl"
    done = command("batch", questions, "--out", out, *MODEL, "--price", "1:1", "--usd", 0)
    assert (done.code, server.calls) == (1, 0)
    assert [(result["status"], result["stop_reason"]) for result in read(out)] == [("not asked", "usd")] * 2


def test_a_row_that_fails_is_a_row_with_an_error_and_goes_on_later(server, command, tmp_path, monkeypatch):
    rows = [row(0), row(1, model="openai:other"), row(2)]
    questions = written(tmp_path / "questions.jsonl", rows)
    out = tmp_path / "results.jsonl"
    server.rule = lambda request: failure(401, "no such key") if request.body["model"] == "other" else None
    done = command("batch", questions, "--out", out, *MODEL)
    assert done.code == 1
    [stopped] = [result for result in read(out) if result["status"] != "complete"]
    assert (stopped["id"], stopped["status"], stopped["error"]["type"]) == ("row 1", "stopped", "ModelError")
    assert "stopped: row 1 (" in done.err
    server.rule = lambda request: None
    assert command("batch", questions, "--out", out, *MODEL).code == 0
    check_answers(read(out), 3)
    assert server.calls == 3 * CALLS + 1, "what was refused was sent again, and nothing else"


def test_a_row_resumed_with_rlm_resume_is_not_asked_again(server, command, tmp_path):
    questions, out = written(tmp_path / "questions.jsonl", [row(0)]), tmp_path / "results.jsonl"
    arguments = ("batch", questions, "--out", out, *MODEL, "--name", "one")
    server.rule = lambda request: failure(401, "no such key")
    assert command(*arguments).code == 1
    server.rule = lambda request: None
    assert command("resume", "one/row 0").code == 0
    asked = server.calls
    assert command(*arguments).code == 0
    check_answers(read(out), 1)
    assert server.calls == asked
    assert command("ask", "Another one?", "--thread", "one/row 0").code == 0
    out.unlink()
    assert "differs from the one asked under this id" in command(*arguments).err


def test_twenty_consecutive_errors_stop_the_batch(server, command, tmp_path):
    questions = written(tmp_path / "questions.jsonl", [row(number) for number in range(40)])
    out = tmp_path / "results.jsonl"
    server.rule = lambda request: failure(401, "no such key")
    done = command("batch", questions, "--out", out, *MODEL, "--rows", 4)
    assert done.code == 1
    statuses = Counter(result["status"] for result in read(out))
    assert 20 <= statuses["stopped"] == server.calls <= 24
    assert statuses["not asked"] == 40 - statuses["stopped"]
    assert "not asked: the 20 rows before it all ended in errors" in done.err


def test_broken_rows_are_refused_together_before_anything_is_paid(server, command, tmp_path):
    (tmp_path / "there.txt").write_text("word-9- is it")
    rows = [
        row(0),
        row(0),
        '{"id": 2, "query":',
        {"id": 3},
        row(4, contxt="?"),
        row(5, context=None, path="nowhere.txt"),
        row(6, context=None, url="http://example.com"),
        row(7, budget={"concurrency": 3}),
        '{"id": 8, "query": "one", "query": "two"}',
        row(9, context=None, path="there.txt"),
        row(10, path="there.txt"),
    ]
    done = command("batch", written(tmp_path / "questions.jsonl", rows), "--out", tmp_path / "r.jsonl", *MODEL)
    assert (done.code, server.calls) == (2, 0)
    for line, problem in {
        2: "the id 'row 0' is already used in line 1",
        3: "not JSON",
        4: "the query is missing",
        5: "unknown key 'contxt': did you mean 'context'?",
        6: "there is no file or folder",
        7: "a url is not fetched",
        8: "the budget has 'concurrency'",
        9: "the key 'query' occurs twice",
        11: "the row has both a context and a path",
    }.items():
        assert re.search(rf"^  line {line}: .*{re.escape(problem)}", done.err, re.MULTILINE), done.err
    assert "line 10:" not in done.err
    assert not (tmp_path / "r.jsonl").exists()


def test_a_changed_question_is_refused_also_when_the_results_are_gone(server, command, tmp_path):
    questions, out = written(tmp_path / "questions.jsonl", [row(0)]), tmp_path / "results.jsonl"
    assert command("batch", questions, "--out", out, *MODEL).code == 0
    written(questions, [row(0, query="Another one?")])
    for _ in range(2):
        done = command("batch", questions, "--out", out, *MODEL)
        assert done.code == 2
        assert "the question of 'row 0' (line 1) differs from the one asked under this id" in done.err
        out.unlink(missing_ok=True)
    assert server.calls == CALLS


def test_a_file_that_is_not_its_results_is_left_as_it_is(server, command, tmp_path):
    questions, out = written(tmp_path / "questions.jsonl", [row(0)]), tmp_path / "notes.txt"
    out.write_text("my notes\n")
    for given in (out, questions, tmp_path / "results.parquet", tmp_path / "none" / "r.jsonl"):
        done = command("batch", questions, "--out", given, *MODEL)
        assert done.code == 2, done.err
    assert out.read_text() == "my notes\n"
    assert server.calls == 0


def test_half_a_line_at_the_end_of_the_results_is_replaced(server, command, tmp_path):
    questions, out = written(tmp_path / "questions.jsonl", [row(0), row(1)]), tmp_path / "results.jsonl"
    assert command("batch", questions, "--out", out, *MODEL).code == 0
    out.write_bytes(out.read_bytes()[:-40])
    assert command("batch", questions, "--out", out, *MODEL).code == 0
    check_answers(read(out), 2)
    assert server.calls == 2 * CALLS


async def test_in_python_rows_are_dicts_with_paths_and_limits_of_their_own(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("word-1- is it")
    rows = [row(0, budget={"calls": 2}), row(1, context=None, path="text.txt")]
    async with AsyncSqliteSaver.from_conn_string("threads.sqlite") as saver:
        rlm = create_rlm("openai:scripted", sandbox="cpython", checkpointer=saver, budget=Budget(concurrency=4))
        summary = await create_batch(rlm, rows, "out.jsonl", name="mine", budget=BatchBudget(calls=50)).arun()
    short, whole = sorted(read(Path("out.jsonl")), key=lambda result: result["id"])
    assert (short["stop_reason"], whole["status"]) == ("calls", "complete")
    assert summary.statuses == {short["status"]: 1, "complete": 1}
    assert sum(short["usage"][part]["calls"] for part in ("root", "sub")) <= 2


async def test_what_cannot_be_a_batch_is_refused(tmp_path):
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
        rlm = create_rlm("openai:scripted", checkpointer=saver)
        asking = rlm.model_copy(update={"budget": Budget(approve_above_calls=3)})
        unsaved, out = rlm.model_copy(update={"checkpointer": None}), tmp_path / "out.jsonl"
        for refused in (
            lambda: create_batch(unsaved, [row(0)], out, name="a"),
            lambda: create_batch(asking, [row(0)], out, name="a"),
            lambda: create_batch(rlm, [row(0)], out),
            lambda: create_batch(rlm, [row(0)], out, name="a", rows_at_once=0),
            lambda: create_batch(rlm, [row(0)], out, name="a", budget=BatchBudget(usd=1)),
        ):
            with pytest.raises(ConfigurationError):
                refused()
