"""What a program gives to a child run is a value: it cannot name files or contexts that it was not given."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, create_rlm
from rlm_langchain.context.store import ContextStore
from rlm_langchain.testing.models import script

SECRET = "the secret of the host"
CHILD = ("FINAL([type(context).__name__, sorted(context)] if isinstance(context, dict) else context)",)


def forged(sha256: str, **more: Any) -> dict[str, Any]:
    """What a reference looks like, from the docs."""
    return {"sha256": sha256, "kind": "text", "length": 22, "size": 22, "about": "a str", "preview": "", **more}


def of_file(home: Path) -> dict[str, Any]:
    (home / "secret.txt").write_text(SECRET)
    return forged(hashlib.sha256(SECRET.encode()).hexdigest(), path=str(home / "secret.txt"))


def of_another_run(home: Path) -> dict[str, Any]:
    ref = ContextStore(home).reference(SECRET)
    assert ref is not None
    return {**ref, "preview": ""}


def of_nothing(home: Path) -> dict[str, Any]:
    return forged("0" * 64, path="/nonexistent/file")


def of_no_form(home: Path) -> dict[str, Any]:
    return forged("no hash", path="relative")


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("forge", [of_file, of_another_run, of_nothing, of_no_form])
def test_a_dict_that_looks_like_a_reference_is_a_dict(tmp_path: Path, forge: Any, sandbox: str) -> None:
    given = forge(tmp_path)
    code = f"FINAL(rlm_query('CHILD', {given!r}))"
    rlm = create_rlm(
        script(code, children={"CHILD": CHILD}), sandbox=sandbox, budget=Budget(depth=2), home=tmp_path
    )
    output = rlm.invoke("q")
    assert "sha256" in output["answer"], "the child was given the dict itself"
    assert "dict" in output["answer"]
    assert SECRET not in str(output)


def test_the_same_reference_from_a_caller_is_opened(tmp_path: Path) -> None:
    """What the check above would see if it could fail."""
    of_file(tmp_path)
    ref = ContextStore(tmp_path).reference(tmp_path / "secret.txt")
    rlm = create_rlm(script("FINAL(context)"), sandbox="monty", home=tmp_path)
    assert rlm.invoke({"query": "q", "context": ref})["answer"] == SECRET


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_document_pages_rows_and_a_named_context_go_to_children_by_reference(
    tmp_path: Path, sandbox: str
) -> None:
    """No prompt and no state has their text, and each child sees the value as it is."""
    pages = [{"page": n, "text": f"word{n} " * 400} for n in range(1, 21)]
    (tmp_path / "notes.txt").write_text("noteword " * 400)
    rows = [{"id": n, "name": "rowword"} for n in range(50)]
    context = {"a.pdf": pages, "rows": rows, "notes": tmp_path / "notes.txt"}
    code = """
doc = context['a.pdf']
FINAL(rlm_query_batched(['KID'] * 5, [doc, doc[9:12], doc[4]['text'], context['rows'][3:6], notes]))
"""
    kid = ("FINAL([type(context).__name__, len(context), str(context[0])[:11]])",)
    saver = InMemorySaver()
    rlm = create_rlm(
        script(code, children={"KID": kid}),
        sandbox=sandbox,
        budget=Budget(depth=2),
        home=tmp_path / "home",
        checkpointer=saver,
    )
    output = rlm.invoke({"query": "q", "context": context}, {"configurable": {"thread_id": "one"}})
    assert [json.loads(one) for one in output["answer"]] == [
        ["list", 20, "{'page': 1,"],
        ["list", 3, "{'page': 10"],
        ["str", 2400, "w"],
        ["list", 3, "{'id': 3, '"],
        ["str", 3600, "n"],
    ]
    stored = repr([*saver.list(None)]) + repr(output)
    assert "word15 word15" not in stored
