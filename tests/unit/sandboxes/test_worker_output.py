"""What a cell prints, what an error looks like, and what the clock shows."""

from __future__ import annotations

import io
import time

import pytest

from rlm_langchain.sandboxes.worker.channel import Hold
from rlm_langchain.sandboxes.worker.determinism import clock
from rlm_langchain.sandboxes.worker.repl import cell, tracebacks
from rlm_langchain.sandboxes.worker.repl.answers import ANSWER_GIVEN, AnswerGiven
from rlm_langchain.sandboxes.worker.repl.output import (
    IMMEDIATE_PIECES,
    MAX_PIECE,
    CellOutput,
    OutputLimit,
)


def screen(limit=1000):
    shown = []
    return CellOutput(limit, shown.append, Hold()), shown


def test_lines_are_handed_over_as_they_come():
    there, shown = screen()
    stream = there.wrapped()
    print("one", file=stream)
    print("two", end="", file=stream)
    assert shown == ["one\n"]
    stream.flush()
    assert shown == ["one\n", "two"]


def test_many_lines_wait_for_company():
    there, shown = screen(1 << 20)
    stream = there.wrapped()
    for n in range(5000):
        print(n, file=stream)
    there.empty()
    assert "".join(shown) == "".join(f"{n}\n" for n in range(5000))
    assert IMMEDIATE_PIECES < len(shown) < 1000


def test_a_long_text_is_handed_over_in_parts():
    there, shown = screen(1 << 20)
    there.wrapped().write("x" * (3 * MAX_PIECE + 1) + "\n")
    assert [len(part) for part in shown] == [MAX_PIECE, MAX_PIECE, MAX_PIECE, 2]


def test_nothing_is_handed_over_while_it_is_held():
    there, shown = screen()
    there.held = True
    print("x", file=there.wrapped())
    assert shown == []
    there.held = False
    there.empty()
    assert shown == ["x\n"]


@pytest.mark.parametrize("text", ["x" * 2000, "ż" * 2000, "😀" * 2000])
def test_what_is_too_much_is_cut_between_characters_and_raises(text):
    there, shown = screen()
    stream = there.wrapped()
    with pytest.raises(OutputLimit, match="more than 1,000 bytes"):
        print(text, file=stream)
    kept = "".join(shown)
    assert text.startswith(kept)
    assert 996 < len(kept.encode()) <= 1000
    with pytest.raises(OutputLimit):
        print("more", file=stream)
    assert "".join(shown) == kept


def test_bytes_that_are_no_text_are_replaced():
    there, shown = screen()
    stream = there.wrapped()
    stream.buffer.write(b"a\xff\xc5")
    stream.buffer.write(b"\xbc")
    stream.write("b\ud800c\n")
    there.empty()
    assert "".join(shown) == "a\ufffdżb\ufffdc\n"


def test_a_program_may_close_its_output():
    there, shown = screen()
    stream = there.wrapped()
    stream.write("x")
    stream.close()
    assert shown == ["x"]
    assert not there.closed


# --- Cells and errors -----------------------------------------------------------------------------------


def run(code, names=None):
    names = {} if names is None else names
    names[ANSWER_GIVEN] = AnswerGiven  # which the worker keeps among the built-in names
    try:
        cell.run(code, "<cell 7>", names)
    except BaseException as error:  # noqa: BLE001
        return tracebacks.described(error)
    return None


def test_the_last_expression_is_shown(capsys):
    run("1\n2 + 3")
    run("'a'")
    run("None")
    run("x = 1")
    run("")
    run("# only words")
    assert capsys.readouterr().out == "5\n'a'\n"


def test_a_long_last_expression_is_shortened(capsys):
    run("'x' * 100_000")
    shown = capsys.readouterr().out
    assert "(80,002 characters left out)" in shown
    assert len(shown) < 20_100


def test_what_show_vars_says_is_shown_as_it_is(capsys):
    run("SHOW_VARS()", {"SHOW_VARS": lambda: "a: 1\nb: 2"})
    assert capsys.readouterr().out == "a: 1\nb: 2\n"


def test_the_expression_is_not_run_when_what_is_before_it_fails(capsys):
    assert "ZeroDivisionError" in run("1 / 0\nprint('no')")
    assert capsys.readouterr().out == ""


def test_a_cell_may_await(capsys):
    run("import asyncio\nx = await asyncio.sleep(0, 'slept')\nx")
    assert capsys.readouterr().out == "'slept'\n"


def test_a_traceback_has_the_frames_of_the_cell_and_no_others():
    report = run("import json\ndef read(t):\n    return json.loads(t)\nread('{')")
    marks = set("^~ ")
    assert [line for line in report.splitlines() if not set(line) <= marks] == [
        "Traceback (most recent call last):",
        '  File "<cell 7>", line 4, in <module>',
        "    read('{')",
        '  File "<cell 7>", line 3, in read',
        "    return json.loads(t)",
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ]


def test_causes_and_groups_are_shown_without_foreign_frames():
    code = "import json\ntry:\n    json.loads('{')\nexcept ValueError as e:\n    raise KeyError('k') from e"
    report = run(code)
    assert "direct cause" in report
    assert "json/decoder.py" not in report
    report = run(
        "def fail(): json.loads('{')\nimport json\ntry:\n    fail()\nexcept ValueError as e:\n"
        "    raise ExceptionGroup('both', [e, KeyError('k')])"
    )
    assert "KeyError: 'k'" in report
    assert "json/decoder.py" not in report


def test_a_syntax_error_points_at_its_place():
    assert run("x = 1\ny = = 2").splitlines() == [
        '  File "<cell 7>", line 2',
        "    y = = 2",
        "        ^",
        "SyntaxError: invalid syntax",
    ]


def test_an_endless_recursion_is_short():
    report = run("def f():\n    return f()\nf()")
    assert "Previous line repeated" in report
    assert len(report) < 1000


def test_a_long_message_is_shortened():
    report = run("raise ValueError('x' * 1_000_000)")
    assert len(report) < tracebacks.LONGEST + 100
    assert "characters left out" in report


HOSTILE = [
    "class E(Exception):\n    def __str__(self):\n        raise SystemExit\nraise E",
    "class E(Exception):\n    def __str__(self):\n        return 5\nraise E",
    "class E(Exception):\n    def __bool__(self):\n        return False\nraise E",
    "class E(Exception):\n    @property\n    def __traceback__(self):\n        1 / 0\nraise E",
    "class M(type):\n    def __getattribute__(c, n):\n        raise OSError\n"
    "class E(Exception, metaclass=M):\n    pass\nraise E",
    "e = ValueError()\ne.__cause__ = e\nraise e",
]


@pytest.mark.parametrize("code", HOSTILE)
def test_a_hostile_exception_is_still_described(code):
    assert run(code)


# --- Time -----------------------------------------------------------------------------------------------


class StillAlarm:
    """Time that nobody watches."""

    def __init__(self):
        self.slept = []

    def spend(self, seconds):
        self.slept.append(seconds)


@pytest.fixture
def fixed(monkeypatch):
    for name in vars(time):
        monkeypatch.setattr(time, name, getattr(time, name))
    alarm = StillAlarm()
    clock.Clock(1_700_000_000.0, alarm).install()
    return alarm


def test_time_starts_where_it_is_told_and_moves_when_it_is_looked_at(fixed):
    assert [time.time_ns(), time.time_ns()] == [1_700_000_000_000_001_000, 1_700_000_000_000_002_000]
    assert [time.monotonic_ns(), time.perf_counter_ns()] == [3_000, 4_000]
    assert time.time() == pytest.approx(1_700_000_000, abs=1)
    assert time.monotonic() < time.perf_counter() < time.process_time()
    assert time.clock_gettime(time.CLOCK_REALTIME) > 1.6e9
    assert time.clock_gettime_ns(time.CLOCK_MONOTONIC) < 1e9


def test_sleep_takes_time_and_no_waiting(fixed):
    time.sleep(3600)
    assert time.monotonic() == pytest.approx(3600, abs=0.001)
    assert fixed.slept == [3600]
    with pytest.raises(ValueError, match="non-negative"):
        time.sleep(-1)


def test_calendars_follow(fixed):
    assert time.strftime("%Y-%m-%d", time.gmtime()) == "2023-11-14"
    assert time.gmtime(0).tm_year == 1970
    assert time.strftime("%Y") == "2023"
    assert time.ctime(0) != time.ctime()
    assert "2023" in time.asctime()
    assert time.localtime().tm_year == 2023


def test_dates_follow(fixed):
    import datetime as real
    from types import SimpleNamespace

    module = SimpleNamespace(datetime=real.datetime, UTC=real.UTC)
    clock.fix_datetime(module)
    now = module.datetime.now(real.UTC)
    assert now.strftime("%Y-%m-%d") == module.datetime.utcnow().strftime("%Y-%m-%d") == "2023-11-14"
    assert isinstance(now, real.datetime)
    assert repr(module.datetime(2020, 1, 2)) == "datetime.datetime(2020, 1, 2, 0, 0)"
    assert module.datetime.utcnow().tzinfo is None


def test_an_event_loop_passes_the_time(fixed):
    ready, pumped = [], iter([True, False, False])

    class Selector:
        def select(self, timeout=None):
            return ready

    select = clock._patient(Selector.select, lambda: next(pumped))
    assert select(Selector(), 0) == []
    assert select(Selector(), 2.5) == []
    assert fixed.slept == [2.5]
    assert select(Selector(), None) == []
    ready.append("event")
    assert select(Selector(), None) == ["event"]


def test_a_screen_is_a_raw_stream():
    assert isinstance(screen()[0], io.RawIOBase)
    assert screen()[0].writable()
