"""Limits: a cell that uses too much is stopped, and the host learns the reason."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    Opener,
    finish,
    is_stopped,
    output,
)
from rlm_langchain.types import (
    Completed,
    Died,
    Reply,
    Suspended,
)

ENDLESS = {
    "a loop": "while True: pass",
    "a loop that catches": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "a sum in C": "sum(range(10 ** 12))",
}

HUNGRY = {
    "one big text": "x = 'a' * 10 ** 11",
    "a list that grows": "x = []\nwhile True:\n    x.append('y' * 10 ** 6 + str(len(x)))",
    "a list of a billion": "x = [0] * 10 ** 9",
}

CHATTY = {
    "one long line": "print('x' * 10 ** 7)",
    "many lines": "for i in range(10 ** 7):\n    print('line', i)",
    "a loop that catches": "while True:\n    try:\n        print('x' * 999)\n    except BaseException: pass",
}


class LimitClauses(Clauses):
    """Time, memory, output."""

    @pytest.mark.parametrize("program", ENDLESS)
    def test_a_cell_that_never_ends_is_stopped(self, open_session: Opener, program: str) -> None:
        step = open_session(seconds=0.5).run(ENDLESS[program])
        assert is_stopped(step, "time"), step
        assert "0.5" in str(getattr(step, "error", "")), "the error says what the limit is"

    def test_time_spent_waiting_for_a_reply_does_not_count(self, open_session: Opener) -> None:
        import threading

        session = open_session(seconds=0.5)
        step = session.run("x = llm_query('slow')\nprint(x)")
        assert isinstance(step, Suspended)
        threading.Event().wait(0.8)  # the waiting is what is tested
        assert session.resume([Reply("late")]) == Completed("late\n")

    def test_every_cell_has_its_own_time(self, open_session: Opener) -> None:
        session = open_session(seconds=5.0)
        for n in range(3):
            assert output(session, f"print(sum(range(10 ** 6)) + {n})") == f"{sum(range(10**6)) + n}\n"

    @pytest.mark.parametrize("program", HUNGRY)
    def test_a_cell_that_takes_too_much_memory_is_stopped(self, open_session: Opener, program: str) -> None:
        step = open_session(seconds=20, memory=256 << 20).run(HUNGRY[program])
        assert is_stopped(step, "memory"), step

    @pytest.mark.parametrize("program", CHATTY)
    def test_a_cell_that_prints_too_much_is_stopped(self, open_session: Opener, program: str) -> None:
        session = open_session(seconds=5, output=10_000)
        step = finish(session, session.run(CHATTY[program]), lambda _: Reply(""))
        assert isinstance(step, Completed | Died), step
        assert step.error
        assert len(step.stdout.encode()) <= 10_000

    def test_a_cell_may_print_as_much_as_the_limit_says(self, open_session: Opener) -> None:
        session = open_session(output=10_000)
        assert output(session, "print('x' * 9_999)") == "x" * 9999 + "\n"
        assert output(session, "print('y' * 9_999)") == "y" * 9999 + "\n"

    def test_recursion_without_end_is_an_error_of_the_cell(self, session: SandboxSession) -> None:
        step = session.run("def f(n):\n    return f(n + 1)\nf(0)")
        assert isinstance(step, Completed | Died)
        assert step.error

    def test_a_dead_session_stays_dead_and_says_so(self, open_session: Opener) -> None:
        session = open_session(seconds=0.5)
        step = session.run(ENDLESS["a sum in C"])
        if isinstance(step, Completed):
            pytest.skip("this sandbox stopped the cell without losing the session")
        assert isinstance(session.run("print(1)"), Died)

    def test_a_session_opened_after_a_death_works(self, open_session: Opener) -> None:
        open_session(seconds=0.5).run(ENDLESS["a loop that catches"])
        assert output(open_session(), "print('fine')") == "fine\n"
