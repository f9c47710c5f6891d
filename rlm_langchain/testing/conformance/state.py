"""State: one namespace lasts from cell to cell; output belongs to its cell."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    Opener,
    fault,
    output,
)
from rlm_langchain.types import Completed


class StateClauses(Clauses):
    """State and output."""

    def test_names_last_from_cell_to_cell(self, session: SandboxSession) -> None:
        output(session, "x = [1]\ndef double(n):\n    return n * 2")
        output(session, "x.append(double(4))")
        assert output(session, "print(x)") == "[1, 8]\n"

    def test_imports_last_from_cell_to_cell(self, session: SandboxSession) -> None:
        output(session, "import re")
        assert output(session, "print(re.findall('a+', 'aa b a'))") == "['aa', 'a']\n"

    def test_names_last_after_a_cell_that_fails(self, session: SandboxSession) -> None:
        output(session, "x = 1")
        assert "ZeroDivisionError" in fault(session, "x = 2\ny = 1 / 0\nx = 3")
        assert output(session, "print(x)") == "2\n"

    def test_a_syntax_error_is_an_error_of_the_cell_and_runs_nothing_of_it(self, session: SandboxSession) -> None:
        step = session.run("print('no')\nx = = 1")
        assert isinstance(step, Completed)
        assert step.stdout == ""
        assert "SyntaxError" in str(step.error)
        assert output(session, "print('yes')") == "yes\n"

    def test_what_was_printed_before_an_error_is_kept(self, session: SandboxSession) -> None:
        step = session.run("print('before')\n[][0]")
        assert isinstance(step, Completed)
        assert step.stdout == "before\n"
        assert "IndexError" in str(step.error)

    def test_an_error_names_the_line_of_the_cell(self, session: SandboxSession) -> None:
        error = fault(session, "x = 1\ny = 2\nint('seven')")
        assert "line 3" in error
        assert "seven" in error

    def test_each_cell_has_its_own_output(self, session: SandboxSession) -> None:
        output(session, "print('one')")
        assert output(session, "print('two', end='')") == "two"

    @pytest.mark.parametrize(
        ("code", "shown"),
        [
            ("1 + 1", "2\n"),
            ("'text'", "'text'\n"),
            ("print('a')\n[1, 2]", "a\n[1, 2]\n"),
            ("None", ""),
            ("x = 5", ""),
            ("print('once')", "once\n"),
        ],
    )
    def test_the_last_expression_of_a_cell_is_shown_as_a_repl_does(
        self, session: SandboxSession, code: str, shown: str
    ) -> None:
        assert output(session, code) == shown

    @pytest.mark.parametrize("way_out", ["SystemExit(0)", "SystemExit('bye')", "KeyboardInterrupt()"])
    def test_a_program_that_exits_only_ends_its_cell(self, session: SandboxSession, way_out: str) -> None:
        output(session, "x = 1")
        assert fault(session, f"raise {way_out}")
        assert output(session, "print(x)") == "1\n"

    def test_nobody_can_be_asked_for_input(self, session: SandboxSession) -> None:
        assert fault(session, "input('your name? ')")
        assert output(session, "print('on')") == "on\n"

    def test_sessions_do_not_see_each_other(self, open_session: Opener) -> None:
        one, two = open_session(), open_session()
        output(one, "secret = 1")
        assert "NameError" in fault(two, "print(secret)")

    def test_printed_text_crosses_unharmed(self, session: SandboxSession) -> None:
        assert output(session, "print('żółć \\u65e5\\u672c \\U0001f600 \\x00|\\x1b')") == "żółć 日本 😀 \x00|\x1b\n"

    def test_a_lone_surrogate_is_printed_as_a_replacement_character(self, session: SandboxSession) -> None:
        assert output(session, "print('a\\ud800b')") == "a\ufffdb\n"

    def test_the_prelude_has_run_before_the_first_cell(self, open_session: Opener) -> None:
        session = open_session(prelude="def shout(text):\n    return text.upper()")
        assert output(session, "print(shout('hey'))") == "HEY\n"

    def test_the_whole_language_is_there(self, session: SandboxSession) -> None:
        self.needs("cpython")
        code = """
            import dataclasses, heapq, statistics, textwrap
            class Base:
                def name(self):
                    return type(self).__name__
            @dataclasses.dataclass
            class Child(Base):
                n: int = 3
            def squares(n):
                for i in range(n):
                    yield i * i
            x = 1
            del x
            print(Child().name(), list(squares(4)), heapq.nsmallest(2, [3, 1, 2]), statistics.mean([1, 3]))
            """
        import textwrap

        assert output(session, textwrap.dedent(code)) == "Child [0, 1, 4, 9] [1, 2] 2\n"
