"""No run says `complete` when something that its answer was to be made of is missing; the output tells what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from rlm_langchain import (
    Budget,
    NoAnswer,
    RLMOutput,
    create_rlm,
)
from rlm_langchain.cli.rendering.records import narrate
from rlm_langchain.cli.rendering.summary import RunResult
from rlm_langchain.integrations.agents.tool import tool_output
from rlm_langchain.testing.models import FunctionModel, script

both_sandboxes = pytest.mark.parametrize("sandbox", ["cpython", "monty"])


def ended(output: RLMOutput) -> tuple[str, str, dict[Any, int]]:
    return output["status"], output["stop_reason"], output["degraded"]


def shown(output: RLMOutput) -> str:
    return "\n".join(record["text"] for record in output["trajectory"] if record["type"] == "output")


def said(text: str, finish: str) -> AIMessage:
    return AIMessage(content=text, response_metadata={"finish_reason": finish})


@both_sandboxes
def test_calls_that_a_limit_refuses_are_counted_and_the_model_is_told_in_the_cell(sandbox):
    cells = "found = llm_query_batched([str(n) for n in range(20)])", "FINAL('all of it')"
    output = create_rlm(script(*cells), sandbox=sandbox, budget=Budget(calls=5)).invoke("q")
    assert output["answer"] == "all of it"
    assert ended(output) == ("partial", "calls", {"refused": 17})
    assert "17 calls were refused by a limit" in shown(output)


@both_sandboxes
@pytest.mark.parametrize(
    ("reply", "flaw", "words"),
    [
        (said("half", "length"), "cut", "1 reply was cut off"),
        (said("<think>and then", "stop"), "cut", "1 reply was cut off"),
        (said("half", "content_filter"), "filtered", "1 reply was filtered"),
        (said("", "stop"), "empty", "1 reply was empty"),
    ],
)
def test_a_flawed_reply_is_counted_and_told_unless_it_is_asked_for_again(sandbox, reply, flaw, words):
    cells = "a = llm_query('a')", "FINAL(a + '.')"
    output = create_rlm(script(*cells, leaf=lambda _: reply), sandbox=sandbox).invoke("q")
    assert ended(output) == ("partial", "degraded", {flaw: 1})
    assert words in shown(output)
    replies = [reply, "whole"]
    again = script("a = llm_query('a')", "FINAL(llm_query('a'))", leaf=lambda _: replies.pop(0))
    output = create_rlm(again, sandbox=sandbox).invoke("q")
    assert (output["answer"], ended(output)) == ("whole", ("complete", "answer", {}))


@both_sandboxes
def test_a_call_that_failed_is_counted_though_code_has_caught_it(sandbox):
    def leaf(prompt: str) -> str:
        raise ValueError("down")

    cell = "try:\n    llm_query('a')\nexcept LLMError:\n    pass\nFINAL('fine')"
    output = create_rlm(script(cell, leaf=leaf), sandbox=sandbox).invoke("q")
    assert (output["answer"], ended(output)) == ("fine", ("partial", "degraded", {"failed": 1}))


def test_a_tool_that_says_no_has_answered():
    def find(name: str) -> str:
        """Find a thing."""
        raise KeyError(name)

    cell = "try:\n    find('a')\nexcept LLMError:\n    pass\nFINAL('fine')"
    output = create_rlm(script(cell), tools=[find]).invoke("q")
    assert ended(output) == ("complete", "answer", {})


@pytest.mark.parametrize("kid", [["print(1)", "print(2)", "prose:so far"], ["print(1)", "print(2)", "print(3)"]])
def test_a_child_run_that_ends_early_or_fails_makes_its_parent_partial_up_to_the_top(kid):
    children = {"LEAF": kid, "MIDDLE": ["FINAL(rlm_query_batched(['LEAF'])[0] or 'nothing')"]}
    model = script("FINAL(rlm_query('MIDDLE'))", children=children)
    output = create_rlm(model, budget=Budget(depth=3, iterations=2)).invoke("q")
    assert ended(output) == ("partial", "degraded", {"child_partial": 1})
    (call,) = [record for record in output["trajectory"] if record["type"] == "call"]
    what = "child_partial" if kid[-1].startswith("prose") else "child_failed"
    assert call["child"][-1]["degraded"] == {what: 1}


def test_calls_that_a_person_declines_are_counted():
    model = script("a = llm_query_batched(['a', 'b', 'c'])", "FINAL('without them')")
    rlm = create_rlm(model, budget=Budget(approve_above_calls=2), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    assert "__interrupt__" in rlm.invoke("q", config)
    output = rlm.invoke(Command(resume=False), config)
    assert ended(output) == ("partial", "degraded", {"declined": 3})
    assert "3 calls were declined by a person" in shown(output)
    assert ended(rlm.invoke("another", config))[2] == {}, "another question has an account of its own"


@both_sandboxes
@pytest.mark.parametrize("nothing", ["None", "''", "' \\n'"])
def test_an_answer_that_is_nothing_is_sent_back_once_and_then_there_is_none(sandbox, nothing):
    output = create_rlm(script(f"FINAL({nothing})"), sandbox=sandbox).invoke("q")
    assert output["answer"] is None
    assert (output["status"], output["stop_reason"], output["iterations"]) == ("failed", "no_answer", 2)
    assert "FINAL was refused" in shown(output)
    output = create_rlm(script(f"FINAL({nothing})", "FINAL('There is none.')"), sandbox=sandbox).invoke("q")
    assert (output["answer"], output["status"]) == ("There is none.", "complete")


@pytest.mark.parametrize("value", ["0", "False", "[]", "{}", "0.0"])
def test_an_answer_that_is_little_is_one(value):
    output = create_rlm(script(f"FINAL({value})")).invoke("q")
    assert (output["answer"], output["status"], output["iterations"]) == (eval(value), "complete", 1)


def test_nothing_is_an_answer_where_the_schema_says_so():
    schema = {"type": ["string", "null"]}
    output = create_rlm(script("FINAL(None)"), output_schema=schema).invoke("q")
    assert (output["answer"], output["status"], output["iterations"]) == (None, "complete", 1)


class Person(BaseModel):
    name: str


@pytest.mark.parametrize("options", [{}, {"output_schema": Person}, {"citations": True}])
def test_a_failed_run_has_no_answer_and_what_was_seen_is_elsewhere(options):
    model = script("print('seen')", "x = 1")
    output = create_rlm(model, budget=Budget(iterations=1), **options).invoke("q")
    assert (output["answer"], output["status"], output["found"]) == (None, "failed", "seen")


def test_a_run_without_an_answer_raises_for_those_who_ask():
    rlm = create_rlm(script("print('seen')", "x = 1"), budget=Budget(iterations=1), on_failure="raise")
    for ask in (rlm.invoke, lambda q: asyncio.run(rlm.ainvoke(q))):
        with pytest.raises(NoAnswer, match="iterations") as none:
            ask("q")
        assert none.value.output["found"] == "seen"
    assert rlm.model_copy(update={"root_model": script("FINAL(1)")}).invoke("q")["answer"] == 1


def test_last_words_that_are_cut_are_counted():
    model = script("print(1)", "prose:a b c d e f")
    model.max_tokens = 4
    model = model.model_copy(update={"function": lambda m, play=model.function: cut_when_last(play, m)})
    output = create_rlm(model, budget=Budget(iterations=1)).invoke("q")
    assert ended(output) == ("partial", "iterations", {"cut": 1})


def cut_when_last(play: Any, messages: Any) -> Any:
    reply = play(messages)
    return said("a b", "length") if reply.startswith("a b") else reply


def test_people_and_agents_are_told_as_well():
    cells = "found = llm_query_batched([str(n) for n in range(20)])", "FINAL('all of it')"
    output = create_rlm(script(*cells), budget=Budget(calls=5)).invoke("q")
    words = "17 calls were refused by a limit"
    assert any(words in line for line in RunResult(output, None, 1.0).lines())
    assert RunResult(output, None, 1.0).record()["degraded"] == {"refused": 17}
    assert words in narrate(output["trajectory"][-1])[0].text
    assert words in tool_output(output)[0]


@pytest.mark.parametrize(
    ("cells", "context", "ended_as"),
    [
        (("FINAL(len(context))",), "x" * 99_999, ("complete", "answer", {})),
        (("prose:four",), None, ("complete", "prose", {})),
        (("prose:four",), "x" * 99_999, ("partial", "calls", {})),
        (("x = llm_query_batched(['a'])\nFINAL(x)",), None, ("partial", "calls", {"refused": 1})),
    ],
)
def test_an_answer_within_the_limits_is_complete(cells: Any, context: Any, ended_as: Any) -> None:
    output = create_rlm(script(*cells), budget=Budget(calls=1)).invoke({"query": "2 + 2?", "context": context})
    assert ended(output) == ended_as


def test_the_last_of_several_turns_is_partial_in_words_and_complete_when_its_code_answers() -> None:
    for last, ended_as in (("FINAL(2)", ("complete", "answer", {})), ("prose:two", ("partial", "iterations", {}))):
        output = create_rlm(script("print(1)", last), budget=Budget(iterations=1)).invoke("q")
        assert ended(output) == ended_as


@pytest.mark.parametrize(("finish", "flaw"), [("length", "cut"), ("content_filter", "filtered")])
def test_a_cut_turn_whose_code_answers_is_counted(finish: str, flaw: str) -> None:
    model = FunctionModel(function=lambda _: said("```repl\nFINAL('so far')\n```", finish))
    output = create_rlm(model).invoke("q")
    assert (output["answer"], ended(output)) == ("so far", ("partial", "degraded", {flaw: 1}))
