"""Calls to the host: the code waits at the call, and continues with the reply."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.errors import SandboxError
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.testing.conformance.base import (
    Clauses,
    Opener,
    echo,
    fault,
    finish,
    output,
)
from rlm_langchain.types import (
    Call,
    Completed,
    Reply,
    Suspended,
)

FAILED = Reply(error="the provider did not answer (3 tries)")

PLACES = {
    "an assignment": "x = llm_query('a')\nprint(x)",
    "an argument": "print(llm_query('a'))",
    "a function": "def ask(p):\n    r = llm_query(p)\n    return r\nprint(ask('a'))",
    "nested functions": "def f(p):\n    def g():\n        return llm_query(p)\n    return g()\nprint(f('a'))",
    "a nested call": "print(llm_query(llm_query('a')[1:-1]))",
    "a comprehension": "print([llm_query(p) for p in ['a']][0])",
    "a dict comprehension": "print({p: llm_query(p) for p in ['a']}['a'])",
    "a condition": "print('<a>' if llm_query('a') == '<a>' else 'no')",
    "a loop": "out = ''\nfor p in ['a']:\n    out += llm_query(p)\nprint(out)",
    "a while loop": "out = ''\nwhile not out:\n    out = llm_query('a')\nprint(out)",
    "an f-string": "print(f'{llm_query(\"a\")}')",
    "a try block": "try:\n    print(llm_query('a'))\nfinally:\n    pass",
    "an except block": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    print(llm_query('a'))",
    "the last expression": "'' if llm_query('a') is None else print('<a>')",
}

LAMBDAS = {
    "a lambda": "ask = lambda p: llm_query(p)\nprint(ask('a'))",
    "map": "print(list(map(lambda p: llm_query(p), ['a']))[0])",
    "a sort key": "print(sorted(['a'], key=lambda p: llm_query(p)) and '<a>')",
    "a generator": "print(next(llm_query(p) for p in ['a']))",
}


def items(call: Call) -> Reply:
    """Reply with the number of items in the context of a call."""
    return Reply(len(call.context) if isinstance(call.context, list) else 0)


class CallClauses(Clauses):
    """Calls and replies."""

    @pytest.mark.parametrize("place", PLACES)
    def test_a_call_waits_in(self, session: SandboxSession, place: str) -> None:
        assert output(session, PLACES[place]) == "<a>\n"

    @pytest.mark.parametrize("place", LAMBDAS)
    def test_a_call_waits_in_what_python_calls_back(self, session: SandboxSession, place: str) -> None:
        self.needs("lambdas")
        assert output(session, LAMBDAS[place]) == "<a>\n"

    def test_a_call_says_what_it_asks(self, session: SandboxSession) -> None:
        step = session.run("llm_query('what?', context='this')")
        assert step == Suspended((Call("llm", "what?", "this"),))

    @pytest.mark.parametrize(
        ("code", "call"),
        [
            ("llm_query('p')", Call("llm", "p")),
            ("llm_query(prompt='p')", Call("llm", "p")),
            ("llm_query('p', 'c')", Call("llm", "p", "c")),
            (
                "llm_query('p', images={'image': 'a'})",
                Call("vision", "p", {"images": [{"image": "a"}], "context": None}),
            ),
            (
                "llm_query('p', ['c'], images=('a', 'b'))",
                Call("vision", "p", {"images": ["a", "b"], "context": ["c"]}),
            ),
            ("rlm_query('q')", Call("rlm", "q")),
            ("rlm_query('q', context=['a', 'b'])", Call("rlm", "q", ["a", "b"])),
            ("rlm_query('q', {'k': 1})", Call("rlm", "q", {"k": 1})),
            ("recursive_lm('q', 'c')", Call("rlm", "q", "c")),
            ("budget()", Call("budget", "")),
            ("_host_call('search', 'cats', [10])", Call("search", "cats", [10])),
            ("_host_call('tool', ['f', [1], {'é': {2}}])", Call("tool", '["f", [1], {"\\u00e9": [2]}]')),
        ],
    )
    def test_each_function_makes_its_call(self, session: SandboxSession, code: str, call: Call) -> None:
        assert session.run(code) == Suspended((call,))

    @pytest.mark.parametrize(
        ("code", "calls"),
        [
            ("llm_query_batched(['a', 'b'])", (Call("llm", "a"), Call("llm", "b"))),
            ("llm_query_batched(('a', 'b'))", (Call("llm", "a"), Call("llm", "b"))),
            (
                "llm_query_batched(['a', 'b'], images=[{'image': 1}, None])",
                (Call("vision", "a", {"images": [{"image": 1}], "context": None}), Call("llm", "b")),
            ),
            (
                "llm_query_batched(['a', 'b'], images={'image': 1})",
                tuple(Call("vision", p, {"images": [{"image": 1}], "context": None}) for p in "ab"),
            ),
            ("rlm_query_batched(['a', 'b'])", (Call("rlm", "a"), Call("rlm", "b"))),
            ("rlm_query_batched(['a', 'b'], ['x', 'y'])", (Call("rlm", "a", "x"), Call("rlm", "b", "y"))),
            ("rlm_query_batched(['a', 'b'], contexts='x')", (Call("rlm", "a", "x"), Call("rlm", "b", "x"))),
            ("rlm_query_batched([('a', 'x'), ('b', 'y')])", (Call("rlm", "a", "x"), Call("rlm", "b", "y"))),
            ("rlm_query_batched([{'query': 'a', 'context': 'x'}])", (Call("rlm", "a", "x"),)),
        ],
    )
    def test_a_batch_is_asked_all_at_once(
        self, session: SandboxSession, code: str, calls: tuple[Call, ...]
    ) -> None:
        assert session.run(code) == Suspended(calls)

    def test_batched_replies_keep_the_order_of_their_prompts(self, session: SandboxSession) -> None:
        code = "print(llm_query_batched([str(n) for n in range(300)]) == [f'<{n}>' for n in range(300)])"
        assert output(session, code) == "True\n"

    def test_an_empty_batch_asks_nothing(self, session: SandboxSession) -> None:
        assert session.run("print(llm_query_batched([]), rlm_query_batched([]))") == Completed("[] []\n")

    def test_calls_of_one_cell_come_one_after_the_other(self, session: SandboxSession) -> None:
        first = session.run("print(llm_query('a') + llm_query('b'))")
        assert first == Suspended((Call("llm", "a"),))
        second = session.resume([Reply("1")])
        assert second == Suspended((Call("llm", "b"),))
        assert session.resume([Reply("2")]) == Completed("12\n")

    def test_a_failed_call_is_an_error_in_the_cell(self, session: SandboxSession) -> None:
        error = fault(session, "x = llm_query('a')", lambda _: FAILED)
        assert "LLMError" in error
        assert str(FAILED.error) in error
        assert "NameError" in fault(session, "x")

    @pytest.mark.parametrize("kind", ["LLMError", "Exception", "(ValueError, LLMError)"])
    def test_a_failed_call_can_be_caught(self, session: SandboxSession, kind: str) -> None:
        code = f"try:\n    llm_query('a')\nexcept {kind} as e:\n    print('caught', e)"
        assert output(session, code, lambda _: FAILED) == f"caught {FAILED.error}\n"

    def test_a_failed_item_of_a_batch_is_none_and_the_output_says_which_and_why(
        self, session: SandboxSession
    ) -> None:
        def host(call: Call) -> Reply:
            return FAILED if call.prompt == "b" else echo(call)

        shown = output(session, "r = llm_query_batched(['a', 'b', 'c'])\nprint(r)", host)
        assert "['<a>', None, '<c>']" in shown
        assert "1" in shown
        assert str(FAILED.error) in shown

    @pytest.mark.parametrize("code", ["llm_query(5)", "llm_query(None)", "llm_query_batched('one text')"])
    def test_a_prompt_that_is_no_text_is_an_error_that_says_so(self, session: SandboxSession, code: str) -> None:
        assert "TypeError" in fault(session, code)

    def test_a_budget_is_a_dict(self, session: SandboxSession) -> None:
        left = {"calls": 7, "usd": None, "seconds": 1.5}
        assert output(session, "b = budget()\nprint(b['calls'] + 1)", lambda _: Reply(left)) == "8\n"

    def test_a_reply_crosses_unharmed(self, session: SandboxSession) -> None:
        text = 'żółć 日本 😀 "\\ \x00 \r\n {"lc": 1} \u2028'
        assert output(session, "print(llm_query('a'), end='')", lambda _: Reply(text)) == text

    @pytest.mark.parametrize("value", ["", "x", 0, -1.5, True, None, ["a", [1, {}]], {"k": [None]}])
    def test_a_reply_may_be_any_plain_value(self, session: SandboxSession, value: object) -> None:
        shown = output(session, "print(repr(_host_call('other', 'p')))", lambda _: Reply(value))  # type: ignore[arg-type]
        assert shown == f"{value!r}\n"

    def test_a_prompt_crosses_unharmed(self, session: SandboxSession) -> None:
        step = session.run("llm_query('ż 😀 \\x00 \\x1b \"\\\\')")
        assert step == Suspended((Call("llm", 'ż 😀 \x00 \x1b "\\'),))

    def test_a_lone_surrogate_in_a_prompt_becomes_a_replacement_character(self, session: SandboxSession) -> None:
        assert session.run("llm_query('a\\ud800b')") == Suspended((Call("llm", "a\ufffdb"),))

    def test_what_is_printed_around_a_call_is_kept_in_order(self, session: SandboxSession) -> None:
        assert output(session, "print('one')\nprint(llm_query('a'))\nprint('two')") == "one\n<a>\ntwo\n"

    def test_helpers_of_the_prelude_can_ask(self, open_session: Opener) -> None:
        prelude = "def ask_all(texts):\n    return [llm_query('q: ' + t) for t in texts]"
        session = open_session(prelude=prelude)
        assert output(session, "print(ask_all(['x', 'y']))") == "['<q: x>', '<q: y>']\n"

    def test_a_prelude_that_fails_is_an_error_of_the_host(self, open_session: Opener) -> None:
        with pytest.raises(SandboxError, match="prelude"):
            open_session(prelude="def broken(:\n")

    def test_a_prelude_cannot_ask_while_it_loads(self, open_session: Opener) -> None:
        with pytest.raises(SandboxError, match="prelude"):
            open_session(prelude="x = llm_query('hello')")

    def test_a_thousand_calls_in_a_row_work(self, session: SandboxSession) -> None:
        step = session.run("n = 0\nfor i in range(1000):\n    n += len(llm_query(str(i)))\nprint(n)")
        assert finish(session, step, echo) == Completed(f"{sum(len(str(i)) + 2 for i in range(1000))}\n")

    def test_a_batch_of_many_items_is_no_broken_protocol(self, session: SandboxSession) -> None:
        code = "rows = [{'row': [1, '[{,']}] * 9_000\nprint(rlm_query_batched(['q'] * 7, [rows] * 7))"
        assert output(session, code, items) == f"{[9_000] * 7}\n"

    @pytest.mark.parametrize("item", ["0", "[]", "{}", "[0]", "{'a': {}}", "{'a': [], 'b': 0}"])
    @pytest.mark.parametrize("most", [33_000, 49_000, 60_000, 99_000])
    def test_a_crowd_crosses_or_is_an_error_of_the_cell(
        self, session: SandboxSession, item: str, most: int
    ) -> None:
        code = f"try:\n    n = rlm_query('q', [{item}] * {most})\nexcept ValueError as e:\n    n = e\nprint(n)"
        told = output(session, code, items)
        assert told == f"{most}\n" or "100,000 items" in told
