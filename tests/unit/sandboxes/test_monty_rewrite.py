"""Changed cells mean the same: what they print is compared, changed and unchanged, in plain Python."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_langchain.sandboxes.monty.prelude_loader import module_code, session_prelude
from rlm_langchain.sandboxes.monty.prepare import Prepared, Refused, prepare

DATA = Path(__file__).parents[2] / "data"
CELLS = json.loads((DATA / "ordinary_cells.json").read_text("utf-8"))
ASKING = (
    "llm",
    "rlm",
    "budget",
    "FINAL",
    "answer",
    "threadpool",
    "SHOW",
    "globals",
    "traceback",
    "asdict",
    "last_",
)
"""Cells that need a host, or whose library is one on purpose."""
REFUSED = {"dunder_len": "__len__ of your own classes is never called here (line 4)"}
"""Cells that Monty would misunderstand in part, and the reason that is told instead."""


def changes(kind: str) -> dict[str, str]:
    """Cells that need changes, by name."""
    blocks = (DATA / "monty_changes.txt").read_text("utf-8").split("### ")[1:]
    parts = (block.partition("\n") for block in blocks)
    return {head.partition(" | ")[2]: code for head, _, code in parts if head.startswith(kind)}


OTHERS = changes("other")
QUOTES_IN_QUOTES = sys.version_info >= (3, 12)
"""Monty reads them in f-strings, and so does Python since 3.12."""


@functools.cache
def library() -> str:
    return session_prelude()


def printed(code: str, names: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "<cell>", "exec"), names)
    return out.getvalue()


def changed(code: str) -> tuple[str, dict[str, Any]]:
    """The code as it would be fed to Monty, and the globals of a session, made by plain Python."""
    cell = prepare(code, 1, echo=False)
    assert isinstance(cell, Prepared)
    names: dict[str, Any] = {"__rlm_most__": 1 << 20, "__name__": "__main__"}
    exec(library(), names)
    for module in cell.modules:
        exec(module_code(module), names)
    return cell.code, names


@pytest.mark.parametrize("name", OTHERS)
def test_a_changed_cell_does_the_same(name: str) -> None:
    if "f-string" in name and not QUOTES_IN_QUOTES:
        pytest.skip("this Python cannot read what Monty can")
    code, names = changed(OTHERS[name])
    assert printed(code, names) == printed(OTHERS[name], {"__name__": "__main__"})


@pytest.mark.parametrize(
    "cell",
    [
        c
        for c in CELLS["cells"]
        if c["name"] not in REFUSED and not any(word in c["name"] + c["code"] for word in ASKING)
    ],
    ids=lambda c: c["name"],
)
def test_an_ordinary_cell_does_the_same(cell: dict[str, Any]) -> None:
    code, names = changed(cell["code"])
    names["context"] = json.loads(json.dumps(CELLS["contexts"][cell["context"]]))
    assert printed(code, names) == cell["expect"]["stdout"]


def test_of_the_ordinary_cells_only_those_with_methods_that_are_never_called_are_refused() -> None:
    told = {c["name"]: prepare(c["code"], 1) for c in CELLS["cells"]}
    refused = {name: cell.sentence for name, cell in told.items() if isinstance(cell, Refused)}
    assert refused.keys() == REFUSED.keys()
    assert all(reason in refused[name] for name, reason in REFUSED.items())


def test_a_cell_that_needs_no_change_is_not_touched() -> None:
    code = (
        "x = [len(w) for w in 'a b'.split()]\nprint(sorted(x, key=lambda n: -n), max(x), '-'.join(map(str, x)))\n"
    )
    assert changed(code)[0] == code


@pytest.mark.parametrize("code", OTHERS.values())
def test_every_line_that_runs_has_a_line_that_it_came_from(code: str) -> None:
    cell = prepare(code, 1)
    assert isinstance(cell, Prepared)
    count = cell.code.count("\n") + 1
    assert not cell.source.origins or len(cell.source.origins) == count
    assert all(1 <= cell.source.line(n) <= code.count("\n") + 1 for n in range(1, count + 1))


def test_lines_are_found_again_after_a_change() -> None:
    code = "x = 1\ndel x\ny = (2,\n     3)\ntry:\n    x\n\nexcept BaseException:\n    print(1 / 0)\nz = nothing\n"
    cell = prepare(code, 1)
    assert isinstance(cell, Prepared)
    ran = cell.code.split("\n")
    found = {text: cell.source.line(n) for n, text in enumerate(ran, 1)}
    assert found["z = nothing"] == 10
    assert next(line for text, line in found.items() if "1 / 0" in text) == 9
    assert cell.source.text(9) == "print(1 / 0)"


def test_windows_and_old_mac_line_ends_are_lines() -> None:
    cell = prepare("x = 1\r\ny = 2\rz = 3", 1)
    assert isinstance(cell, Prepared)
    assert cell.code == "x = 1\ny = 2\nz = 3"


def test_what_this_python_cannot_parse_goes_to_monty_as_it_is() -> None:
    code = "x = = 1"
    cell = prepare(code, 1)
    assert isinstance(cell, Prepared)
    assert cell.code == code


def test_reserved_names_are_refused_with_a_sentence() -> None:
    assert prepare("context = 1", 1) == Refused(
        "Line 1 would change `context`, a name that the REPL itself needs. Use `context` as it is, and "
        "give what you make of it another name, such as `data`. No code of this cell was run."
    )


PIECES = st.sampled_from(
    r"""def g():\n~ yield x\n~    ~\n~del x~d.get~(~)~for i in x:\n~f'{d.get}'~next(~x for x in y~import heapq\n
~from re import sub\n~try:\n~except E as e:\n~class A:\n~@dataclass\n~lambda: ~é~\t~;~sorted(x, key=f)~x = ~return\n
~while 1:\n~break\n~'~\"~#~{~}~[~]~:~,~*~await ~global x\n~nonlocal y\n~match x:\n~ case [a, *b]: ~async ~yield
""".replace("\n", "")
    .replace(r"\n", "\n")
    .replace(r"\t", "\t")
    .split("~")
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=60))
def test_no_source_makes_it_raise(code: str) -> None:
    assert isinstance(prepare(code, 1), Prepared | Refused)


@pytest.mark.parametrize(
    "code",
    [
        "-" * 90_000 + "1",
        "lambda: " * 12_000 + "1",
        "def g():\n yield " + "(" * 150 + "1" + ")" * 150,
        "x = " + "a." * 900 + "get",
        "def g():\n" + " if x:\n  yield 1\n" * 3000,
        "f'" + "{d.get}" * 5000 + "'",
        "del " + ", ".join(["x"] * 9000),
    ],
)
def test_hostile_source_makes_it_neither_raise_nor_crash(code: str) -> None:
    assert isinstance(prepare(code, 1), Prepared | Refused)
