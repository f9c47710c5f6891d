"""Texts that databases refuse go through a thread: as they are, or replaced where that cannot be, and told of."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.tools import ToolException
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

from rlm_langchain import InputError, create_rlm
from rlm_langchain.graph.text_channel import ENCODED_TAG, TextChannel
from rlm_langchain.testing.models import script

HALF, NUL = "a\udc80b", "a\x00b"


@pytest.mark.parametrize(
    "value", ["plain", HALF, NUL, None, 3, [NUL], [ENCODED_TAG, "x"], [ENCODED_TAG, json.dumps([ENCODED_TAG, NUL])]]
)
def test_a_value_comes_back_as_it_was_and_no_row_holds_what_a_database_refuses(value: Any) -> None:
    channel = TextChannel(Any)
    channel.update([value])
    written = channel.checkpoint()
    assert TextChannel(Any).from_checkpoint(written).get() == value
    assert not (isinstance(written, str) and set(written) & {"\x00", "\udc80"})


def bad_tool(text: str) -> str:
    """Fail with what no record can hold."""
    raise ToolException(f"no: {HALF}")


ASKED: Any = {
    "question": ({"query": f"what is {HALF}{NUL}?"}, "FINAL(1)", 1),
    "answer": ("q", f"FINAL({NUL!r})", NUL),
    "prose": ("q", f"prose:It is {NUL}.", f"It is {NUL}."),
    "sub-call": ("q", f"FINAL(llm_query({HALF + NUL!r}))", "<a\ufffdba\x00b>"),
    "tool": ("q", "try:\n    bad_tool('x')\nexcept Exception as error:\n    FINAL(str(error)[-3:])", "a\ufffdb"),
    "context": ({"query": "q", "context": {HALF: NUL}}, "FINAL(context)", {"a\ufffdb": NUL}),
}


@pytest.mark.parametrize(("way", "sandbox"), [("invoke", "cpython"), ("ainvoke", "monty"), ("graph", "monty")])
def test_a_thread_goes_on_after_any_text(way: str, sandbox: str, tmp_path: Path, caplog: Any) -> None:
    asked, cells, answers = zip(*ASKED.values(), strict=True)
    turns = [cell for cell in cells for _ in range(1 + cell.startswith("prose:"))]
    config: Any = {"configurable": {"thread_id": "t", f"user {HALF}": NUL}, "metadata": {HALF: [{NUL: HALF}]}}

    def rlm(saver: Any) -> Any:
        made = create_rlm(script(*turns), sandbox=sandbox, checkpointer=saver, tools=[bad_tool])
        return made.graph if way == "graph" else made

    def as_input(question: Any) -> Any:
        return {"query": question} if isinstance(question, str) else question

    async def later() -> list[Any]:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads")) as saver:
            return [(await rlm(saver).ainvoke(as_input(one), config))["answer"] for one in asked]

    if way == "ainvoke":
        assert asyncio.run(later()) == [*answers]
    else:
        saver = SqliteSaver(sqlite3.connect(tmp_path / "threads", check_same_thread=False))
        assert [rlm(saver).invoke(as_input(one), config)["answer"] for one in asked] == [*answers]
        saver.conn.close()
    assert "in the metadata of a checkpoint, U+FFFD stands for 3 characters" in caplog.text
    assert ("the context: 1 lone surrogate replaced" in caplog.text) == (way == "graph")


def test_what_was_replaced_in_a_question_is_told_to_the_model_and_in_the_trajectory() -> None:
    output = create_rlm(script("FINAL(1)")).invoke(f"what is {HALF}?")
    question, note = output["trajectory"][:2]
    assert question["query"] == "what is a\ufffdb?"
    assert (note["type"], note["to"]) == ("note", "model")
    assert "U+FFFD stands for 1 character" in note["text"]


def test_an_answer_for_a_parent_graph_is_replaced_only_there(tmp_path: Path) -> None:
    class Asking(TypedDict, total=False):
        query: str
        answer: Any

    rlm = create_rlm(script(f"FINAL({NUL!r})"))
    for node in (rlm.graph, rlm.as_node()):
        parent = StateGraph(Asking).add_node("ask", node).add_edge(START, "ask").compile()
        assert parent.invoke({"query": "q"})["answer"] == "a\ufffdb"
        assert asyncio.run(parent.ainvoke({"query": "q"}))["answer"] == "a\ufffdb"
    assert rlm.graph.invoke({"query": "q"})["answer"] == NUL
    assert rlm.invoke("q")["answer"] == NUL


@pytest.mark.parametrize("name", ["thread_id", "checkpoint_ns", "checkpoint_id"])
@pytest.mark.parametrize("text", [HALF, NUL])
def test_a_name_that_a_database_would_change_is_refused(name: str, text: str, tmp_path: Path) -> None:
    saver = SqliteSaver(sqlite3.connect(tmp_path / "threads", check_same_thread=False))
    rlm = create_rlm(script("FINAL(1)"), checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "t", name: text}}
    for one in (rlm, rlm.graph):
        with pytest.raises(InputError, match=f"the `{name}` .* contains NUL or a lone surrogate"):
            one.invoke({"query": "q"}, config)
    saver.conn.close()
