"""Custom tools: called by code in the sandbox, run in the host, journaled and bounded."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolArg, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from rlm_langchain import (
    Budget,
    ConfigurationError,
    ModelError,
    create_rlm,
)
from rlm_langchain.testing.models import FunctionModel, script

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget():
    ran.clear()


def weather(town: str, days: int = 1) -> dict[str, Any]:
    """The weather in a town."""
    ran.append((town, days))
    return {"town": town, "days": [20 + n for n in range(days)]}


@tool
async def double(n: int) -> int:
    """Twice a number."""
    return n * 2


@tool
def fails(why: str) -> str:
    """Fails."""
    if why == "said":
        raise ToolException("the archive is closed today")
    raise RuntimeError("sk-secret")


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_tools_are_functions_of_the_repl_with_plain_results(sandbox):
    code = "w = weather('Paris', days=2)\nFINAL([w['days'], weather('Rome')['days'], double(21)])"
    rlm = create_rlm(script(code), tools=[weather, double], sandbox=sandbox)
    assert rlm.invoke("q")["answer"] == [[20, 21], [20], 42]
    assert asyncio.run(rlm.ainvoke("q"))["answer"] == [[20, 21], [20], 42]
    assert ran[:2] == [("Paris", 2), ("Rome", 1)]


def test_the_model_is_told_what_there_is():
    output = create_rlm(script("FINAL(1)"), tools=[weather]).invoke("q")
    assert "`weather(town: string, days: integer = 1)`: The weather in a town." in output["trajectory"][0]["text"]


def test_a_tool_that_fails_is_an_error_of_the_cell_without_its_secrets():
    code = """
errors = []
for call in (lambda: fails('said'), lambda: fails('x'), lambda: weather(days='many'), lambda: weather(1, 2, 3)):
    try:
        call()
    except Exception as e:
        errors.append(str(e))
FINAL(errors)
"""
    said, other, wrong, many = create_rlm(script(code), tools=[fails, weather]).invoke("q")["answer"]
    assert "the archive is closed today" in said
    assert "RuntimeError" in other
    assert "sk-secret" not in other
    assert "town" in wrong
    assert "2 arguments, not 3" in many


@tool
def letter(to: str, config: RunnableConfig, seal: Annotated[str, InjectedToolArg] = "red") -> str:
    """A letter."""
    return f"{config['configurable']['sender']} to {to}, {seal}"


def signed(to: str, config: RunnableConfig) -> str:
    """A letter."""
    return f"{config['configurable']['sender']} to {to}"


def test_what_the_host_fills_in_is_not_told_and_cannot_be_set_by_code():
    code = """
said = [letter('Ada'), signed('Bob')]
for forged in ({'seal': 'black'}, {'config': {'configurable': {'sender': 'Mallory'}}}):
    try:
        letter('Ada', **forged)
    except Exception as e:
        said.append(str(e))
FINAL(said)
"""
    rlm = create_rlm(script(code), tools=[letter, signed])
    output = rlm.invoke("q", {"configurable": {"sender": "Carl"}})
    first, second, *refused = output["answer"]
    assert (first, second) == ("Carl to Ada, red", "Carl to Bob")
    assert ["no argument 'seal'" in refused[0], "no argument 'config'" in refused[1]] == [True, True]
    assert "`letter(to: string)`" in output["trajectory"][0]["text"]


def test_calls_of_tools_are_in_the_journal_as_tasks_of_the_graph():
    rlm = create_rlm(script("FINAL([double(n) for n in range(3)])"), tools=[double])
    tasks = [chunk for chunk in rlm.stream("q", stream_mode="updates") if "subcall" in chunk]
    assert len(tasks) == 3
    [*calls] = [record for record in rlm.invoke("q")["trajectory"] if record["type"] == "call"]
    assert [(call["kind"], call["value"]) for call in calls] == [("tool", "0"), ("tool", "2"), ("tool", "4")]


def test_child_runs_have_tools_of_their_own():
    model = script("FINAL(rlm_query('KID'))", children={"KID": ["FINAL(str(double(2)) + str('weather' in dir()))"]})
    rlm = create_rlm(model, tools=[weather], sub_tools=[double], budget=Budget(depth=2))
    assert rlm.invoke("q")["answer"] == "4False"


def test_calls_of_tools_are_bounded():
    code = """
done = 0
try:
    for i in range(9):
        double(i)
        done += 1
except Exception as e:
    FINAL([done, str(e)])
"""
    answer = create_rlm(script(code), tools=[double], budget=Budget(tool_calls=3)).invoke("q")["answer"]
    assert answer[0] == 3
    assert "no tool calls" in answer[1]


def test_a_resumed_run_does_not_run_a_tool_again():
    turns = iter(
        ["```repl\nw = weather('Oslo')\nprint(w)\n```", RuntimeError("down"), "```repl\nFINAL(w['town'])\n```"]
    )

    def play(messages):
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    rlm = create_rlm(FunctionModel(function=play), tools=[weather], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        rlm.invoke("q", config)
    assert rlm.invoke(None, config)["answer"] == "Oslo"
    assert ran == [("Oslo", 1)]


def test_a_call_of_an_unknown_kind_is_answered_by_nobody():
    code = "try:\n    _host_call('shell', 'ls')\nexcept Exception as e:\n    FINAL(str(e))"
    assert "nothing here that answers" in create_rlm(script(code)).invoke("q")["answer"]


@pytest.mark.parametrize("name", ["llm_query", "context", "not-a-name"])
def test_a_name_that_the_repl_has_is_refused(name):
    renamed = tool(name)(weather)
    with pytest.raises(ConfigurationError, match=name):
        _ = create_rlm(script("FINAL(1)"), tools=[renamed]).graph


@pytest.mark.parametrize("wait", ["pause", "crash"])
def test_calls_of_tools_are_counted_over_all_resumes(wait):
    code = "print(weather('Rome'), weather('Paris'))\nprint(llm_query_batched(['a', 'b', 'c', 'd']))"
    more = "said = []\nfor n in range(3):\n    try:\n        said.append(weather(f'town {n}')['town'])\n"
    more += "    except LLMError as e:\n        said.append(str(e))\nFINAL(said)"
    budget = Budget(tool_calls=3, approve_above_calls=2 if wait == "pause" else None)
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    plays, heard = script(code, more).function, []

    def model(messages: list[Any]) -> Any:
        heard.append(messages)
        if wait == "crash" and len(heard) == 6:  # the second turn, after four sub-calls
            raise ValueError("gone")
        return plays(messages)

    rlm = create_rlm(
        FunctionModel(function=model), tools=[weather], budget=budget, checkpointer=saver, sandbox="monty"
    )
    if wait == "pause":
        rlm.invoke("q", thread)
        output = rlm.invoke(Command(resume=True), thread)
    else:
        with pytest.raises(ModelError):
            rlm.invoke("q", thread)
        output = rlm.invoke(None, thread)
    assert output["answer"][0] == "town 0"
    assert all("no tool calls are left" in said for said in output["answer"][1:])
    assert len(ran) == 3
