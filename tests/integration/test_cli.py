"""The command as a person uses it, against a model server on loopback and a real sandbox."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain.cli import run
from rlm_langchain.trajectory.jsonl import read_trace
from rlm_langchain.trajectory.tree import Trajectory
from tests.commands import Command, Done
from tests.processes import descendants, gone
from tests.servers.openai import HANGING, Message, Reply
from tests.servers.scripted import echo, rlm, serve
from tests.servers.server import Server

ASK = ("ask", "How long is it?")
MODEL = ("--model", "openai:scripted")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("word " * 2_000)
    return path


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A model that asks twenty times and answers with the length of the context."""
    code = "replies = llm_query_batched([f'item {i}' for i in range(20)])\nprint(replies[7])\nFINAL(len(context))"
    with serve(rlm(code)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def test_the_answer_is_on_standard_output_and_the_work_on_standard_error(
    command: Command, counting: Server, text: Path
) -> None:
    done = command(*ASK, text, *MODEL)
    assert (done.code, done.out) == (0, "10000\n")
    shown = done.err
    pieces = ["question: How long is it?", "turn 1", "| FINAL(len(context))", "asking 20", "> item 7", "complete:"]
    assert [shown.index(piece) for piece in pieces] == sorted(shown.index(piece) for piece in pieces)
    assert "1 turn, 20 sub-calls" in shown
    read = counting.tokens["input"]
    assert f"models read {read:,} tokens" in shown
    assert f"the context has about 2,500, so they read {100 * read / 2_500:.2g} % as many" in shown


def test_quiet_shows_nothing_but_the_answer(command: Command, counting: Server, text: Path) -> None:
    assert command(*ASK, text, *MODEL, "--quiet") == Done(0, "10000\n", "")


@pytest.mark.parametrize(
    ("given", "options", "warning"),
    [
        ("latin.txt", (), "in the context: guessed: its encoding is cp1252, with little confidence"),
        ("folder", (), 'in the context: left out: 1 damaged PNG image ("b.bin")'),
        ("latin.txt", ("--encoding", "latin-1"), ""),
        ("left out; 1 replaced by U+FFFD", (), ""),
        (None, ("--calls", "5"), "no model calls were left; 17 calls were refused by a limit"),
    ],
)
def test_quiet_warns_in_one_line_if_and_only_if_the_answer_may_lack_something(
    command: Command, counting: Server, tmp_path: Path, given: str | None, options: tuple[str, ...], warning: str
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "left out; 1 replaced by U+FFFD").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("text")
    (tmp_path / "folder" / "b.bin").write_bytes(b"\x89PNG\r\n\x1a\n")
    where = [tmp_path / given] if given else [tmp_path / "latin.txt", "--encoding", "latin-1"]
    done = command(*ASK, *where, *MODEL, *options, "-q", "--json")
    assert done.err == (f"rlm: the answer may be wrong or incomplete: {warning}\n" if warning else "")
    assert "; ".join(json.loads(done.out)["warnings"]) == warning


def test_json_is_one_object_with_everything_but_the_steps(command: Command, counting: Server, text: Path) -> None:
    done = command(*ASK, text, *MODEL, "--json", "-q")
    told = json.loads(done.out)
    assert (told["answer"], told["status"], told["stop_reason"]) == (10_000, "complete", "answer")
    assert told["usage"]["sub"]["calls"] == told["sub_calls"] == 20
    assert told["context"]["tokens"] == 2_500
    assert told["cost_usd"] is None
    assert "trajectory" not in told


def test_a_trace_holds_every_step_and_can_be_shown(
    command: Command, counting: Server, text: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "steps.jsonl"
    asked = command(*ASK, text, *MODEL, "--trace", trace, "--json")
    assert json.loads(asked.out)["trace"] == str(trace)
    kinds = [record["type"] for record in read_trace(trace)]
    assert kinds == ["question", "turn", "cell", "wave", *["call"] * 20, "output", "answer"]
    shown = command("show", trace)
    assert shown.code == 0
    assert "| FINAL(len(context))" in shown.out
    assert "complete: the model gave its answer" in shown.out
    assert shown.out.rstrip().endswith("price unknown")


def test_a_trace_of_child_runs_counts_what_was_billed(
    command: Command, monkeypatch: pytest.MonkeyPatch, text: Path, tmp_path: Path
) -> None:
    def script(messages: list[Message]) -> str:
        if messages[0]["role"] != "system":
            return echo(messages)
        if "half" in str(messages[1]["content"]):
            return "```repl\nFINAL(llm_query(context))\n```"
        return "```repl\nFINAL(rlm_query_batched(['half?', 'half?'], [context[:5], context[5:9]]))\n```"

    with serve(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        trace = tmp_path / "steps.jsonl"
        done = command(*ASK, text, *MODEL, "--depth", "2", "--trace", trace)
    told = Trajectory.of(read_trace(trace))
    assert done.out == '["word ", "word"]\n'
    assert set(told.runs) == {"", "0", "1"}
    assert told.spent.total.calls == server.calls == 5
    assert told.spent.total.input == server.tokens["input"]
    assert "  [1] question: half?" in command("show", trace).out


def test_standard_input_is_a_context(command: Command, counting: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("naïve".encode())))
    assert command(*ASK, "-", *MODEL, "-q").out == "5\n"


def test_what_is_piped_in_and_not_asked_about_is_not_paid_for(
    command: Command, counting: Server, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with text.open() as given:
        monkeypatch.setattr(sys, "stdin", given)
        done = command(*ASK, *MODEL)
        assert (done.code, done.out, counting.calls) == (2, "", 0)
        assert "rlm ask QUERY - reads it" in done.err
        assert command(*ASK, "-", *MODEL, "-q").out == "10000\n", "what was looked at is still there"
        before = counting.calls
        command(*ASK, *MODEL, "-q")
        assert counting.calls > before, "nothing is left in it: a question without a context may be asked"


def test_several_files_and_folders_become_one_dict(
    command: Command, counting: Server, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    monkeypatch.chdir(tmp_path)
    done = command(*ASK, "text.txt", "folder/", *MODEL)
    assert done.out == "3\n"
    assert '"text.txt", "folder/a.txt", "folder/b.txt"' in done.err


def test_a_question_needs_no_context(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(rlm("FINAL(context is None)")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = command(*ASK, *MODEL)
    assert done.out == "true\n"
    assert "no context" in done.err


def test_the_models_may_be_named_by_the_environment(
    command: Command, counting: Server, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_MODEL", "openai:big")
    monkeypatch.setenv("RLM_SUB_MODEL", "openai:small")
    assert command(*ASK, text).code == 0
    assert {request.body["model"] for request in counting.requests} == {"big", "small"}


def test_a_model_that_is_named_is_not_mixed_with_one_of_the_environment(
    command: Command, counting: Server, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_SUB_MODEL", "openai:small")
    assert command(*ASK, text, *MODEL).code == 0
    assert {request.body["model"] for request in counting.requests} == {"scripted"}


def test_limits_end_a_run_with_a_partial_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(rlm("print('looking')", "print('still looking')")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = command(*ASK, *MODEL, "--iterations", "2", "--json")
    told = json.loads(done.out)
    assert told["stop_reason"] == "iterations"
    assert "no turns were left" in done.err
    assert server.calls == 3


def test_a_run_without_an_answer_ends_with_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(rlm("x = 1", "x = 2")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = command(*ASK, *MODEL, "--iterations", "1")
    assert (done.code, done.out) == (1, "")
    assert "failed: no turns were left" in done.err


def test_what_was_seen_last_is_no_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(rlm("print('seen')")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done, quiet = (command(*ASK, *MODEL, "--calls", "1", *more) for more in ((), ("-q",)))
    assert (done.code, done.out, quiet.code, quiet.out) == (1, "", 1, "")
    assert "seen" in done.err
    assert quiet.err == "rlm: there is no answer: no model calls were left\n"


def test_a_dead_provider_is_a_sentence_and_ends_with_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(echo, rule=lambda _: Reply(status=401, raw=b"{}")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = command(*ASK, *MODEL, "-q")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("rlm: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("terminal", [True, False])
def test_an_answer_cannot_move_a_terminal_and_reaches_a_program_as_it_is(
    command: Command, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    with serve(rlm("FINAL(chr(27) + '[31mred')")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        done = command(*ASK, *MODEL, "-q")
    assert done.out == ("\\x1b[31mred\n" if terminal else "\x1b[31mred\n")


def wrong(name: str, arguments: list[str], *said: str, **environment: str) -> Any:
    return pytest.param(arguments, said, environment, id=name)


@pytest.mark.parametrize(
    ("arguments", "said", "environment"),
    [
        wrong("no model", ["ask", "q"], "no model was named", "local", "OPENROUTER_API_KEY", "OPENAI_BASE_URL"),
        wrong("empty question", ["ask", "  ", *MODEL], "the question is empty"),
        wrong("unknown form", ["ask", "q", "--model", "gpt"], "'gpt' is not a valid model name", "vendor/name"),
        wrong("no key", ["ask", "q", "--model", "openai/gpt-4o"], "OPENROUTER_API_KEY is not set"),
        wrong("no such file", ["ask", "q", "nowhere.txt", *MODEL], "nowhere.txt"),
        wrong("no such file, and no model", ["ask", "q", "nowhere.txt", "--model", "a/b"], "nowhere.txt"),
        wrong("empty file", ["ask", "q", "empty.txt", *MODEL], "empty.txt"),
        wrong("binary file", ["ask", "q", "image.png", *MODEL], "a damaged PNG image"),
        wrong("empty folder", ["ask", "q", "folder", *MODEL], "no readable text"),
        wrong("undecodable", ["ask", "q", "latin.txt", "--strict", *MODEL], "decoded at byte 3", "--encoding"),
        wrong("undecodable in a folder", ["ask", "q", "old", "--strict", *MODEL], "convert it", "leave out"),
        wrong("not text in UTF-8", ["ask", "q", "bytes", *MODEL], "not text in UTF-8", "--encoding latin-1"),
        wrong("an address", ["ask", "q", "https://x.test/?a&b", *MODEL], "curl -s 'https://x.test/?a&b' | rlm ask"),
        wrong("the wrong way round", ["ask", "latin.txt", "what?", *MODEL], "what?: the question comes first"),
        wrong("a file and no question", ["ask", "latin.txt", *MODEL], 'rlm ask "What is in it?" latin.txt'),
        wrong("a folder and no question", ["ask", "folder", *MODEL], "there is no question"),
        wrong("twice", ["ask", "q", "latin.txt", "latin.txt", *MODEL], "given twice"),
        wrong("no such sandbox", ["ask", "q", "--sandbox", "jail", *MODEL], "no sandbox is called 'jail'"),
        wrong("a slip in a sandbox", ["ask", "q", "--sandbox", "montty", *MODEL], "did you mean 'monty'?"),
        wrong("a slip in a strategy", ["ask", "q", "--strategy", "Gerp", *MODEL], "did you mean 'grep'?"),
        wrong("no provider", ["ask", "q", "--model", "gpt-4o"], "did you mean openai:gpt-4o?"),
        wrong("another case", ["ask", "q", "-m", "OpenAI:gpt-4o"], "did you mean openai:gpt-4o?"),
        wrong("swapped", ["ask", "q", "-m", "gpt4o:openai"], "did you mean openai:gpt4o?"),
        wrong("no such strategy", ["ask", "q", "--strategy", "guess", *MODEL], "no strategy is called 'guess'"),
        wrong("no encoding", ["ask", "q", "latin.txt", "--encoding", "hex", *MODEL], "--encoding hex is not known"),
        wrong("another encoding", ["ask", "q", "latin.txt", "--encoding", "ascii", *MODEL], "another --encoding"),
        wrong("encoding of a folder", ["ask", "q", "folder", "--encoding", "latin-1", *MODEL], "is a folder"),
        wrong("no price", ["ask", "q", *MODEL, "--price", "3"], "--price 3: give dollars", "0.15:0.60"),
        wrong("price of nobody", ["ask", "q", *MODEL, "--price", "a=1:2"], "there are prices for ['a']"),
        wrong("a slip in an option", ["ask", "q", "--modle", "x"], "--modle", "--model"),
        wrong("a slip in a command", ["aks", "q"], "'ask'"),
        wrong("trace in no folder", ["ask", "q", *MODEL, "--trace", "no/trace"], "cannot write no/trace"),
        wrong("no number", ["ask", "q", *MODEL, "--calls", "many"], "--calls"),
        wrong("negative", ["ask", "q", *MODEL, "--usd", "-1"], "--usd"),
        wrong("no such option", ["ask", "q", "--magic"], "--magic"),
        wrong("no such command", ["dance"], "dance"),
        wrong("no such trace", ["show", "nothing.jsonl"], "no run and no file called 'nothing.jsonl'"),
        wrong("no trace", ["show", "latin.txt"], "is not a"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence_before_any_model_is_asked(
    command: Command,
    counting: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "latin.txt").write_bytes(b"caf\xe9 au lait\n")
    (tmp_path / "bytes").write_bytes(bytes(range(200, 256)) * 4)
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert all(piece in done.err for piece in said), done.err
    assert counting.calls == 0


def test_bytes_that_cannot_be_decoded_are_replaced_and_counted(
    command: Command, counting: Server, tmp_path: Path
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\x81")
    done = command(*ASK, tmp_path / "latin.txt", *MODEL)
    assert done.out == "4\n"
    assert "1 undecodable byte sequence replaced" in done.err


@pytest.mark.parametrize("given", ["latin.txt", "-"])
def test_files_in_another_encoding_are_read_in_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    with serve(rlm("FINAL(context)")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert command(*ASK, given, "-m", "openai:scripted", "--encoding", "cp1252", "-q").out == "café\n"


def test_a_price_that_is_given_is_counted_and_limited(command: Command, counting: Server, text: Path) -> None:
    done = command(*ASK, text, *MODEL, "--price", "1:2", "--usd", "1", "--json", "-q")
    tokens = counting.tokens
    assert json.loads(done.out)["cost_usd"] == pytest.approx((tokens["input"] + 2 * tokens["output"]) / 1e6)


def test_a_trace_that_cannot_be_written_ends_and_the_run_goes_on(
    command: Command, counting: Server, text: Path
) -> None:
    done = command(*ASK, text, *MODEL, "--trace", "/dev/full", "--json")
    assert (done.code, json.loads(done.out)["answer"], json.loads(done.out)["trace"]) == (0, 10_000, None)
    assert done.err.count("cannot write /dev/full (No space left on device): the trace ends there") == 1


def test_the_doctor_names_what_is_there_and_never_a_key(
    command: Command, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-secret")
    done = command("doctor")
    assert done.code == 0
    assert "sk-or-secret" not in done.out
    assert "ok OPENROUTER_API_KEY" in done.out
    assert "OPENAI_API_KEY" in done.out
    assert str(home) in done.out
    assert "cpython" in done.out
    assert "monty" in done.out


def test_the_doctor_says_what_protects_from_each_sandbox(command: Command) -> None:
    sandboxes = command("doctor").out.partition("sandboxes\n")[2].partition("\n\n")[0]
    cpython, monty = sandboxes.split("ok monty")
    for what in ("files", "network", "processes", "memory", "time", "output", "secrets", "not covered"):
        assert f"  {what} " in monty
        assert sys.platform != "linux" or f"  {what} " in cpython
    if sys.platform == "linux":
        assert all(word in cpython for word in ("Landlock ABI", "seccomp", "rlimit", "MemoryError", "wall clock"))


def test_the_doctor_says_what_to_do_about_a_sandbox_that_cannot_run(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sandlock", None)
    [line] = [line for line in command("doctor").out.splitlines() if " cpython " in line]
    assert line.strip().startswith("--")
    assert "pip install sandlock" in line or sys.platform != "linux"
    assert "sandbox='monty'" in line


def test_strategies_and_version_and_help(command: Command) -> None:
    assert "partition_map        Cut everything into pieces" in command("strategies").out
    shown = command("strategies", "show", "grep")
    assert "Search with code" in shown.out
    assert "def grep(pattern" in shown.out
    assert command("strategies", "show", "gerp").code == command("strategies", "shwo", "grep").code == 2
    assert command("--version").out.startswith("rlm-langchain 0.")
    for name in ("ask", "show", "strategies", "doctor"):
        assert name in command("--help").out
        assert command(name, "--help").code == 0
    assert "rlm bench run" in command("bench", "--help").out


def test_a_folder_of_skills_is_shown_and_used(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "skills" / "loud"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: loud\ndescription: Shouts.\n---\nUse `loud(text)`.\n")
    (folder / "helpers.py").write_text("def loud(text):\n    return text.upper()\n")
    assert "def loud(text)" in command("strategies", "show", folder).out
    with serve(rlm("FINAL(loud('yes'))")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-...")
        done = command(*ASK, folder, *MODEL, "--strategy", "auto", "--strategy", tmp_path / "skills")
    assert (done.code, done.out) == (0, "YES\n")
    assert "strategies: loud, direct, chosen by the context" in done.err


def test_a_broken_strategy_is_named_beside_the_list(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "torn_strategy-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torn-strategy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[rlm_langchain.strategies]\ntorn = torn_strategy:torn\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = command("strategies")
    assert done.code == 0
    assert "the strategy 'torn' is broken and is left out" in done.err
    assert "torn" not in done.out
    assert "peek" in done.out


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlm_langchain", "--version"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rlm-langchain")


@pytest.mark.parametrize(
    ("waits_for", "sandbox"),
    [
        ("the root model", "auto"),
        ("sub-calls", "cpython"),
        ("sub-calls", "monty"),
        ("a cell", "cpython"),
        ("a cell", "monty"),
    ],
)
def test_ctrl_c_leaves_no_process_and_says_how_to_go_on(
    tmp_path: Path, text: Path, waits_for: str, sandbox: str
) -> None:
    code = {"sub-calls": "llm_query_batched([str(i) for i in range(9)])", "a cell": "while True: pass"}

    def script(messages: list[Message]) -> str | Reply:
        root = messages[0]["role"] == "system"
        return f"```repl\n{code[waits_for]}\n```" if root and waits_for in code else HANGING

    trace = tmp_path / "steps.jsonl"
    with serve(script) as server:
        environment = {**os.environ, "OPENAI_BASE_URL": server.url}
        options = ["--sandbox", sandbox, "--trace", str(trace)]
        process = subprocess.Popen(
            [sys.executable, "-m", "rlm_langchain", *ASK, str(text), *MODEL, *options],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        awaited = {"the root model": "context:", "sub-calls": "asking 9", "a cell": "while True"}[waits_for]
        assert any(awaited in line for line in process.stderr)
        below = descendants(process.pid)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "Interrupted after" in err
    assert f"rlm show {trace}" in err
    assert "Traceback" not in err
    assert all(map(gone, below))
    assert read_trace(trace)


@pytest.mark.parametrize("more", [(), ("--json",), ("--quiet",)])
def test_an_answer_that_cannot_be_written_is_not_lost(more: tuple[str, ...], text: Path, counting: Server) -> None:
    command = [sys.executable, "-m", "rlm_langchain", *ASK, str(text), *MODEL, *more]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "rlm: standard output cannot be written (No space left on device)" in done.stderr
    assert "10000" in done.stderr.partition("The answer is:")[2]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", "h\\xe9 \\u2713 \\U0001f600"), ("cp1252", "hé \\u2713 \\U0001f600"), ("utf-8", "hé ✓ 😀")],
)
def test_an_answer_is_not_lost_to_an_encoding(
    command: Command, monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    given, told = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    with serve(rlm("FINAL('h\\u00e9 \\u2713 \\U0001f600')")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setattr(sys, "stdout", given)
        monkeypatch.setattr(sys, "stderr", told)
        assert run([*ASK, *MODEL]) == 0
    told.flush()
    said = told.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert given.buffer.getvalue().decode(encoding) == f"{shown}\n"  # type: ignore[attr-defined]
    assert (f"rlm: standard output is in {encoding}, which cannot show" in said) == (encoding != "utf-8")
    assert "Traceback" not in said
    assert "1 turn, 0 sub-calls" in said
    assert ("turn 1 - openai:scripted -" in said) == (encoding == "ascii")


@pytest.mark.parametrize(
    ("more", "kept"), [((), "The answer is:\nno more\n"), (("--thread", "a b"), "`rlm resume 'a b'`")]
)
def test_a_reader_who_is_gone_is_told_where_the_answer_is(
    command: Command, counting: Server, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], kept: str
) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert run([*ASK, *MODEL, *more, "-q"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rlm: standard output was closed before all of the answer was written")
    assert kept in said
    assert command("runs").out.count("complete") == 1


@pytest.mark.parametrize("option", ["--model", "--sub-model", "--strategy"])
def test_a_name_that_is_not_utf8_is_a_sentence(command: Command, counting: Server, option: str) -> None:
    done = command(*ASK, *MODEL, option, "openai:\udcef")
    assert (done.code, counting.calls) == (2, 0)
    assert "is not in UTF-8" in done.err


def test_a_question_that_is_not_utf8_is_asked_and_what_was_replaced_is_told(
    command: Command, counting: Server, tmp_path: Path
) -> None:
    path = tmp_path / "caf\udce9.txt"
    path.write_text("hello")
    done = command("ask", "caf\udce9?", path, *MODEL, "--thread", "t", "--trace", tmp_path / "t\udce9.jsonl")
    assert (done.code, done.out) == (0, "5\n")
    assert "question: caf\ufffd?" in done.err
    assert "U+FFFD stands for 1 character" in done.err
    assert command("resume", "t", "-q").out == "5\n"
    assert command("show", tmp_path / "t\udce9.jsonl").code == 0


def piped(arguments: tuple[Any, ...], reader: str) -> tuple[int, str]:
    """Run a command whose output a shell pipes to a reader. Returns its exit code, and what was read."""
    command = shlex.join([sys.executable, "-m", "rlm_langchain", *map(str, arguments)])
    script = f"{command} {reader}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("strategies",), ("ask", "--help")])
def test_a_reader_who_has_seen_enough_ends_a_command_that_only_prints_in_silence(
    arguments: tuple[str, ...],
) -> None:
    assert piped(arguments, "2>&1 | true") == (141, "")


def test_a_paid_run_goes_on_when_its_progress_has_no_reader(
    command: Command, counting: Server, text: Path, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    assert piped((*ASK, text, *MODEL), f"2>&1 >{answer} | head -1") == (0, "\n")
    assert (answer.read_text(), counting.calls) == ("10000\n", 21)
    code, _ = piped((*ASK, text, *MODEL, "--thread", "kept"), "2>&1 | head -1")
    assert (code, counting.calls) == (2, 42)
    assert command("resume", "kept", "-q") == Done(0, "10000\n", "")


def test_a_progress_report_that_cannot_be_written_ends_no_run(counting: Server, text: Path) -> None:
    assert piped((*ASK, text, *MODEL), "2>/dev/full | cat") == (0, "10000\n")


@pytest.mark.parametrize("arguments", [("strategies",), ("doctor",), ("runs",)])
def test_a_full_disk_is_told_by_every_command(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "rlm_langchain", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "rlm: standard output cannot be written (No space left on device): write elsewhere\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_an_answer_that_is_none_is_no_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(rlm("FINAL(None)", "FINAL(None)")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = Done(1, "", "rlm: there is no answer: the model gave an empty answer\n")
        assert command(*ASK, *MODEL, "-q") == done


def test_what_an_answer_lacks_is_told_to_people_and_programs(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(rlm("found = llm_query_batched([str(n) for n in range(20)])", "FINAL('all')")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = command(*ASK, *MODEL, "--calls", "5", "--json")
    told = json.loads(done.out)
    assert (told["status"], told["stop_reason"], told["degraded"]) == ("partial", "calls", {"refused": 17})
    assert "may be wrong or incomplete: no model calls were left; 17 calls were refused by a limit" in done.err


def test_the_doctor_says_whether_the_local_model_is_here(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def told() -> str:
        return next(line for line in command("doctor").out.splitlines() if " local " in line)

    # The user's own data folder, whose weights every home may use, is an empty one.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert ("fetched when it is first used" in told()) == (find_spec("xllamacpp") is not None)
    (tmp_path / "weights.gguf").touch()
    monkeypatch.setenv("RLM_LOCAL_MODEL", str(tmp_path / "weights.gguf"))
    assert (str(tmp_path / "weights.gguf") in told()) == (find_spec("xllamacpp") is not None)


@pytest.mark.parametrize(
    ("closed", "given", "said"),
    [
        (">&-", "", "standard output is closed"),
        ("<&-", "-", "standard input is closed, and - reads from it"),
        ("2>&-", "nowhere.txt", ""),
    ],
)
def test_a_stream_that_is_closed_is_told_before_any_model_is_asked(
    counting: Server, closed: str, given: str, said: str
) -> None:
    command = shlex.join([sys.executable, "-m", "rlm_langchain", *ASK, given or __file__, *MODEL])
    done = subprocess.run(f"{command} {closed}", shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, counting.calls) == (2, "", 0)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


@pytest.mark.parametrize("as_file", [True, False])
def test_an_answer_fits_the_schema_or_the_reason_is_told(
    as_file: bool, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: Any = SCHEMA
    if as_file:
        given = tmp_path / "schema.json"
        given.write_text(SCHEMA)
    with serve(rlm("FINAL({'n': 'x'})", "FINAL({'n': 7})")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert json.loads(command(*ASK, *MODEL, "--schema", given, "--quiet").out) == {"n": 7}
    with serve(rlm("FINAL('no')", "FINAL('no')")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        done = command(*ASK, *MODEL, "--schema", given, "--iterations", "2")
    assert done.code == 1
    assert "The last answer does not fit the schema: the answer: 'no' is not of type 'object'" in done.err


@pytest.mark.parametrize("given", ["{", "no/such/file.json", '{"type": "nothing"}'])
def test_a_schema_that_is_none_is_a_sentence_before_anything_is_asked(given: str, command: Command) -> None:
    done = command(*ASK, *MODEL, "--schema", given)
    assert done.code not in (0, 1)
    assert "Traceback" not in done.err
