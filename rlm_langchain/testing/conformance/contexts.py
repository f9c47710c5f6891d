"""Contexts: plain values up to a size, and beyond it a lazy text that behaves like a `str`."""
# ruff: noqa: D102, S101 - the name of a clause is the sentence that it proves

from __future__ import annotations

import pytest

from rlm_langchain.testing.conformance.base import (
    Clauses,
    Opener,
    fault,
    output,
)

TEXT = "żółw line one\nsecond line 😀\nthird LINE\n" * 3000

READS = (
    "len(context)",
    "context[0]",
    "context[-1]",
    "context[5:20]",
    "context[-20:]",
    "context[70_000:70_030]",
    "context[100:10:-1]",
    "context[1:60:7]",
    "context[10**9:]",
    "'third' in context",
    "'absent' in context",
    "context.find('third')",
    "context.find('third', 50)",
    "context.find('third', 50, 60)",
    "context.find('absent')",
    "context.rfind('😀')",
    "context.count('LINE')",
    "context.index('second')",
    "context.startswith('żółw')",
    "context.endswith('LINE\\n')",
    "len(context.splitlines())",
    "list(context.splitlines())[4]",
    "sum(1 for c in context if c == '😀')",
    "re.search('sec[a-z]+ (\\\\w+)', context).group(1)",
    "re.search('sec[a-z]+', context).span()",
    "re.search('absent', context)",
    "len(re.findall('l.ne', context, re.I))",
    "[m.start() for m in re.finditer('😀', context)][1000]",
    "re.match('żółw', context).end()",
    "re.compile('third (LINE)').search(context).span(1)",
    "re.compile('LINE').findall(context)[:2]",
    "bool(context)",
    "str(context[3:9])",
)


class ContextClauses(Clauses):
    """Contexts of every kind."""

    def test_a_text_is_a_str(self, open_session: Opener) -> None:
        session = open_session(context="żółw\r\n\x00\n")
        assert output(session, "print(type(context) is str, repr(context))") == "True 'żółw\\r\\n\\x00\\n'\n"

    def test_a_list_is_a_list(self, open_session: Opener) -> None:
        session = open_session(context=["a", {"ż": 1.5}])
        assert output(session, "print(type(context) is list, context)") == "True ['a', {'ż': 1.5}]\n"

    def test_a_dict_is_a_dict(self, open_session: Opener) -> None:
        session = open_session(context={"file.txt": "text", "n": None})
        assert output(session, "print(type(context) is dict, context)") == (
            "True {'file.txt': 'text', 'n': None}\n"
        )

    def test_without_a_context_it_is_none(self, open_session: Opener) -> None:
        assert output(open_session(), "print(context)") == "None\n"

    def test_an_empty_text_is_empty(self, open_session: Opener) -> None:
        assert output(open_session(context=""), "print(repr(context), len(context))") == "'' 0\n"

    def test_further_contexts_are_there_by_their_names(self, open_session: Opener) -> None:
        session = open_session(context="first", more={"context_1": ["a", 1], "context_2": "text"})
        assert output(session, "print(context, context_1, context_2)") == "first ['a', 1] text\n"
        assert output(session, "print(context_1[0])") == "a\n"
        assert "context_1" in fault(session, "context_1 = 'mine'")

    def test_a_context_can_be_changed_in_place_by_the_cell_that_owns_it(self, open_session: Opener) -> None:
        session = open_session(context=["a"])
        output(session, "context.append('b')")
        assert output(session, "print(context)") == "['a', 'b']\n"

    @pytest.mark.parametrize("read", READS)
    def test_a_lazy_text_reads_like_a_str(self, open_session: Opener, read: str) -> None:
        self.needs("lazy")
        code = f"import re\nprint(repr({read}))"
        assert output(open_session(context=TEXT, loaded=1000), code) == output(open_session(context=TEXT), code)

    def test_a_lazy_text_is_not_held_in_memory(self, open_session: Opener) -> None:
        self.needs("lazy")
        line = "nothing of interest in this line, nor in the next one\n"
        text = line * 2_000_000 + "the needle\n"
        session = open_session(context=text, loaded=1 << 20, memory=96 << 20)
        assert output(session, "print(context.find('needle'))") == f"{len(line) * 2_000_000 + 4}\n"
        assert output(session, "print(context[-11:], end='')") == "the needle\n"
