"""Runs that the command keeps: gone on with after what stopped them, listed, forked, talked to, forgotten."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain.cli.commands.runs import Line, table
from rlm_langchain.durability.thread_lock import thread_lock
from rlm_langchain.trajectory.jsonl import read_trace
from tests.commands import Command
from tests.servers.openai import HANGING, Message, Reply
from tests.servers.scripted import serve
from tests.servers.server import Request, Server

MODEL = ("--model", "openai:scripted")
TURNS = (
    "first = llm_query('one')",
    "both = [first, *llm_query_batched(['two', 'three'])]\nprint(both)",
    "FINAL([len(context), *both])",
    "FINAL(['again', *both])",
)
ANSWER = '[4, "<one>", "<two>", "<three>"]\n'


def script(messages: list[Message]) -> str:
    """Plays its turns over all questions of a thread."""
    if messages[0]["role"] != "system":
        return f"<{messages[0]['content']}>"
    turn = sum(message["role"] == "assistant" for message in messages)
    return f"```repl\n{TURNS[min(turn, len(TURNS) - 1)]}\n```"


class Fate(dict[str, Reply]):
    """What becomes of requests, by what they are called, as long as a test says so."""

    def __call__(self, request: Request) -> Reply | None:
        return self.get(called(request))


def called(request: Request) -> str:
    """The prompt of a sub-call, and which turn it is for a root call."""
    if request.messages[0]["role"] != "system":
        return str(request.messages[0]["content"])
    return f"turn {1 + sum(message['role'] == 'assistant' for message in request.messages)}"


@pytest.fixture
def fate() -> Fate:
    return Fate()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, fate: Fate) -> Iterator[Server]:
    with serve(script, rule=fate) as serving:
        monkeypatch.setenv("OPENAI_BASE_URL", serving.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield serving


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("word")
    return path


@pytest.fixture
def done(command: Command, server: Server, text: Path) -> Server:
    """A run of three turns is kept as `book`."""
    assert command("ask", "How long?", text, *MODEL, "--thread", "book", "-q").out == ANSWER
    return server


def asked(server: Server, since: int = 0) -> list[str]:
    return sorted(called(request) for request in server.requests[since:])


def runs(command: Command) -> list[dict[str, Any]]:
    return list(json.loads(command("runs", "--json").out))


def test_a_run_that_lost_its_model_goes_on_with_the_options_it_was_begun_with(
    command: Command, server: Server, fate: Fate, text: Path
) -> None:
    fate["turn 3"] = Reply(status=401, raw=b"{}")
    options = ("--sub-model", "openai:small", "--iterations", "7", "--sandbox", "monty", "--thread", "book")
    failed = command("ask", "How long?", text, *MODEL, *options)
    assert failed.code == 1
    assert failed.err.splitlines()[-1] == "What was paid for is saved: `rlm resume book` continues."
    [kept] = runs(command)
    assert (kept["thread"], kept["state"], kept["turns"], kept["calls"]) == ("book", "stopped", 2, 5)
    fate.clear()
    since = server.calls
    resumed = command("resume", "book", "--json")
    assert "the whole run: 3 turns, 3 sub-calls · price unknown\n" in resumed.err
    assert "added by this command: 1 turn, 0 sub-calls · " in resumed.err
    told = json.loads(resumed.out)
    assert (resumed.code, told["answer"], told["thread"]) == (0, json.loads(ANSWER), "book")
    assert asked(server, since) == ["turn 3"]
    assert {request.body["model"] for request in server.requests} == {"scripted", "small"}
    [kept] = runs(command)
    assert (kept["state"], kept["turns"], kept["calls"], kept["question"]) == ("complete", 3, 6, "How long?")


def test_ctrl_c_says_how_to_go_on_and_nothing_is_paid_twice(
    command: Command, server: Server, fate: Fate, text: Path, tmp_path: Path
) -> None:
    fate["turn 3"] = HANGING
    arguments = ["ask", "How long?", str(text), *MODEL, "--thread", "my book"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlm_langchain", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server.wait(lambda server: server.calls == 6)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "To go on from here: rlm resume 'my book'" in err
    assert "To look back: `rlm show 'my book'`" in err
    stopped = command("show", "my book")
    assert (stopped.code, "turn 2" in stopped.out, "turn 3" in stopped.out) == (0, True, False)
    assert stopped.out.splitlines()[-1].startswith("the run has not ended")
    fate.clear()
    since = server.calls
    trace = tmp_path / "steps.jsonl"
    resumed = command("resume", "my book", "--trace", trace)
    assert (resumed.code, resumed.out) == (0, ANSWER)
    assert asked(server, since) == ["turn 3"]
    assert [record["type"] for record in read_trace(trace)].count("turn") == 3, "the trace begins with the question"
    assert command("show", "my book").out == command("show", trace).out


def test_killed_at_once_a_run_goes_on(command: Command, server: Server, fate: Fate, text: Path) -> None:
    fate["turn 3"] = HANGING
    arguments = ["ask", "How long?", str(text), *MODEL, "--thread", "book", "-q"]
    process = subprocess.Popen([sys.executable, "-m", "rlm_langchain", *arguments], start_new_session=True)
    server.wait(lambda server: server.calls == 6)
    [kept] = runs(command)
    assert kept["state"] == "running"
    busy = command("resume", "book")
    assert (busy.code, "another process works on" in busy.err) == (1, True)
    assert command("forget", "book").code == 1
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert runs(command)[0]["state"] == "stopped"
    fate.clear()
    since = server.calls
    assert command("resume", "book", "-q").out == ANSWER
    assert asked(server, since) == ["turn 3"]


def test_the_next_question_goes_on_with_the_same_repl_and_the_same_models(command: Command, done: Server) -> None:
    since = done.calls
    second = command("ask", "And again?", "--thread", "book")
    assert (second.code, second.out) == (0, '["again", "<one>", "<two>", "<three>"]\n')
    assert asked(done, since) == ["turn 4"]
    [kept] = runs(command)
    assert (kept["question"], kept["turns"], kept["model"]) == ("And again?", 4, "openai:scripted")
    assert "context: as before" in second.err
    assert "this question: 1 turn, 0 sub-calls · " in second.err
    shown = command("show", "book").out
    told = ["How long?", "turn 1", "turn 3", "complete:", "And again?", "as before", "turn 4", '["again"']
    assert [shown.index(piece) for piece in told] == sorted(shown.index(piece) for piece in told)


@pytest.mark.parametrize(
    ("spoil", "said"), [(Path.unlink, "cannot be read"), (lambda text: text.write_text("drow"), "has changed")]
)
def test_a_context_that_is_not_what_it_was_is_told_before_another_turn_is_paid(
    command: Command, server: Server, fate: Fate, text: Path, spoil: Callable[[Path], object], said: str
) -> None:
    fate["turn 3"] = Reply(status=401, raw=b"{}")
    assert command("ask", "How long?", text, *MODEL, "--thread", "book", "-q").code == 1
    fate.clear()
    spoil(text)
    since = server.calls
    for arguments in (("resume", "book"), ("fork", "book"), ("ask", "And?", "--thread", "book")):
        wrong = command(*arguments)
        assert (wrong.code, wrong.out, server.calls) == (1, "", since)
        assert said in wrong.err
    assert [kept["thread"] for kept in runs(command)] == ["book"], "a fork that cannot go on leaves no thread"
    text.write_text("word")
    assert command("resume", "book", "-q").out == ANSWER


def test_a_run_that_has_ended_says_its_answer_again_and_asks_nothing(command: Command, done: Server) -> None:
    since = done.calls
    again = command("resume", "book")
    assert (again.code, again.out, done.calls) == (0, ANSWER, since)
    assert "This run has ended, so no model is called" in again.err
    assert "the whole run: 3 turns, 3 sub-calls · price unknown\n" in again.err


@pytest.mark.parametrize("raised", [("--calls", "300"), ("--usd", "1")])
def test_a_raised_limit_does_not_reopen_a_run_and_says_so(
    command: Command, done: Server, raised: tuple[str, ...]
) -> None:
    since = done.calls
    again = command("resume", "book", "-q", *raised)
    assert (again.code, again.out, done.calls) == (0, ANSWER, since)
    assert "`rlm fork book --at TURN` with the same options" in again.err


def test_a_fork_goes_back_to_a_turn_with_another_model(command: Command, done: Server) -> None:
    since = done.calls
    forked = command("fork", "book", "--at", "3", "--model", "openai:other")
    assert (forked.code, forked.out) == (0, ANSWER)
    assert "The new thread book-2 continues book from before turn 3." in forked.err
    assert asked(done, since) == ["turn 3"]
    assert done.requests[-1].body["model"] == "other"
    assert {(kept["thread"], kept["model"]) for kept in runs(command)} == {
        ("book", "openai:scripted"),
        ("book-2", "openai:other"),
    }
    since = done.calls
    assert command("fork", "book", "--at", "2", "--as", "mine", "-q").out == ANSWER
    assert asked(done, since) == ["three", "turn 2", "turn 3", "two"]
    copy = command("fork", "book", "-q")
    assert (copy.code, copy.out) == (0, ANSWER)
    assert command("ask", "?", "--thread", "book-3", "-q").out.startswith('["again"')


def test_a_fork_may_have_strategies_and_limits_of_its_own(command: Command, done: Server) -> None:
    forked = command(
        "fork", "book", "--at", "3", "--strategy", "peek", "--iterations", "9", "--as", "more", "--json"
    )
    assert json.loads(forked.out)["status"] == "complete"
    assert command("ask", "?", "--thread", "more", "--strategy", "grep", "-q").code == 0


NAMES = {
    "x" * 200: None,
    "a/b": None,
    "😀 it's": None,
    "..": None,
    "x" * 201: "has 201 characters: a name may have at most 200",
    "": "is blank",
    "a\nb": "has a character that cannot be displayed",
    " a": "begins or ends with a space",
    "-x": "begins with a dash",
}


@pytest.mark.parametrize(("name", "problem"), NAMES.items(), ids=range(len(NAMES)))
def test_a_name_is_taken_or_refused_by_all_commands_alike(
    command: Command, done: Server, name: str, problem: str | None
) -> None:
    asked = command("ask", "And?", *MODEL, f"--thread={name}", "-q")
    others = [command(*arguments, "--", name) for arguments in (("resume", "-q"), ("show",), ("forget",))]
    others.append(command("fork", "book", f"--as={name}", "-q"))
    if problem is None:
        assert [one.code for one in (asked, *others)] == [0] * 5
    else:
        assert [one.code for one in (asked, *others)] == [2] * 5
        assert all(problem in one.err and name * 2 not in one.err for one in (asked, *others) if name)
        assert [kept["thread"] for kept in runs(command)] == ["book"]


def test_a_table_cuts_long_names_on_a_terminal_only() -> None:
    line = Line(thread="😀" * 90, question="?", state="complete", turns=1, calls=1, cost_usd=0, at="", model=None)
    assert ("😀" * 90 in table([line])[1], "😀" * 90 in table([line], 80)[1]) == (True, False)
    head, row = table([line], 80)
    assert head.index("state") == row.index("complete") + row.count("😀")


def test_the_table_of_runs_is_for_people(command: Command, done: Server) -> None:
    lines = command("runs").out.splitlines()
    assert lines[0].split() == ["thread", "state", "turns", "calls", "cost", "when", "question"]
    assert lines[1].split()[:5] == ["book", "complete", "3", "6", "?"]
    assert lines[1].endswith("How long?")


def test_nothing_is_kept_and_nothing_is_made_until_there_is_a_thread(
    command: Command, server: Server, home: Path
) -> None:
    assert "there are no runs" in command("runs").out
    assert command("runs", "--json").out == "[]\n"
    assert not list(home.iterdir())


def test_a_run_that_is_forgotten_is_gone(command: Command, done: Server, home: Path) -> None:
    assert command("forget", "book", "boook").code == 2
    assert [kept["thread"] for kept in runs(command)] == ["book"], "none is forgotten when one is misspelt"
    assert command("forget", "book").out == "deleted book\n"
    assert runs(command) == []
    with closing(sqlite3.connect(home / "threads.sqlite")) as connection:
        assert connection.execute("select count(*) from checkpoints").fetchone() == (0,)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resume", "nobody"], "no run is saved as 'nobody': `rlm runs` lists"),
        (["resume", "book", "--strategy", "peek"], "rlm fork book --strategy"),
        (["fork", "nobody", "--at", "1"], "no run is saved as 'nobody'"),
        (["forget", "nobody"], "no run is saved as 'nobody'"),
        (["fork", "book", "--at", "9"], "no turn 9 to go back to: this thread has made 3"),
        (["fork", "book", "--at", "2", "--as", "book"], "on the thread 'book' already"),
        (["ask", "q", *MODEL, "--thread", " "], "the name ' ' is blank"),
        (
            ["ask", "q", *MODEL, "--thread", "a\x1b[31m"],
            "the name 'a\\x1b[31m' has a character that cannot be displayed",
        ),
        (["ask", "q", *MODEL, "--approve-above-calls", "much"], "give a number of calls (20), or off"),
        (["ask", "q", *MODEL, "--approve-above-calls", "2.5"], "--approve-above-calls 2.5: give a number of calls"),
        (["ask", "q", *MODEL, "--approve-above-usd", "-1"], "--approve-above-usd -1: give dollars (0.50), or off"),
        (["ask", "q", *MODEL, "--approve-above", "20"], "--approve-above-calls"),
        (["ask", "q", "--thread", "book", "--sandbox", "jail"], "no sandbox is called 'jail'"),
    ],
)
def test_a_mistake_is_a_sentence_and_asks_no_model(
    command: Command, done: Server, arguments: list[str], said: str
) -> None:
    since = done.calls
    wrong = command(*arguments)
    assert (wrong.code, wrong.out, done.calls) == (2, "", since)
    assert said in wrong.err
    assert "Traceback" not in wrong.err


def test_a_file_of_threads_that_is_none_is_a_sentence(command: Command, server: Server, home: Path) -> None:
    (home / "threads.sqlite").write_bytes(b"this is no database" * 1_000)
    for arguments in (["runs"], ["resume", "book"], ["ask", "q", *MODEL, "--thread", "book"]):
        wrong = command(*arguments)
        assert (wrong.code, wrong.out) == (1, "")
        assert wrong.err.startswith("rlm: a checkpoint cannot be read (DatabaseError)")
        assert f"That is in {home / 'threads.sqlite'}" in wrong.err


def test_options_that_were_changed_on_disk_are_refused(command: Command, done: Server, home: Path) -> None:
    with closing(sqlite3.connect(home / "threads.sqlite")) as connection, connection:
        connection.execute("update checkpoints set metadata = replace(metadata, 'scripted', 'scripted\\\", \\\"x')")
    wrong = command("ask", "q", "--thread", "book")
    assert wrong.code == 1
    assert "damaged" in wrong.err


class Person(io.StringIO):
    """Somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("thread", [(), ("--thread", "book")])
@pytest.mark.parametrize("said", ["y\n", "perhaps\nYes\n", "n\n", "perhaps\n", ""])
def test_a_person_is_asked_before_a_fan_out(
    command: Command,
    server: Server,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    thread: tuple[str, ...],
) -> None:
    monkeypatch.setattr(sys, "stdin", Person(said))
    ended = command("ask", "How long?", text, *MODEL, "--approve-above-calls", "3", *thread)
    assert "2 sub-calls are about to be made, for an unknown price; so far there were 3 model calls" in ended.err
    assert ("two" in asked(server)) == said.lower().endswith(("y\n", "yes\n"))
    assert (ended.out == ANSWER) == said.lower().endswith(("y\n", "yes\n"))
    assert ended.code == 0 or not said.lower().endswith(("y\n", "yes\n"))
    assert ("y for yes, n for no" in ended.err) == said.startswith("perhaps")


def test_without_a_terminal_nobody_can_be_asked(
    command: Command, server: Server, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_langchain.cli.streams.TERMINAL", tmp_path / "none")
    done = command("ask", "How long?", text, *MODEL, "--approve-above-calls", "3")
    assert (done.code, done.out, server.calls) == (2, "", 0)
    assert "there is no terminal here to ask at" in done.err


@pytest.mark.parametrize("reached", [min, max], ids=["main thread", "other thread"])
def test_ctrl_c_at_the_question_keeps_the_run_waiting(
    command: Command,
    server: Server,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reached: Callable[[Iterable[int]], int],
) -> None:
    ours, theirs = pty.openpty()
    arguments = ["ask", "How long?", str(text), *MODEL, "--approve-above-calls", "3", "--thread", "book"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlm_langchain", *arguments],
        stdin=theirs,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        assert any("asking" in line or "about to be made" in line for line in until(process.stderr, "[y/N] "))
        # The kernel prefers the thread that it is told of; Python hears nothing while its main one sleeps.
        os.kill(reached(map(int, os.listdir(f"/proc/{process.pid}/task"))), signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 130
    assert "rlm resume book" in err
    assert runs(command)[0]["state"] == "waiting"
    monkeypatch.setattr("rlm_langchain.cli.streams.TERMINAL", tmp_path / "none")
    for arguments in ((), ("--approve-above-calls", "100")):
        refused = command("resume", "book", *arguments)
        assert refused.code == 2
        assert "--approve-above-calls off" in refused.err
    resumed = command("resume", "book", "--approve-above-calls", "off")
    assert (resumed.code, resumed.out) == (0, ANSWER)


def until(stream: Any, end: str) -> list[str]:
    """What is written, up to a prompt that ends no line."""
    said = ""
    while not said.endswith(end):
        piece = stream.read(1)
        assert piece, said
        said += piece
    return said.splitlines()


def test_a_thread_that_is_leased_is_running(command: Command, done: Server, home: Path) -> None:
    with thread_lock(home, "book"):
        assert runs(command)[0]["state"] == "running"
    assert runs(command)[0]["state"] == "complete"


def forget_the_last_checkpoint(home: Path, count: int = 1) -> None:
    """What a process leaves behind that is killed before it writes this checkpoint, and so many of those before."""
    with closing(sqlite3.connect(home / "threads.sqlite")) as database, database:
        for _ in range(count):
            last = "select max(checkpoint_id) from checkpoints where checkpoint_ns = ''"
            database.execute(f"delete from checkpoints where checkpoint_id = ({last})")


@pytest.mark.parametrize(("count", "state"), [(1, "complete"), (2, "stopped"), (3, "stopped")])
def test_a_run_that_was_killed_between_two_checkpoints_is_listed_and_gone_on_with(
    command: Command, done: Server, home: Path, count: int, state: str
) -> None:
    since = done.calls
    forget_the_last_checkpoint(home, count)
    assert runs(command)[0]["state"] == state
    assert command("resume", "book", "-q").out == ANSWER
    assert asked(done, since) == []
    assert runs(command)[0]["state"] == "complete"


def test_a_broken_thread_is_listed_as_broken_beside_the_others_and_says_the_way_out(
    command: Command, done: Server, home: Path
) -> None:
    command("ask", "How long?", *MODEL, "--thread", "other", "-q")
    with closing(sqlite3.connect(home / "threads.sqlite")) as database, database:
        lost = "select max(rowid) from writes where channel = 'trajectory' and thread_id = 'book'"
        database.execute(f"delete from writes where rowid = ({lost})")
    assert {kept["thread"]: kept["state"] for kept in runs(command)} == {"book": "broken", "other": "complete"}
    assert "broken" in command("runs").out
    for arguments in (["resume", "book"], ["show", "book"], ["ask", "q", *MODEL, "--thread", "book"]):
        refused = command(*arguments)
        assert (refused.code, refused.out) == (1, "")
        assert "'book'" in refused.err
        assert "`rlm fork`" in refused.err
    forked = command("fork", "book", "--at", "3", "--as", "back", "-q")
    assert (forked.err, forked.out) == ("", ANSWER)
    assert command("forget", "book").code == 0
    assert [kept["thread"] for kept in runs(command)] == ["back", "other"]


@pytest.mark.parametrize("missing", ["all", "some", "the last"])
def test_a_thread_that_cannot_be_kept_is_told_and_no_answer_is_lost(
    command: Command, done: Server, home: Path, text: Path, missing: str
) -> None:
    """A database that takes so many rows more, and then says what it says of a full disk."""
    with closing(sqlite3.connect(home / "threads.sqlite")) as database:
        [whole] = database.execute("select count(*) from checkpoints").fetchone()
        rows = {"all": 0, "some": 3, "the last": whole - 1}[missing]
        database.execute(
            "create trigger full before insert on checkpoints when (select count(*) from checkpoints "
            f"where thread_id = 'new') >= {rows} begin select raise(fail, 'database or disk is full'); end"
        )
    before = done.calls
    failed = command("ask", "How long?", text, *MODEL, "--thread", "new")
    assert failed.code == 1
    assert "a checkpoint cannot be written" in failed.err
    assert "Traceback" not in failed.err
    assert (done.calls > before) == (missing != "all")
    assert ("The answer, which is not saved:" in failed.err) == (missing == "the last")
