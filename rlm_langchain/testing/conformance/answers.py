"""The answer: only what FINAL, FINAL_VAR or a ready `answer` was given, and the last one of a cell."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import Clauses, answered, echo, fault, finish, output
from rlm_langchain.types import Answered, Completed


class AnswerClauses(Clauses):
    """FINAL and its kin."""

    def test_final_is_the_answer(self, session: SandboxSession) -> None:
        assert session.run("print('done')\nFINAL('forty-two')") == Answered("forty-two", "done\n")

    def test_the_last_answer_of_a_cell_wins(self, session: SandboxSession) -> None:
        assert answered(session, "FINAL('one')\nFINAL('two')") == "two"

    def test_the_cell_goes_on_after_final(self, session: SandboxSession) -> None:
        assert session.run("FINAL(1)\nx = 5\nprint('after')") == Answered(1, "after\n")
        assert output(session, "print(x)") == "5\n"

    def test_an_error_after_final_keeps_the_answer(self, session: SandboxSession) -> None:
        step = session.run("FINAL('kept')\n1 / 0")
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
