"""A REPL is a cache of its journal: its worker may go at any time, and the cells do not notice."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from rlm_langchain import RLMOutput, create_rlm
from rlm_langchain.testing.models import script
from tests.processes import children, gone


def outputs(output: RLMOutput) -> list[Any]:
    return [record for record in output["trajectory"] if record["type"] == "output"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_worker_that_is_killed_while_its_cell_waits_is_replaced_and_nothing_is_asked_again(sandbox, way):
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        if prompt == "b":
            for pid in children():
                os.kill(pid, signal.SIGKILL)
        return prompt.upper()

    rlm = create_rlm(
        script("x = llm_query('a')", "y = llm_query('b')\nprint(x)", "FINAL(x + y + llm_query('c'))", leaf=leaf),
        sandbox=sandbox,
    )
    output = rlm.invoke("q") if way == "invoke" else asyncio.run(rlm.ainvoke("q"))
    assert (output["answer"], asked) == ("ABC", ["a", "b", "c"])
    assert [record["outcome"] for record in outputs(output)] == ["completed", "completed", "answered"]
    assert any("new one" in record["text"] for record in output["trajectory"] if record["type"] == "note")


def test_a_cell_that_kills_its_own_worker_gets_one_more_try_and_the_model_is_told():
    rlm = create_rlm(
        script("x = 1", "import os\nos._exit(3)", "FINAL(x)"),
        sandbox="cpython",
    )
    output = rlm.invoke("q")
    assert output["answer"] == 1
    assert [record["outcome"] for record in outputs(output)] == ["completed", "died", "answered"]


def test_no_worker_outlives_its_run():
    others = children()
    create_rlm(script("x = llm_query('a')", "FINAL(1)"), sandbox="cpython").invoke("q")
    assert all(map(gone, set(children()) - set(others)))
