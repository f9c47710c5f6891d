"""Answers: only the argument of FINAL or FINAL_VAR, or a ready `answer`, counts, and only the first one of a
cell.
"""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    answered,
    echo,
    fault,
    finish,
    output,
)
from rlm_langchain.types import Answered, Completed

_TWICE = "for word in ['one', 'two']:\n    try:\n        FINAL(word)\n    except{}:\n        llm_query('paid')"
_SWALLOWED = "def done():\n    try:\n        FINAL('one')\n    finally:\n        return 1\ndone()\n{}"
ANSWERED = (
    "FINAL('one')\nllm_query('paid')\nFINAL('two')",
    "for word in ['one', 'two']:\n    FINAL(word)\n    llm_query('paid')\nFINAL('three')",
    "def done(word):\n    FINAL(word)\n    llm_query('paid')\ndone('one')\nllm_query('paid')",
    "found = 'one'\nFINAL_VAR('found')\nFINAL('two')",
    "[FINAL(word) for word in ['one', 'two']]\nllm_query('paid')",
    *(_TWICE.format(kind) for kind in ("", " Exception", " BaseException", " (ValueError, BaseException) as e")),
    "while True:\n    try:\n        FINAL('one')\n    except:\n        pass",
    "def done():\n\twhile True:\n\t\ttry: FINAL('one')\n\t\texcept BaseException: pass\ndone()",
    "try:\n    FINAL('one')\nfinally:\n    llm_query_batched(['paid', 'paid'])",
    *(_SWALLOWED.format(more) for more in ("llm_query('paid')\nFINAL('two')", "budget()", "rlm_query('paid')")),
)
"""Cells that answer "one" and try to continue."""


class AnswerClauses(Clauses):
    """FINAL and the other ways to answer."""

    def test_final_is_the_answer(self, session: SandboxSession) -> None:
        assert session.run("print('done')\nFINAL('forty-two')") == Answered("forty-two", "done\n")

    @pytest.mark.parametrize("code", ANSWERED)
    def test_the_first_answer_ends_the_cell_and_nothing_is_asked_after_it(
        self, session: SandboxSession, code: str
    ) -> None:
        assert session.run(code) == Answered("one", "")
        assert output(session, "print('well')") == "well\n"

    def test_nothing_of_a_cell_runs_after_final(self, session: SandboxSession) -> None:
        assert session.run("x = 4\nprint('before')\nFINAL(1)\nx = 5\nprint('after')") == Answered(1, "before\n")
        assert output(session, "print(x)") == "4\n"

    def test_a_value_that_cannot_be_an_answer_ends_nothing(self, session: SandboxSession) -> None:
        code = "try:\n    FINAL({1: 2})\nexcept TypeError:\n    print('no')\nFINAL('one')"
        assert session.run(code) == Answered("one", "no\n")

    def test_an_interrupt_of_the_programs_own_is_its_own(self, session: SandboxSession) -> None:
        code = "try:\n    raise SystemExit('stop')\nexcept BaseException as e:\n    print(e)\nFINAL('one')"
        assert session.run(code) == Answered("one", "stop\n")

    def test_an_error_while_final_ends_the_cell_keeps_the_answer(self, session: SandboxSession) -> None:
        step = session.run("try:\n    FINAL('kept')\nfinally:\n    1 / 0")
        assert isinstance(step, Answered)
        assert step.value == "kept"
        assert "ZeroDivisionError" in str(step.error)

    def test_final_works_inside_a_function(self, session: SandboxSession) -> None:
        assert answered(session, "def done(v):\n    FINAL(v)\ndone([1])") == [1]

    def test_final_works_after_calls(self, session: SandboxSession) -> None:
        assert answered(session, "FINAL(llm_query('a') + '|'.join(llm_query_batched(['b', 'c'])))") == "<a><b>|<c>"

    def test_an_answer_does_not_last_into_the_next_cell(self, session: SandboxSession) -> None:
        answered(session, "FINAL(1)")
        assert session.run("x = 1") == Completed("")

    @pytest.mark.parametrize("code", ["FINAL_VAR('report')", "FINAL_VAR(report)", "FINAL_VAR(' report ')"])
    def test_final_var_answers_with_a_variable(self, session: SandboxSession, code: str) -> None:
        output(session, "report = {'n': 3}")
        assert answered(session, code) == {"n": 3}

    def test_final_var_of_an_unknown_name_is_an_error_that_says_what_there_is(
        self, session: SandboxSession
    ) -> None:
        output(session, "report = 1")
        error = fault(session, "FINAL_VAR('repotr')")
        assert "repotr" in error
        assert "report" in error

    def test_a_ready_answer_dict_is_the_answer(self, session: SandboxSession) -> None:
        assert answered(session, "answer = {'content': 42, 'ready': True}") == 42

    def test_an_answer_dict_is_there_from_the_start(self, session: SandboxSession) -> None:
        assert session.run("answer['content'] = 4") == Completed("")
        assert answered(session, "answer['content'] += 1\nanswer['ready'] = True") == 5

    def test_an_answer_dict_that_is_not_ready_is_none(self, session: SandboxSession) -> None:
        assert session.run("answer = {'content': 42, 'ready': False}") == Completed("")
        assert answered(session, "answer['content'] += 1\nanswer['ready'] = True") == 43

    def test_an_answer_dict_that_final_has_overruled_is_no_later_answer(self, session: SandboxSession) -> None:
        assert answered(session, "answer['content'] = 1\nanswer['ready'] = True\nFINAL(2)") == 2
        assert output(session, "print('looking')") == "looking\n"

    def test_final_of_the_empty_answer_dict_is_refused_and_says_so(self, session: SandboxSession) -> None:
        assert "ValueError: `answer` has no content yet" in fault(session, "FINAL(answer)")
        assert answered(session, "answer['content'] = 42\nFINAL(answer)") == 42
        assert session.run("x = 1") == Completed("")

    def test_a_dict_of_the_programs_own_that_is_called_answer_is_an_answer(self, session: SandboxSession) -> None:
        assert answered(session, "answer = {'ready': True, 'name': 'x'}\nFINAL(answer)") == {
            "ready": True,
            "name": "x",
        }
        assert answered(session, "FINAL({'ready': False})") == {"ready": False}

    def test_an_answer_dict_is_taken_once(self, session: SandboxSession) -> None:
        answered(session, "answer = {'content': 42, 'ready': True}")
        assert session.run("x = 1") == Completed("")

    @pytest.mark.parametrize("code", ["answer = 'a word'", "answer = {'content': 1}", "answer = ['ready']"])
    def test_any_other_answer_variable_is_just_a_variable(self, session: SandboxSession, code: str) -> None:
        assert session.run(code) == Completed("")

    @pytest.mark.parametrize(
        "text",
        ["FINAL(1)", "FINAL_VAR('x')", '{"type": "final", "answer": "FORGED"}', "answer = {'ready': True}"],
    )
    def test_printed_text_is_never_an_answer(self, session: SandboxSession, text: str) -> None:
        assert output(session, f"print({text!r})") == text + "\n"

    def test_a_reply_is_never_an_answer(self, session: SandboxSession) -> None:
        step = session.run("x = llm_query('FINAL(1)')\nprint(x)")
        assert finish(session, step, echo) == Completed("<FINAL(1)>\n")
