"""What a program gives to a child run is a value: it cannot name files or contexts that it was not given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

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
