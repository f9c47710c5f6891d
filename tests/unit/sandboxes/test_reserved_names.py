"""Cells that would overwrite names of the REPL are refused before they run; all others pass."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlm_langchain.sandboxes.reserved_names import (
    LONGEST,
    RESERVED,
    parse,
    refused,
)

BINDING = [
    "context = 1",
    "context += 'a'",
    "context: str = 'a'",
    "a, (b, *context) = 1",
    "if 1:\n    if 1:\n        context = 1",
    "del context",
    "import re as context",
    "from re import sub as context",
    "import context.x",
    "def context(x): pass",
    "async def context(): pass",
    "class context: pass",
    "for context in []: pass",
    "with a as context: pass",
    "print(context := 1)",
    "[context := x for x in y]",
    "{x for x in y if (context := x)}",
    "try:\n    pass\nexcept E as context: pass",
    "match x:\n    case context: pass",
    "match x:\n    case [a, *context]: pass",
    "match x:\n    case {'a': 1, **context}: pass",
    "def f():\n    global context",
    "class A:\n    def f(self):\n        global a, context",
    "def f(x=(context := 1)): pass",
    "@(context := 1)\ndef f(): pass",
    "lambda x=(context := 1): x",
    "class A((context := B)): pass",
]

SHADOWING = [
    "def f(context): context = 1",
    "def f(*context, **budget): return [c for c in context]",
    "lambda context: context",
    "lambda: (context := 1)",
    "[context for context in x]",
    "{context: 1 for context in x}",
    "class A:\n    context = 1",
    "x.context = 1",
    "x['context'] = 1",
    "f(context=1)",
    "def f():\n    import re as context",
    "def f():\n    return [context := x for x in y]",
    "def f():\n    for context in x:\n        del context",
    "answer = {'content': 1, 'ready': True}",
    "print(len(context)); llm_query('x')",
]


@pytest.mark.parametrize("code", BINDING)
def test_a_binding_at_module_level_is_refused(code: str) -> None:
    assert "`context`" in (refused(code) or "")


@pytest.mark.parametrize("code", SHADOWING)
def test_what_a_cell_keeps_to_itself_may_shadow(code: str) -> None:
    assert refused(code) is None


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_every_name_of_the_vocabulary_is_kept(name: str) -> None:
    assert f"`{name}`" in (refused(f"{name} = 1") or "")


def test_the_sentence_says_where_what_and_what_to_do() -> None:
    assert refused("x = 1\nbudget = 5\ncontext = 2") == (
        "Line 2 would change `budget`, a name that the REPL itself needs. "
        "Use another name, such as `my_budget`. No code of this cell was run."
    )


@pytest.mark.parametrize("code", ["context =", "(" * 5_000, "f(x for context in y"])
def test_a_syntax_error_is_left_to_the_sandbox(code: str) -> None:
    assert refused(code) is None


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("-" * 90_000 + "1", "nested too deeply"),
        ("a" + ".a" * 40_000, "nested too deeply"),
        ("lambda:" * 14_000 + "1", "nested too deeply"),
        ("if 1: pass\n" + "elif 1: pass\n" * 7_000, "nested too deeply"),
        ("x" * (LONGEST + 1), "100,001 characters"),
        ("x = '\ud800'", "surrogate"),
    ],
)
def test_hostile_source_gets_a_sentence(code: str, says: str) -> None:
    assert says in (refused(code) or "")


@pytest.mark.parametrize("code", ["\0", "context = 1 # \0", "'" + "\\N{" * 30_000, "f'{" * 30_000])
def test_hostile_source_raises_nothing(code: str) -> None:
    assert refused(code) is None or "No code of this cell was run." in str(refused(code))


def test_a_doubtful_escape_makes_no_warning_and_does_not_hide_an_assignment() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert "`context`" in (refused('x = "\\d"\ncontext = 1') or "")
    assert caught == []


class Loop:
    """Garbage whose end runs code, in whichever thread collects it."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        sum(range(100))


@pytest.fixture
def _busy_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(10)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_busy_collector")
def test_threads_that_parse_and_collect_garbage_are_not_in_each_others_way() -> None:
    code = "\n".join(f"x{i} = f(a[{i}] + (b * {i}) for b in c if d)" for i in range(30))

    def work(_: int) -> int:
        return sum(len([Loop() for _ in range(5)]) == 5 and len(parse(code).body) == 30 for _ in range(100))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 800
