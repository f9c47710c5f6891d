"""Cells as models write them do in each sandbox what they do in plain CPython. Prints the pass rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from data.ordinary_cells import EXPECTED, cells, contexts, reply

from rlm_langchain.plugins import load
from rlm_langchain.testing.conformance.base import finish, stored
from rlm_langchain.types import (
    Answered,
    Call,
    Completed,
    Limits,
    Reply,
    Step,
)

HELD: dict[str, Any] = json.loads(EXPECTED.read_text("utf-8"))
AT_LEAST = {"cpython": len(HELD["cells"]), "monty": 151}
"""How many of them pass. Raise it when more do."""


def host(call: Call) -> Reply:
    value, error = reply(call.kind, call.prompt, call.context)
    return Reply(value, error)


def difference(step: Step, expect: dict[str, Any]) -> str | None:
    """What a cell did otherwise than in plain CPython; None when nothing."""
    if not isinstance(step, Completed | Answered) or step.error:
        return str(getattr(step, "error", step)).strip().splitlines()[-1][:150]
    answer = step.value if isinstance(step, Answered) else None
    if answer != expect["answer"]:
        return f"answered {answer!r}"[:150]
    return None if step.stdout == expect["stdout"] else f"printed {step.stdout!r}"[:300]


@pytest.mark.parametrize("name", AT_LEAST)
def test_ordinary_cells_do_what_they_do_in_cpython(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    sandbox = load("sandboxes", name)()
    files = {kind: stored(context, tmp_path, kind) for kind, context in HELD["contexts"].items()}

    def played(cell: dict[str, Any]) -> str | None:
        session = sandbox.open(files[cell["context"]], "", Limits(seconds=10))
        try:
            return difference(finish(session, session.run(cell["code"]), host), cell["expect"])
        finally:
            session.close()

    with ThreadPoolExecutor(4) as pool:
        differences = pool.map(played, HELD["cells"])
        whys = zip(HELD["cells"], differences, strict=True)
        failed = {cell["name"]: why for cell, why in whys if why is not None}
    passed = len(HELD["cells"]) - len(failed)
    record_property("ordinary cells", f"{name:10} {passed}/{len(HELD['cells'])}")
    for cell, why in failed.items():
        record_property("ordinary cells", f"{name:10}   {cell}: {why}")
    assert passed >= AT_LEAST[name]


def test_the_stored_cells_are_those_of_the_text() -> None:
    assert [{k: c[k] for k in ("name", "context", "code")} for c in HELD["cells"]] == cells()
    assert HELD["contexts"] == contexts()
