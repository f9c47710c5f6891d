"""One session of Monty: traps that were found by probing, hints, limits, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.cpython.resting import SLACK, processor_seconds
from rlm_langchain.sandboxes.monty import GUIDANCE, MontySandbox, scratch
from rlm_langchain.sandboxes.monty import process as monty_process
from rlm_langchain.sandboxes.monty.session import MontySession
from rlm_langchain.testing.conformance.base import echo, finish, stored
from rlm_langchain.types import (
    Answered,
    Call,
    Completed,
    Died,
    Limits,
    Reply,
    Step,
    Suspended,
)
from tests.processes import state

Opener = Callable[..., MontySession]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    sessions: list[MontySession] = []

    def opener(context: Any = None, prelude: str = "", **limits: Any) -> MontySession:
        file = None if context is None else stored(context, tmp_path)
        sessions.append(MontySandbox().open(file, prelude, Limits(**{"seconds": 10, **limits})))
        return sessions[-1]

    yield opener
    for session in sessions:
        session.close()


@pytest.fixture
def session(opened: Opener) -> MontySession:
    return opened()


def said(session: MontySession, code: str) -> Step:
    return finish(session, session.run(code), echo)


def fault(session: MontySession, code: str) -> str:
    step = said(session, code)
    assert isinstance(step, Completed)
    assert step.error is not None
    return step.error


SHARED = "x = ('a' * 1000,)\nfor _ in range(60):\n    x = (x, x)\n"


# --- Traps


@pytest.mark.parametrize(
    "call",
    ["llm_query(x)", "nothing(x)", "nothing({x: 1})", "FINAL(x)", "__rlm_sent__({x})", "print({x}) if 0 else x"],
)
def test_a_graph_that_would_never_end_is_not_looked_at_by_the_host(session: MontySession, call: str) -> None:
    step = said(session, SHARED + call)
    assert isinstance(step, Completed | Died)
    assert isinstance(step, Died) or said(session, "print(1)") == Completed("1\n")


def test_nothing_that_the_host_has_to_say_can_be_swallowed(session: MontySession) -> None:
    code = "try:\n    llm_query('a')\nexcept BaseException as e:\n    print('swallowed', e)\nprint('on')"
    assert session.run(code) == Suspended((Call("llm", "a"),))
    session.close()
    assert isinstance(session.resume([Reply("late")]), Died)


def test_a_failed_call_shows_our_sentence_and_nothing_else(session: MontySession) -> None:
    session.run("llm_query('a')")
    step = session.resume([Reply(error="the provider did not answer")])
    assert isinstance(step, Completed)
    assert str(step.error).endswith("LLMError: the provider did not answer")


def test_an_error_of_any_length_is_cut(session: MontySession) -> None:
    error = fault(session, "raise ValueError('x' * 10_000_000)")
    assert len(error) < 5_000
    assert "of 10,000,012 characters left out" in error


def test_a_flood_of_output_ends_the_worker_at_once(opened: Opener) -> None:
    session = opened(output=50_000, seconds=3600)
    step = session.run("while True:\n    print('x' * 1000)")
    assert isinstance(step, Died)
    assert step.reason == "output"
    assert len(step.stdout) == 50_000


@pytest.mark.parametrize(
    "code",
    [
        "x = 3\nwhile True:\n    x = x * x",
        "import math\nmath.factorial(10 ** 7)",
        SHARED + "repr(x)",
        "while True: pass",
    ],
)
def test_work_that_does_not_look_at_the_clock_is_ended_too(opened: Opener, code: str) -> None:
    step = opened(seconds=0.5).run(code)
    assert isinstance(step, Died)
    assert step.reason == "time"
    assert "0.5 seconds" in step.error


@pytest.mark.parametrize(
    "code",
    [
        "x = [0] * 10 ** 9",
        "nothing(list(range(1_500_000)))",
        "x = []\nwhile True:\n    x.append('y' * 10 ** 5 + str(len(x)))",
    ],
)
def test_a_session_that_ran_out_of_memory_is_over(
    opened: Opener, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    session = opened(memory=64 << 20)
    step = session.run(code)
    assert isinstance(step, Died)
    assert step.reason == "memory"
    assert isinstance(session.run("print(1)"), Died)
    assert capfd.readouterr() == ("", ""), "the worker's own words are not for the terminal"


def test_what_cells_print_is_never_printed_by_the_host(
    session: MontySession, capfd: pytest.CaptureFixture[str]
) -> None:
    said(session, "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.write('written')")
    assert capfd.readouterr() == ("", "")


def test_half_a_surrogate_pair_in_a_reply_becomes_a_replacement_character(session: MontySession) -> None:
    session.run("x = llm_query('a')\nprint(x, len(x))")
    assert session.resume([Reply("a\ud800b\U0001f600")]) == Completed("a\ufffdb\U0001f600 4\n")


def test_a_cell_that_exits_ends_with_a_sentence(session: MontySession) -> None:
    assert fault(session, "exit()").endswith("SystemExit: the cell ended itself; the REPL goes on")
    assert fault(session, "raise SystemExit('bye')").endswith("SystemExit: bye")
    assert said(session, "print('on')") == Completed("on\n")


def test_built_in_types_have_their_methods_when_asked(session: MontySession) -> None:
    code = "print(hasattr('a', 'upper'), hasattr({}, 'keys'), hasattr([], 'keys'), callable(len), callable(3))"
    assert said(session, code) == Completed("True True False True False\n")


# --- The protocol


BROKEN = """
'nonsense' ~ '[]' ~ '{}' ~ '{"calls": []}' ~ '{"calls": [1]}' ~ '{"calls": [["llm", 5, null]]}' ~ '{"final": NaN}'
~ '{"final": 1, "calls": []}' ~ '{"names": 1}' ~ '{"final": 1e999}' ~ '{"final": ' + '[' * 99 + ']' * 99 + '}'
~ '{"final": 99999999999999999999}' ~ '{"final": "\\\\ud800"}' ~ '[' * 100_000
~ '{"final": [' + '[],' * 200_000 + '1]}'
"""


@pytest.mark.parametrize("text", BROKEN.split("~"), ids=str.strip)
def test_a_worker_that_breaks_the_protocol_is_killed(session: MontySession, text: str) -> None:
    step = session.run(f"__rlm_frame__()\nprint({text.strip()}, end='')\n__rlm_sent__()")
    assert isinstance(step, Died)
    assert step.reason == "protocol"


ENDLESS = {
    "names that are looked up": "try: undefined\n        except NameError: pass",
    "functions that are not there": "try: undefined()\n        except NameError: pass",
    "frames": "__rlm_frame__()",
    "names of the REPL": "__rlm_frame__()\n        print('{\"names\": \"all\"}', end='')\n        __rlm_sent__()",
    "answers": "__rlm_frame__()\n        print('{\"final\": \"' + 'x' * 100_000 + '\"}', end='')\n"
    "        __rlm_sent__()",
    "files": "try: open('x')\n        except Exception: pass",
}


@pytest.mark.parametrize("asked", ENDLESS)
@pytest.mark.parametrize("first", ["", "llm_query('a')\n"])
def test_a_cell_that_asks_for_ever_what_costs_nothing_is_ended(opened: Opener, asked: str, first: str) -> None:
    session = opened(seconds=0.1)
    step = finish(session, session.run(f"{first}while True:\n    for _ in '1':\n        {ENDLESS[asked]}"), echo)
    assert isinstance(step, Died)
    assert step.reason == "time"
    assert len(session._answers) <= 1


def test_a_frame_is_counted_as_it_comes(opened: Opener) -> None:
    step = opened(value=10_000, seconds=3600).run("__rlm_frame__()\nwhile True:\n    print('x' * 1000)")
    assert isinstance(step, Died)
    assert step.reason == "protocol"


def test_a_forged_frame_can_do_what_a_cell_can_do_anyway(session: MontySession) -> None:
    code = "__rlm_frame__()\nprint('{\"final\": 5}', end='')\n__rlm_sent__()"
    assert session.run(code) == Answered(5, "")


def test_a_frame_that_is_begun_and_never_sent_is_no_output(session: MontySession) -> None:
    assert said(session, "__rlm_frame__()\nprint('hidden')") == Completed("")
    assert said(session, "print('seen')") == Completed("seen\n")


def test_builtins_that_a_cell_overwrites_do_not_change_the_vocabulary(session: MontySession) -> None:
    names = (
        "len = print = list = isinstance = str = type = enumerate = repr = sorted = range = dict = ValueError = 0"
    )
    assert said(session, names) == Completed("")
    assert session.run("x = llm_query_batched(['a', 'b'])") == Suspended((Call("llm", "a"), Call("llm", "b")))
    assert session.resume([Reply("1"), Reply(error="no")]) == Completed("[llm_query_batched] item 1 failed: no\n")
    assert session.run("FINAL({'x': x})") == Answered({"x": ["1", None]}, "")


def test_a_batch_that_no_frame_can_hold_goes_out_in_waves(opened: Opener) -> None:
    session = opened(value=10_000)
    step = session.run("r = llm_query_batched(['x' * 4000 + str(n) for n in range(5)])\nprint([x[-2] for x in r])")
    waves = []
    while isinstance(step, Suspended):
        waves.append(len(step.calls))
        step = session.resume([echo(call) for call in step.calls])
    assert waves == [2, 2, 1]
    assert step == Completed("['0', '1', '2', '3', '4']\n")


def test_a_cell_that_waits_cannot_be_passed_over(session: MontySession) -> None:
    session.run("llm_query('a')")
    assert isinstance(session.run("print(1)"), Died)


def test_replies_must_be_as_many_as_the_calls(session: MontySession) -> None:
    session.run("llm_query('a')")
    with pytest.raises(RuntimeError, match="one reply for each call"):
        session.resume([])


@pytest.mark.skipif(sys.platform != "linux", reason="the clock of another process is that of Linux")
@pytest.mark.parametrize("code", ["llm_query('a')", "x = [n * n for n in range(1000)]", "import threading"])
def test_a_worker_computes_nothing_while_no_cell_runs(session: MontySession, code: str) -> None:
    step = session.run(code)
    assert isinstance(step, Suspended | Completed)
    while state(session.worker_pid) != "S":
        os.sched_yield()  # until it waits for us
    before = processor_seconds(session.worker_pid)
    sum(range(3_000_000))
    assert processor_seconds(session.worker_pid) < before + SLACK


def test_a_reply_that_is_larger_than_the_pipe_takes_ends_the_session(session: MontySession) -> None:
    assert isinstance(session.run("print(len(llm_query('a')))"), Suspended)
    step = session.resume([Reply("x" * (257 << 20))])
    assert isinstance(step, Died)
    assert step.reason == "memory"


def test_sessions_that_wait_do_not_hold_up_others(opened: Opener) -> None:
    waiting = [opened() for _ in range(30)]
    assert all(isinstance(session.run("x = llm_query('a')"), Suspended) for session in waiting)
    assert said(opened(), "print('on')") == Completed("on\n")
    assert all(session.resume([Reply("b")]) == Completed("") for session in waiting)


# --- Errors as a root model reads them

HINTS = {
    "class E(Exception): pass": "cannot inherit",
    "import numpy": "there are no packages here",
    "def g():\n    try:\n        yield 1\n    finally: pass": "append to a list and return it",
    "class A:\n    @property\n    def x(self): return 1": "plain methods",
    "open('x')": "the text is in `context`",
    "raise ValueError(1, 2)": "one text",
    "def g():\n    yield llm_query('a')\nlist(g())": "append to a list and return it",
    "x = ['a']\nx.sort(key=llm_query)": "ask in a loop",
    "import ast": "json.loads(text)",
    "from calendar import monthrange": "timedelta",
    "import contextlib": "use try and except",
    "from difflib import SequenceMatcher": "sets of lines or of words",
    "import fnmatch": "startswith",
    "import html": "str.replace",
    "from pprint import pprint": "json.dumps(value, indent=1)",
    "import traceback": "type(error).__name__",
    "from types import SimpleNamespace": "a dict or a dataclass",
    "from urllib.parse import urlparse": "str.partition",
    "import warnings": "print the warning",
    "from pathlib import PurePath": "there are no files",
    "import sys\nsys.exit()": "FINAL(value) ends the run",
    "import sys\nsys.exc_info()": "use print to write",
    "import sys\nsys.stdout.write('a')": "print(text, end='')",
    "import threading": "llm_query_batched",
    "input()": "nobody can be asked",
    "x = 1; del x": "d.pop(key)",
    "from math import *": "import the names",
}


@pytest.mark.parametrize("code", HINTS)
def test_what_is_not_there_comes_with_a_hint(session: MontySession, code: str) -> None:
    assert f"Hint: {HINTS[code]}" in fault(session, code) or HINTS[code] in fault(session, code).split("Hint: ")[1]


@pytest.mark.parametrize(
    "code", ["print(1)\nx = = 2", "print(1)\nclass E(Exception): pass", "print(1)\ncontext = 2"]
)
def test_a_cell_that_was_not_understood_says_that_nothing_ran(session: MontySession, code: str) -> None:
    step = session.run(code)
    assert isinstance(step, Completed)
    assert step.stdout == ""
    assert str(step.error).endswith("No code of this cell was run.")


@pytest.mark.parametrize("name", ["__len__", "__bool__", "__new__", "__setattr__", "__format__", "__get__"])
def test_methods_that_are_never_called_are_refused(session: MontySession, name: str) -> None:
    told = fault(session, f"print(1)\ndef f():\n    class A:\n        def {name}(self, *a): return 1\nf()")
    assert f"{name} of your own classes is never called here (line 4): give the class a method" in told
    assert said(session, f"def {name}(): return 1\nprint({name}())") == Completed("1\n")


def test_a_traceback_shows_the_lines_of_the_cells(opened: Opener) -> None:
    session = opened(prelude="def half(x):\n    return 1 / x\n")
    said(session, "def f(x):\n    return half(x)")
    assert fault(session, "import heapq\ndel heapq\nf(0)") == (
        "Traceback (most recent call last):\n"
        '  File "<cell 2>", line 3, in <module>\n    f(0)\n'
        '  File "<cell 1>", line 2, in f\n    return half(x)\n'
        '  File "<prelude>", line 2, in half\n    return 1 / x\n'
        "ZeroDivisionError: division by zero"
    )


def test_a_line_that_repeats_is_shown_once(session: MontySession) -> None:
    error = fault(session, "def f(n):\n    return f(n + 1)\nf(0)")
    assert error.count("return f(n + 1)") == 1
    assert "more times]" in error


def test_lines_are_right_after_empty_cells_and_failed_ones(session: MontySession) -> None:
    for code in ("", "\n", "# nothing", "x = =", "import textwrap", "1 / 0"):
        session.run(code)
    assert '"<cell 7>", line 2, in <module>\n    1 / 0' in fault(session, "\n1 / 0")


@pytest.mark.parametrize(
    ("code", "error"), [("{}['a']", "KeyError: 'a'"), ("{}[5]", "KeyError: 5"), ("{}[None]", "KeyError: None")]
)
def test_a_missing_key_is_shown_as_python_shows_it(session: MontySession, code: str, error: str) -> None:
    assert fault(session, code).endswith(error)


# --- The last value of a cell


def test_a_huge_last_value_is_shown_by_its_size(session: MontySession) -> None:
    step = said(session, SHARED + "x")
    assert step == Completed("a tuple, length 2, too large to be shown whole: look at a part\n")
    assert said(session, "'y' * 30_000") == Completed("'" + "y" * 20_000 + "'... (30000 characters)\n")


# --- Opening


def test_a_context_that_is_too_large_names_the_sandbox_that_can_read_it(opened: Opener) -> None:
    with pytest.raises(SandboxError, match="sandbox='cpython'"):
        opened(context="x" * 2000, loaded=1000)


def test_a_context_that_does_not_fit_in_memory_is_an_error_of_the_host(opened: Opener) -> None:
    with pytest.raises(SandboxError, match="cannot hold this context"):
        opened(context=["item"] * 400_000, memory=8 << 20)


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    from rlm_langchain.types import ContextFile

    path = tmp_path / "bad.txt"
    path.write_bytes(b"a\xffb")
    session = MontySandbox().open(ContextFile(path, "text", 3, 3), "", Limits())
    assert session.run("print(context)") == Completed("a\ufffdb\n")
    session.close()


def test_a_prelude_may_not_take_a_reserved_name(opened: Opener) -> None:
    with pytest.raises(SandboxError, match="`llm_query`"):
        opened(prelude="def llm_query(p): return 'mine'")


def test_a_session_that_cannot_open_leaves_no_worker(opened: Opener) -> None:
    before = threading.active_count()
    with pytest.raises(SandboxError, match="ZeroDivisionError"):
        opened(prelude="1 / 0")
    assert threading.active_count() == before


def test_what_a_root_model_must_know_is_short() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the import itself
        from bpe_openai import get_encoding
    assert len(get_encoding("o200k_base").encode(GUIDANCE)) <= 120


def test_a_missing_program_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlm_langchain.sandboxes.monty.binary", lambda: None)
    with pytest.raises(SandboxError, match="pip install"):
        MontySandbox().open(None, "", Limits())


def test_the_program_is_the_one_of_the_package_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rlm_langchain.sandboxes.monty.process import binary

    monkeypatch.setenv("MONTY_BIN", "/nothing")
    monkeypatch.setenv("PATH", "")
    binary.cache_clear()
    assert MontySandbox().missing() is None
    session = MontySandbox().open(None, "", Limits())
    assert session.run("print(2)") == Completed("2\n")
    session.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="read through /proc")
def test_a_worker_has_an_empty_environment_and_may_write_no_file(session: MontySession) -> None:
    process = Path(f"/proc/{session.worker_pid}")
    assert (process / "environ").read_bytes() == b""
    assert (process / "cwd").resolve() == Path("/")
    lines = (process / "limits").read_text().splitlines()[1:]
    limits = {line[:26].strip(): line[26:].split()[0] for line in lines}
    assert (limits["Max file size"], limits["Max core file size"], limits["Max open files"]) == ("0", "0", "64")


def test_a_launcher_that_was_tidied_away_is_made_again() -> None:
    from rlm_langchain.sandboxes.monty.process import launcher

    script = launcher()
    assert script is not None
    if script.name == "monty" and "rlm-monty-" in str(script):
        script.unlink()
    session = MontySandbox().open(None, "", Limits())
    assert session.run("print(3)") == Completed("3\n")
    session.close()


HOST = """
import sys
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.types import Limits
session = MontySandbox().open(None, "", Limits())
print(session.run("6 * 7").stdout, flush=True)
sys.stdin.readline()
print(MontySandbox().open(None, "", Limits()).run("6 * 8").stdout, flush=True)
"""


@contextmanager
def host(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has used Monty, and uses it again when it reads a line."""
    command, environment = [sys.executable, "-c", HOST], {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "42\n"
        yield process
        process.kill()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such folders on Windows")
def test_what_killed_hosts_have_left_is_removed_at_the_next_start_and_nothing_else_is(tmp_path: Path) -> None:
    with host(tmp_path) as living:
        [kept] = tmp_path.iterdir()
        with host(tmp_path):
            pass
        assert len(list(tmp_path.iterdir())) == 2, "a host that is killed cannot tidy up"
        with host(tmp_path) as process:
            assert kept in tmp_path.iterdir()
            assert len(list(tmp_path.iterdir())) == 2, "of the living ones only"
            process.communicate("\n")
        assert list(tmp_path.iterdir()) == [kept], "and one that ends leaves nothing"
        assert living.communicate("\n")[0].strip() == "48"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such folders on Windows")
def test_what_may_be_of_others_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "monty").touch()
    (tmp_path / "rlm-monty-link").symlink_to("target")
    (tmp_path / "rlm-monty-file").touch()
    (tmp_path / "other").mkdir()
    for name in ("rlm-monty-more", "rlm-monty-deep"):
        (tmp_path / name).mkdir()
    (tmp_path / "rlm-monty-more" / "notes").touch()
    (tmp_path / "rlm-monty-deep" / "monty").mkdir()
    os.mkfifo(tmp_path / "rlm-monty-pipe")
    if os.geteuid() == 0:
        (tmp_path / "rlm-monty-foreign").mkdir()
        os.chown(tmp_path / "rlm-monty-foreign", 12345, -1)
    before = {*tmp_path.rglob("*")}
    (tmp_path / "rlm-monty-empty").mkdir()
    scratch.remove_abandoned()
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such folders on Windows")
def test_a_folder_is_never_taken_from_who_is_making_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    over = threading.Event()

    def collect() -> None:
        while not over.is_set():
            scratch.remove_abandoned()

    threads = [threading.Thread(target=collect) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        made = [scratch.own_folder() for _ in range(100)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert sorted(made) == sorted(tmp_path.iterdir())
    for folder in made:
        os.close(scratch._locks.pop(folder))


def test_a_launcher_can_be_started_while_other_threads_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a forked process has open for writing is a "text file busy": before, 4 of 100 starts failed."""
    monkeypatch.setattr(monty_process, "_script", cache(monty_process._script.__wrapped__))
    over = threading.Event()

    def fork() -> None:
        while not over.is_set():
            subprocess.run(["/bin/true"], preexec_fn=lambda: None, check=True)  # which makes it a fork, not a vfork

    threads = [threading.Thread(target=fork) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(25):
            monty_process._script.cache_clear()
            started = monty_process.launcher()
            assert started is not None
            subprocess.run([started, "--version"], capture_output=True, check=True)
    finally:
        over.set()
        for thread in threads:
            thread.join()


# --- The library, inside

INSIDE = """
import collections, concurrent.futures, dataclasses, functools, heapq, io, operator, re, statistics, string
import textwrap
d = {'a': 1, 'b': 3}
print(f"{max(d, key=d.get)} {'-'.join(map(str.upper, d))} {next(x for x in d)}")
print(re.sub(r"(\\w) b", lambda m: m.group(1) * 2, "a b"), re.search("a  b # c", "ab", re.VERBOSE).span())
print(string.digits, textwrap.shorten('a b c d e f', 8))
print(functools.wraps(len)(len) is len, collections.OrderedDict(a=1))
print(statistics.quantiles([1, 2, 3, 4]))
"""


def test_every_module_of_the_library_runs_inside(session: MontySession) -> None:
    assert said(session, INSIDE) == Completed(
        "b A-B a\naa (0, 2)\n0123456789 a [...]\nTrue {'a': 1}\n[1.25, 2.5, 3.75]\n"
    )
