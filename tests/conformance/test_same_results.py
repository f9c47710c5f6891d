"""Where interpreters differ without an error, both sandboxes do what plain CPython does."""

from __future__ import annotations

import contextlib
import io
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

ROUNDING = """
for number in (2.675, 1.005, 0.125, 0.375, 2.5, -2.675, 1e300, -0.4, 1234.5678, 5e-324, 0.1, 1250.0, 7, True):
    print([round(number, digits) for digits in (0, 1, 2, 3, 10, 30)], round(number), round(number, None))
print(round(1350.0, -2), round(1250, -2), [round(n / 8, 2) for n in range(-20, 20)], list(map(round, [0.5, 1.5])))
"""


@pytest.fixture(params=["cpython", "monty"])
def session(request: pytest.FixtureRequest) -> Iterator[SandboxSession]:
    opened = load("sandboxes", request.param)().open(None, "", Limits(seconds=20))
    yield opened
    opened.close()


@pytest.mark.parametrize("code", [ENDS, EMPTY, ROUNDING], ids=["ends of texts", "empty matches", "rounding"])
def test_a_cell_prints_what_plain_cpython_prints(session: SandboxSession, code: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert session.run(code) == Completed(out.getvalue())


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
        ("x = await budget()", "are called without await"),
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
