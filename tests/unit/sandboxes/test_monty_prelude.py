"""The modules that Monty gets from us do what Python's do: the same code, run here, against the originals."""

from __future__ import annotations

import ast
import builtins
import functools
import heapq
import io
import operator
import re
import statistics
import string
import textwrap
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_langchain.sandboxes.monty.prelude_loader import (
    global_names,
    module_code,
    modules,
    session_prelude,
)

quick = settings(max_examples=40, deadline=None)


@functools.cache
def world() -> dict[str, Any]:
    """The globals of a session, made by plain Python."""
    names: dict[str, Any] = {"__rlm_most__": 1 << 20}
    exec(session_prelude(), names)
    return names


@functools.cache
def ours(module: str) -> Any:
    exec(module_code(module), world())
    return world()[f"_rlm_module_{module}"]


NUMBERS = st.lists(st.integers(-1000, 1000), min_size=2, max_size=30)
FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)
WORDS = st.text(alphabet=string.ascii_letters + " .,\n\t", max_size=300)


def test_every_module_loads_and_has_its_name() -> None:
    assert {name: repr(ours(name)) for name in modules()} == {name: f"<module {name!r}>" for name in modules()}


def test_no_file_of_the_prelude_uses_a_name_that_is_not_there() -> None:
    files = resources.files("rlm_langchain.sandboxes.monty").joinpath("prelude")
    for path in [*files.joinpath("globals").iterdir(), *files.joinpath("modules").iterdir()]:
        if path.name.endswith(".py"):
            tree = ast.parse(path.read_text("utf-8"))
            stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            stored |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
            stored |= {
                n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler)
            }
            stored |= {n.asname or n.name for n in ast.walk(tree) if isinstance(n, ast.alias)}
            used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - stored - {*dir(builtins)}
            assert not {n for n in used if not n.startswith(("_rlm_", "__rlm_", "_native_"))}, path.name


def test_the_vocabulary_is_there() -> None:
    assert {"llm_query", "rlm_query_batched", "FINAL", "SHOW_VARS", "LLMError", "budget"} <= set(global_names())


@quick
@given(NUMBERS)
def test_heaps_pop_in_order(numbers: list[int]) -> None:
    mine, theirs = [*numbers], [*numbers]
    ours("heapq").heapify(mine)
    heapq.heapify(theirs)
    for n in numbers[:5]:
        ours("heapq").heappush(mine, n * 7 % 13)
        heapq.heappush(theirs, n * 7 % 13)
        assert ours("heapq").heappushpop(mine, n) == heapq.heappushpop(theirs, n)
    assert [ours("heapq").heappop(mine) for _ in range(len(mine))] == [
        heapq.heappop(theirs) for _ in range(len(theirs))
    ]
    assert ours("heapq").nlargest(3, numbers, key=abs) == heapq.nlargest(3, numbers, key=abs)
    assert ours("heapq").nsmallest(3, numbers) == heapq.nsmallest(3, numbers)


@pytest.mark.parametrize(
    "name",
    [
        "mean",
        "median",
        "median_low",
        "median_high",
        "mode",
        "multimode",
        "variance",
        "pvariance",
        "stdev",
        "pstdev",
        "fmean",
        "quantiles",
    ],
)
@quick
@given(numbers=NUMBERS | FLOATS)
def test_statistics_agree(name: str, numbers: list[float]) -> None:
    mine, theirs = getattr(ours("statistics"), name)(numbers), getattr(statistics, name)(numbers)
    assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-4)
    if all(isinstance(n, int) for n in numbers):
        assert type(mine) is type(theirs)


@quick
@given(text=WORDS, width=st.integers(8, 60))
def test_text_wraps_at_the_same_places(text: str, width: int) -> None:
    assert ours("textwrap").wrap(text, width) == textwrap.wrap(text, width)
    assert ours("textwrap").wrap(text, width, initial_indent="* ", subsequent_indent="  ") == textwrap.wrap(
        text, width, initial_indent="* ", subsequent_indent="  "
    )
    assert ours("textwrap").indent(text, "> ") == textwrap.indent(text, "> ")


@quick
@given(text=WORDS, width=st.integers(20, 60))
def test_text_is_shortened_at_the_same_place(text: str, width: int) -> None:
    assert ours("textwrap").shorten(text, width) == textwrap.shorten(text, width)


@quick
@given(st.text(alphabet=" \tab\n", max_size=60))
def test_dedent_takes_away_the_same_margin(text: str) -> None:
    assert ours("textwrap").dedent(text) == textwrap.dedent(text)


def test_strings_have_the_same_constants() -> None:
    names = ["whitespace", "ascii_letters", "digits", "hexdigits", "octdigits", "punctuation", "printable"]
    assert {n: getattr(ours("string"), n) for n in names} == {n: getattr(string, n) for n in names}
    assert ours("string").capwords("ab cd") == string.capwords("ab cd")


@quick
@given(st.lists(st.text(alphabet="ab\n", max_size=10) | st.integers(0, 20) | st.none(), max_size=12))
def test_a_file_in_memory_reads_and_writes_alike(actions: list[Any]) -> None:
    mine, theirs = ours("io").StringIO("first\nsecond"), io.StringIO("first\nsecond")
    for action in actions:
        for file in (mine, theirs):
            if isinstance(action, str):
                file.write(action)
            elif action is not None:
                file.seek(min(action, len(file.getvalue())))
        assert mine.readline() == theirs.readline()
    assert (mine.getvalue(), mine.tell()) == (theirs.getvalue(), theirs.tell())


def test_getters_get_the_same() -> None:
    row = {"a": 1, "b": [2, 3]}
    assert ours("operator").itemgetter("a")(row) == operator.itemgetter("a")(row)
    assert ours("operator").itemgetter("b", "a")(row) == operator.itemgetter("b", "a")(row)
    assert ours("operator").methodcaller("get", "z", 9)(row) == operator.methodcaller("get", "z", 9)(row)
    assert ours("operator").attrgetter("real")(5) == 5


def test_a_verbose_pattern_is_the_same_without_its_blanks() -> None:
    pattern = r"""
        (?P<year>\d{4}) [ ]- \  # a comment with (parentheses
        [#\s] [^ ]  (a\#b)?     # another
    """
    for text in ("2024 - #x", "2024 -  xa#b", "2024-", "2024 - ##"):
        mine, theirs = ours("re").search(pattern, text, re.X), re.search(pattern, text, re.X)
        assert (mine and mine.span()) == (theirs and theirs.span())


@quick
@given(st.text(alphabet="ab1 ", max_size=20), st.integers(0, 3))
def test_a_function_replaces_as_it_does_in_re(text: str, count: int) -> None:
    def upper(found: re.Match[str]) -> str:
        return f"<{found.group(0).upper()}>"

    for pattern in (r"a+", r"\b", r"x*", r"(a)|(b)"):
        assert world()["_rlm_method"](re.compile(pattern), "subn")(upper, text, count) == re.subn(
            pattern, upper, text, count=count
        )


@quick
@given(st.text(max_size=20), st.dictionaries(st.characters(), st.none() | st.text(max_size=3), max_size=5))
def test_characters_are_translated_alike(text: str, table: dict[str, Any]) -> None:
    mine = world()["_rlm_method"](text, "translate")(world()["_rlm_method"](str, "maketrans")(table))
    assert mine == text.translate(str.maketrans(table))


METHODS = [
    ("a b", "split", ()),
    ({"a": 1}, "get", ("a",)),
    ([1, 2], "index", (2,)),
    ("ab", "__getitem__", (1,)),
    ({1, 2}, "__contains__", (2,)),
    (2.0, "is_integer", ()),
    (255, "bit_length", ()),
    ("{x}", "format_map", ({"x": 1},)),
    ({1, 2}, "union", ([3], [4])),
    ({1, 2}, "intersection", ([2], [2, 4])),
    (re.compile("a"), "findall", ("aba",)),
]


@pytest.mark.parametrize(("value", "name", "args"), METHODS)
def test_a_method_is_a_value(value: Any, name: str, args: tuple[Any, ...]) -> None:
    assert world()["_rlm_method"](value, name)(*args) == getattr(value, name)(*args)
    if isinstance(value, str | list | dict | set | int | float):
        assert world()["_rlm_method"](type(value), name)(value, *args) == getattr(value, name)(*args)


def test_a_method_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="split"):
        world()["_rlm_method"]([1], "split")
    assert not world()["hasattr"]([1], "split")
    assert world()["getattr"]([1], "split", 5) == 5


@pytest.mark.parametrize("key", [1, -1, slice(1, 3), slice(None, None, 2)])
def test_items_of_a_list_are_deleted_alike(key: Any) -> None:
    mine, theirs = [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]
    world()["_rlm_delete"](mine, key)
    del theirs[key]
    assert mine == theirs
