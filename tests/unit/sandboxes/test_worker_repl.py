"""A REPL played in one process: the host's frames are in the pipe before it asks for them."""

from __future__ import annotations

import builtins
import importlib.util
import json
import os
import signal
import sys

import pytest

from rlm_langchain.sandboxes import wire
from rlm_langchain.sandboxes.cpython import bundle
from rlm_langchain.sandboxes.worker import (
    boot,
    channel,
    confinement_check,
    main,
)
from rlm_langchain.sandboxes.worker.channel import Channel
from rlm_langchain.sandboxes.worker.determinism import randomness
from rlm_langchain.sandboxes.worker.lazy import contexts
from rlm_langchain.sandboxes.worker.lazy.text import LazyText
from rlm_langchain.sandboxes.worker.repl import runner
from rlm_langchain.types import Reply

LIMITS = {
    "seconds": 5.0,
    "memory": 1 << 28,
    "output": 1000,
    "value": 1 << 16,
    "loaded": 100,
    "clock": 0.0,
    "seed": 0,
}


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    handler = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)


class Pipes:
    """The host's ends of a channel."""

    def __init__(self):
        self.reader, self.outgoing = os.pipe()
        self.incoming, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.channel = Channel(self.incoming, self.outgoing)

    def say(self, frame):
        os.write(self.writer, frame)

    def heard(self):
        """All frames that were sent."""
        try:
            data = os.read(self.reader, 1 << 20)
        except BlockingIOError:
            return []
        frames = []
        while data:
            size = int.from_bytes(data[:4], "big")
            frames.append(json.loads(data[4 : 4 + size]))
            data = data[4 + size :]
        return frames

    def close(self):
        for fd in (self.reader, self.outgoing, self.incoming, self.writer):
            os.close(fd)


@pytest.fixture
def pipes():
    pipes = Pipes()
    yield pipes
    pipes.close()


@pytest.fixture
def repl(pipes):
    repl = main.Repl(pipes.channel, LIMITS)
    assert repl.start({"context": "the context", "context_1": [1]}, "def shout(t):\n    return t.upper()") is None
    return repl


def ran(repl, pipes, code):
    repl.run(1, code)
    return pipes.heard()


def test_a_cell_prints_and_ends(repl, pipes):
    assert ran(repl, pipes, "print(shout(context))") == [["out", "THE CONTEXT\n"], ["done", 1, None]]


def test_a_cell_asks_and_goes_on(repl, pipes):
    pipes.say(wire.replies_frame(2, [Reply("one")]))
    pipes.say(wire.replies_frame(3, [Reply("two"), Reply(error="no")]))
    heard = ran(repl, pipes, "a = llm_query('p')\nprint(a)\nb = llm_query_batched(['q', 'r'])\nFINAL([a, b])")
    assert heard == [
        ["calls", 1, [["llm", "p", None]]],
        ["out", "one\n"],
        ["calls", 2, [["llm", "q", None], ["llm", "r", None]]],
        ["out", "[llm_query_batched] item 1 failed: no\n"],
        ["answer", 3, ["one", ["two", None]], None],
    ]


def test_an_error_is_told(repl, pipes):
    [[kind, turn, error]] = ran(repl, pipes, "1 / 0")
    assert (kind, turn) == ("done", 1)
    assert error.endswith("ZeroDivisionError: division by zero")


def test_a_refused_cell_is_told(repl, pipes):
    [[kind, turn, error]] = ran(repl, pipes, "print(1)\ncontext = 2")
    assert (kind, turn) == ("done", 1)
    assert "`context`" in error


@pytest.mark.parametrize("name", ["context", "context_1", "llm_query"])
def test_no_context_and_no_word_can_be_assigned(repl, pipes, name):
    [[_, _, error]] = ran(repl, pipes, f"{name} = 2")
    assert f"`{name}`" in error


def test_an_answer_that_is_unfit_is_told(repl, pipes):
    assert ran(repl, pipes, "answer = {'content': 1j, 'ready': True}") == [
        [
            "done",
            1,
            'TypeError: answer["content"] holds a value of type complex; only text, numbers, True, False, '
            "None, and lists and dicts of them can leave the REPL. Use str(...), or its parts .real and .imag.",
        ]
    ]


def test_too_much_output_is_told(repl, pipes):
    heard = ran(repl, pipes, "print('x' * 5000)")
    assert heard[0] == ["out", "x" * 1000]
    assert "OutputLimit: this cell printed more than 1,000 bytes" in heard[-1][2]


def test_too_much_output_before_a_call_is_told_and_nothing_is_asked(repl, pipes):
    heard = ran(repl, pipes, "print('x' * 5000, end='')\nllm_query('a')")
    assert [frame[0] for frame in heard] == ["out", "done"]
    assert "OutputLimit" in heard[-1][2]


def test_output_without_an_end_of_line_is_kept(repl, pipes):
    assert ran(repl, pipes, "print('a', end='')\n1 / 0")[0] == ["out", "a"]
    assert ran(repl, pipes, "import sys\nprint('b', end='')\nsys.stdout.close()") == [
        ["out", "b"],
        ["done", 1, None],
    ]


def test_time_is_up(pipes):
    repl = main.Repl(pipes.channel, LIMITS | {"seconds": 0.05})
    repl.start({}, "")
    [[_, _, error]] = ran(repl, pipes, "while True: pass")
    assert error.endswith("TimeLimit: this cell ran for more than 0.05 s of its own time")


def test_sleeping_longer_than_there_is_time_is_an_error_at_once(pipes):
    repl = main.Repl(pipes.channel, LIMITS)
    repl.start({}, "")
    work = lambda: repl._runner.alarm.spend(6)  # noqa: E731
    assert "TimeLimit" in repl._runner.run_program(work)
    assert repl._runner.run_program(lambda: repl._runner.alarm.spend(1)) is None


def test_calls_are_for_cells_only(pipes):
    repl = main.Repl(pipes.channel, LIMITS)
    assert "calls can only be made while a cell runs" in repl.start({}, "llm_query('a')")


def test_what_was_taken_away_is_back(repl, pipes):
    ran(repl, pipes, "import builtins\nbuiltins.print = None\nglobals().clear()")
    assert builtins.print is print
    assert ran(repl, pipes, "print(context)") == [["out", "the context\n"], ["done", 1, None]]


def test_memory_is_set_aside_again(repl, pipes):
    ran(repl, pipes, "1 / 0")
    assert not repl._runner._ballast
    ran(repl, pipes, "x = 1")
    assert len(repl._runner._ballast) == runner.BALLAST


def test_many_calls_go_out_in_waves(pipes):
    repl = main.Repl(pipes.channel, LIMITS | {"value": 100})
    repl.start({}, "")
    pipes.say(wire.replies_frame(2, [Reply("a")] * 2))
    pipes.say(wire.replies_frame(3, [Reply("b")]))
    heard = ran(repl, pipes, "print(llm_query_batched(['x' * 30] * 3))")
    assert [len(frame[2]) for frame in heard if frame[0] == "calls"] == [2, 1]
    assert heard[-2:] == [["out", "['a', 'a', 'b']\n"], ["done", 3, None]]


def test_the_standard_streams_are_moved_out_of_the_way():
    """In a child: it would take away pytest's own."""
    pid = os.fork()
    if not pid:
        there = channel.take_over_standard_streams()
        ends = os.read(0, 1) == b"" and there.incoming > 2 and os.fstat(1).st_ino == os.fstat(2).st_ino
        os._exit(0 if ends else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_worker_ends_with_its_pipe():
    pid = os.fork()
    if not pid:
        reader, writer = os.pipe()
        os.close(writer)
        Channel(reader, 1).receive()
        os._exit(9)
    assert os.waitpid(pid, 0)[1] == 0


# --- Contexts ---------------------------------------------------------------------------------------------


def test_contexts_are_loaded_or_lazy(tmp_path, monkeypatch):
    import re

    before = dict(vars(re))
    path = tmp_path / "context"
    path.write_bytes("żółw\r\n".encode() * 20)
    text = '["ż", {"a": 1}]'
    (tmp_path / "json").write_text(text)
    size = path.stat().st_size
    assert contexts.load_context([str(tmp_path / "json"), "json", 2, 20], LIMITS) == ["ż", {"a": 1}]
    assert contexts.load_context([str(path), "text", 120, 100], LIMITS) == "żółw\r\n" * 20
    lazy = contexts.load_context([str(path), "text", 120, size], LIMITS)
    assert type(lazy) is LazyText
    assert (len(lazy), lazy[5:8]) == (120, "\nżó")
    assert re.findall("ó", lazy[:6]) == ["ó"]
    os.close(lazy._source._fd)
    vars(re).update(before)


def test_a_text_that_does_not_fit_is_lazy(tmp_path, monkeypatch):
    import re

    before = dict(vars(re))

    def full(path):
        raise MemoryError

    monkeypatch.setattr(contexts, "_read", full)
    path = tmp_path / "context"
    path.write_text("abc")
    lazy = contexts.load_context([str(path), "text", 3, 3], LIMITS)
    assert type(lazy) is LazyText
    os.close(lazy._source._fd)
    vars(re).update(before)


# --- The same in every process ------------------------------------------------------------------------------


@pytest.fixture
def system(monkeypatch):
    for name in ("urandom", "getrandom", "getpid", "getppid", "cpu_count", "uname"):
        monkeypatch.setattr(os, name, getattr(os, name))
    environment = dict(os.environ)
    yield
    os.environ.update(environment)


def test_randomness_comes_from_the_seed(system):
    randomness.install(7)
    first = [os.urandom(8), os.urandom(0), os.getrandom(3)]
    randomness.install(7)
    assert [os.urandom(8), os.urandom(0), os.getrandom(3)] == first
    randomness.install(8)
    assert os.urandom(8) != first[0]
    assert (os.getpid(), os.getppid(), os.cpu_count(), os.uname().nodename) == (2, 1, 2, "rlm")
    assert not os.environ


def test_random_draws_its_seed_from_there(system):
    spec = importlib.util.find_spec("random")
    drawn = []
    for _ in range(2):
        randomness.install(7)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        randomness.fix_random(module)
        drawn.append([module.random(), module.Random().random(), module.Random(5).random()])
    assert drawn[0] == drawn[1]
    import random

    assert drawn[0][2] == random.Random(5).random()


def test_an_unconfined_process_is_noticed():
    assert "not confined" in confinement_check.give_up(b"")


# --- The bundle -----------------------------------------------------------------------------------------------


@pytest.fixture
def bundled(tmp_path):
    (tmp_path / "pipe").write_bytes(bundle.early_modules() + bundle.late_modules())
    fd = os.open(tmp_path / "pipe", os.O_RDONLY)
    yield boot.Bundled(fd)
    os.close(fd)


def imported(bundled, name):
    module = importlib.util.module_from_spec(bundled.find_spec(name))
    module.__spec__.loader.exec_module(module)
    return module


def test_our_modules_come_first_and_keep_their_builtins(bundled):
    module = imported(bundled, "rlm_langchain.sandboxes.worker.repl.json_values")
    assert module.dumped([1], "it", 100) == "[1]"
    assert module.__builtins__ is not vars(builtins)
    assert bundled.find_spec("rlm_langchain").submodule_search_locations == ["<rlm_langchain>"]


def test_pythons_modules_come_when_they_are_asked_for(bundled):
    after = []
    bundled.after["textwrap"] = after.append
    module = imported(bundled, "textwrap")
    assert module.dedent("  a") == "a"
    assert after == [module]
    assert module.__file__.endswith("textwrap.py")
    bundled.complete()


def test_what_is_not_there_is_left_to_others(bundled):
    assert bundled.find_spec("no_such_module") is None
    assert bundled.find_spec("wave") is None


def test_a_module_in_a_file_can_be_changed_after_it_is_loaded(bundled):
    bundled.after["sched"] = lambda module: setattr(module, "changed", True)
    assert imported(bundled, "sched").changed
    bundled.after["no_such_module"] = print
    assert bundled.find_spec("no_such_module") is None


def test_the_bundle_fits_into_the_pipe_nearly():
    assert len(bundle.early_modules()) < 150_000
    assert len(bundle.late_modules()) < 1_500_000
    compile(bundle.boot(), "boot", "exec")
