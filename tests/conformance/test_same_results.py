"""Where interpreters differ without an error, both sandboxes do what plain CPython does."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator

import pytest

from rlm_langchain.plugins import load
from rlm_langchain.protocols import SandboxSession
from rlm_langchain.types import Completed, Limits, Reply, Suspended

ENDS = r"""
import re
texts = ("", "x ERROR", "x ERROR\n", "x ERROR\n\n", "ERROR\nx", "ERROR $")
patterns = (r"ERROR$", r"ERROR\Z", r"(ERROR|x)$", r"[$R]$", r"[]$]", r"\$", r"(?m)ERROR$", r"^$", r"\n$")
for pattern in patterns:
    for text in texts:
        found = [re.search(pattern, text), re.compile(pattern).search(text), re.search(pattern, text, re.MULTILINE)]
        print(pattern, [m and m.span() for m in found], re.findall(pattern, text), re.sub(pattern, "<>", text))
    print(re.compile(pattern).pattern)
print(re.search("a  b $  # ends here", "ab\n", re.VERBOSE).span())
"""

EMPTY = r"""
import re
for pattern in ("x*", "a|", "a?", "(a)|(b)?", r"\s*$", r"^\s*", "^", "$", r"\b", r"(?m)^", r"(?m)$", r"[$\]]*"):
    for text in ("", "abxd", "xx", "a b  ", "b\na\n", "$]a"):
        compiled = re.compile(pattern)
        print(pattern, [m.span() for m in compiled.finditer(text)], compiled.findall(text), compiled.split(text))
        print([re.sub(pattern, "-", text)], re.subn(pattern, lambda m: f"<{m.group()}>", text))
        print([m.span() for m in re.finditer(pattern, text)], re.findall(pattern, text))
        print(re.split(pattern, text, maxsplit=1), [compiled.sub("-", text, count=2)])
"""

NOTHING_FIRST = r"""
import re
patterns = ("|a", "a*?", "a??", ".*?", "(|a)+", "(a|b*?)+", "(?=b)|a", r"\b|ab", r"(\w*?)(?:,|$)")
patterns += ("(?P<n>a*?)(?P<m>b?)", "(a*?)\\1b?")
for pattern in patterns:
    for text in ("", "a", "aab", "abxd", "b\na\n", "a,b,,c"):
        compiled = re.compile(pattern)
        matches = [(m.span(), m.groups(), m.groupdict()) for m in compiled.finditer(text)]
        print(pattern, matches, compiled.findall(text))
        print(compiled.split(text), re.split(pattern, text, maxsplit=2), [compiled.sub("-", text)], compiled.groups)
        print([re.subn(pattern, lambda m: f"<{m[0]}>", text, count=3)], [re.sub(pattern, r"[\g<0>]", text)])
"""

REPLACEMENTS = r"""
import re
repls = [r"\n", r"\\", r"\1\2", r"\g<1>0", r"\g<n>", r"\g<0>", r"\012", r"\0", r"\.", r"$1&", r"\t-\a"]
for repl in [*repls, r"\x", r"\3", r"\g<no>", r"\g<9>", "x\\"]:
    for pattern in (r"(?P<n>a)(b)?", r"(?P<n>a*)(b)?", re.compile("(?P<n>A)(b)", re.IGNORECASE)):
        try:
            print(repl, [re.sub(pattern, repl, "abxa"), re.subn(pattern, repl, "xyz", count=1)])
        except (re.error, IndexError) as error:
            print(repl, "no")
"""

CLASSES = r"""
import re
texts = ["\u00e9\u0301x \u00b2\u00bd", "a\x1cb\x1fc\x85d\u2028e\xa0f", "\u0663 7", "\u65e5\u672c, \u0915\u093f"]
texts += ["plain _ text-9", "a[b&&c--d~e]"]
patterns = [r"\w+", r"\W+", r"\d", r"\D+", r"\s", r"\S+", r"\b", r"\b\w", r"[\w.-]+", r"[^\w\s]"]
patterns += [r"[\W\d]", r"[\S]+", r"[a&b]", r"[+-]", r"[~a]"]
for pattern in patterns:
    for text in texts:
        for flags in (0, re.ASCII, re.IGNORECASE):
            found = re.findall(pattern, text, flags)
            print(pattern, ascii(found), ascii(re.split(pattern, text)))
            print(ascii(re.sub("(?a)" + pattern, "<>", text)))
"""

ROUNDING = """
for number in (2.675, 1.005, 0.125, 0.375, 2.5, -2.675, 1e300, -0.4, 1234.5678, 5e-324, 0.1, 1250.0, 7, True):
    print([round(number, digits) for digits in (0, 1, 2, 3, 10, 30)], round(number), round(number, None))
print(round(1350.0, -2), round(1250, -2), [round(n / 8, 2) for n in range(-20, 20)], list(map(round, [0.5, 1.5])))
"""


MARKS = ["", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{,1}?"]
PARTS = ["a", "b", ".", "[ab]", "[^a]", "(a|b)", "(ab)", r"\w", r"\W", r"\s"]
MARKED = [
    part + mark for part in PARTS for mark in ("", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{,1}?")
]
PATTERNS = [*MARKED, *["(?=b)", "(?<=a)", "(?!b)", r"\b", "^", "$", "|", "|"] * 4]


def random_searches(seed: int) -> str:
    """A cell that uses patterns which nobody thought of."""
    draw = random.Random(seed)
    lines = ["import re"]
    for _ in range(150):
        pattern = "".join(draw.choices(PATTERNS, k=draw.randint(1, 4)))
        text = "".join(draw.choices("aab xA\n\u00e9\u00b2\u0301,", k=draw.randint(0, 8)))
        asked = f"{pattern!r}, {text!r}"
        lines.append(f"print({pattern!r}, ascii(re.findall({asked})), [m.span() for m in re.finditer({asked})])")
        lines.append(f"print(ascii(re.split({asked})), ascii(re.sub({pattern!r}, r'<\\g<0>>', {text!r})))")
    return "\n".join(lines)


CELLS = {
    "ends of texts": ENDS,
    "empty matches": EMPTY,
    "empty matches preferred": NOTHING_FIRST,
    "replacements": REPLACEMENTS,
    "classes": CLASSES,
    "random searches": random_searches(7),
    "rounding": ROUNDING,
}


@pytest.fixture(params=["cpython", "monty"])
def session(request: pytest.FixtureRequest) -> Iterator[SandboxSession]:
    opened = load("sandboxes", request.param)().open(None, "", Limits(seconds=20))
    yield opened
    opened.close()


@pytest.mark.parametrize("code", CELLS.values(), ids=CELLS)
def test_a_cell_prints_what_plain_cpython_prints(session: SandboxSession, code: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert session.run(code) == Completed(out.getvalue())


def test_sets_of_characters_have_no_operators_in_monty() -> None:
    """Python warns of them, so they have no place above."""
    code = "import re\nprint([re.findall(p, 'a[b&-c~') for p in ('[[a]', '[a&&b]', '[+--]', '[a~~b]')])"
    monty = load("sandboxes", "monty")().open(None, "", Limits(seconds=20))
    try:
        assert monty.run(code) == Completed("[['a', '['], ['a', 'b', '&'], ['-'], ['a', 'b', '~']]\n")
    finally:
        monty.close()


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("return 5", 1),
        ("x = 1\nif x:\n    return x\nprint('after')", 3),
        ("for n in [1]:\n    try:\n        pass\n    finally:\n        return", 5),
        ("class A:\n    return 1", 2),
        ("def f():\n    return 1\nwith f() as g:\n    return g", 4),
    ],
)
def test_a_return_outside_of_a_function_is_an_error_and_nothing_runs(
    session: SandboxSession, code: str, line: int
) -> None:
    step = session.run("print('before')\n" + code)
    assert isinstance(step, Completed)
    assert step.stdout == ""
    assert "'return' outside function" in (step.error or "")
    assert f"line {line + 1}" in (step.error or "")


def test_a_return_inside_of_a_function_is_none(session: SandboxSession) -> None:
    code = "class A:\n    def f(self):\n        if True:\n            return 2\nprint(A().f())"
    assert session.run(code) == Completed("2\n")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("from rlm import llm_query", "imports `llm_query`, which is there already: leave the import out"),
        ("from rlm_langchain import llm_query, FINAL", "which is there already: leave the import out"),
        ("import numpy as context", "such as `data`"),
        ("import rlm\nrlm.llm_query('x')", "are there without an import"),
        ("import rlm_langchain.repl", "are there without an import"),
        ("from rlm_langchain import search", "are there without an import"),
        ("from tools import llm_query_batched as ask", "are there without an import"),
        ("import repl.llm_query", "are there without an import"),
        ("import helpers; helpers.FINAL(1)", "are there without an import"),
        ("try:\n    from rlm import llm_query\nexcept ImportError:\n    pass", "leave the import out"),
        ("import rlm\nllm_query = rlm.llm_query", "leave the import out"),
        ("x = await budget()", "are called without await"),
        ("import asyncio\nasyncio.run(budget())", "are called without await"),
        ("import asyncio\nasyncio.create_task(budget())", "are called without await"),
        ("async def main():\n    async for x in budget():\n        pass\nawait main()", "are called without await"),
        ("async with budget() as x:\n    pass", "are called without await"),
        ("async def main():\n    return await len('x')\nprint(await main())", "are called without await"),
        ("import asyncio\nprint(await asyncio.gather(len('a'), len('b')))", "are called without await"),
    ],
)
def test_what_is_there_needs_neither_import_nor_await(session: SandboxSession, code: str, hint: str) -> None:
    step = session.run(code)
    while isinstance(step, Suspended):
        step = session.resume([Reply({}) for _ in step.calls])
    assert isinstance(step, Completed)
    assert hint in (step.error or "")
