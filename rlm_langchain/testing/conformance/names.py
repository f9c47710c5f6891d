"""Names that belong to the REPL cannot be lost, neither by accident nor on purpose."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    Opener,
    answered,
    fault,
    output,
)

RESERVED = (
    "context",
    "llm_query",
    "llm_query_batched",
    "rlm_query",
    "rlm_query_batched",
    "recursive_lm",
    "budget",
    "FINAL",
    "FINAL_VAR",
    "SHOW_VARS",
    "LLMError",
    "_host_call",
)

BINDINGS = (
    "{} = 1",
    "a, ({}, *b) = 1, (2, 3)",
    "[*{}] = [1]",
    "{}: int = 1",
    "{} += 1",
    "del {}",
    "import json as {}",
    "from json import loads as {}",
    "def {}(): pass",
    "class {}: pass",
    "for {} in [1]: pass",
    "if ({} := 1): pass",
    "[({} := i) for i in [1]]",
    "with open('x') as {}: pass",
    "try:\n    pass\nexcept Exception as {}:\n    pass",
    "def f():\n    global {}\n    {} = 1",
    "match [1]:\n    case [{}]: pass",
    "match {{}}:\n    case {{**{}}}: pass",
    "if False:\n    {} = 1",
)


class NameClauses(Clauses):
    """Reserved names."""

    @pytest.mark.parametrize("name", RESERVED)
    def test_a_reserved_name_cannot_be_assigned(self, open_session: Opener, name: str) -> None:
        session = open_session(context="abc")
        error = fault(session, f"print('ran')\n{name} = None")
        assert name in error
        assert output(session, f"print({name} is None)") == "False\n"

    @pytest.mark.parametrize("binding", BINDINGS)
    def test_every_way_to_bind_a_reserved_name_is_refused(self, session: SandboxSession, binding: str) -> None:
        step = session.run("print('ran')\n" + binding.format(*["llm_query"] * binding.count("{}")))
        assert "llm_query" in str(getattr(step, "error", ""))
        assert getattr(step, "stdout", "") == "", "nothing of a refused cell may run"
        assert output(session, "print(llm_query('a'))") == "<a>\n"

    @pytest.mark.parametrize(
        "code",
        [
            "def f(context):\n    return context\nprint(f('mine'))",
            "def f():\n    context = 'mine'\n    return context\nprint(f())",
            "print([context for context in ['mine']][0])",
            "def f(**context):\n    return context['a']\nprint(f(a='mine'))",
        ],
    )
    def test_locals_may_have_a_reserved_name(self, open_session: Opener, code: str) -> None:
        session = open_session(context="theirs")
        assert output(session, code) == "mine\n"
        assert output(session, "print(context)") == "theirs\n"

    def test_the_name_context_is_free_inside_a_call(self, session: SandboxSession) -> None:
        assert output(session, "print(llm_query('a', context='b'))") == "<a>\n"

    @pytest.mark.parametrize("trick", ["globals()['FINAL'] = None", "del globals()['FINAL']", "globals().clear()"])
    def test_a_name_that_was_taken_away_by_a_trick_is_back_in_the_next_cell(
        self, session: SandboxSession, trick: str
    ) -> None:
        session.run(trick)
        assert answered(session, "FINAL('mine')") == "mine"

    def test_show_vars_lists_what_the_program_made(self, open_session: Opener) -> None:
        session = open_session(context="abc", prelude="def helper():\n    return 1")
        output(session, "rows = [1, 2, 3]\ntitle = 'x'")
        shown = output(session, "print(SHOW_VARS())")
        assert "rows" in shown
        assert "list" in shown
        assert "title" in shown
        assert "llm_query" not in shown
        assert "helper" not in shown

    def test_show_vars_alone_shows_them_too(self, session: SandboxSession) -> None:
        output(session, "rows = [1, 2, 3]")
        shown = output(session, "SHOW_VARS()")
        assert "rows" in shown
        assert shown == output(session, "print(SHOW_VARS())")
