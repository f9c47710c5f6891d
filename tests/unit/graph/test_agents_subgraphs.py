"""`create_agent` of LangChain with an RLM as its model, and as a tool."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from rlm_langchain import ChatRLM, create_rlm, rlm_tool
from rlm_langchain.testing.models import FunctionModel, script

THREAD = {"configurable": {"thread_id": "t"}}


@tool
def population(city: str) -> int:
    """How many people live in a city."""
    return {"Ulm": 126_000, "Bonn": 332_000}[city]


class Total(BaseModel):
    """Inhabitants of all cities."""

    people: int


SUM = "sum(population(city) for city in ['Ulm', 'Bonn'])"


def model(*cells: str, **options: Any) -> ChatRLM:
    return ChatRLM(rlm=create_rlm(script(*cells), sandbox="monty"), **options)


def ask(agent: Any, given: Any = "How many people?", config: Any = None, *, how: str = "invoke") -> dict[str, Any]:
    asked = given if isinstance(given, Command) else {"messages": [("human", given)]}
    if how == "ainvoke":
        return asyncio.run(agent.ainvoke(asked, config))
    return agent.invoke(asked, config)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_an_agents_tools_are_called_by_code_and_their_results_enter_no_prompt(how):
    agent = create_agent(model(f"FINAL(f'{{{SUM}}} people')"), [population])
    messages = ask(agent, how=how)["messages"]
    assert [message.type for message in messages] == ["human", "ai"]
    assert messages[-1].content == "458000 people"


@pytest.mark.parametrize("wanted", [Total, ToolStrategy(Total)])
def test_an_agent_gives_a_typed_answer_out_of_what_its_tools_say(wanted):
    answer = f"{{'people': {SUM}}}"
    if isinstance(wanted, ToolStrategy):
        answer = f"{{'tool_calls': [{{'name': 'Total', 'args': {answer}}}]}}"
    agent = create_agent(model(f"FINAL({answer})"), [population], response_format=wanted)
    assert ask(agent)["structured_response"] == Total(people=458_000)


CALL = "{'tool_calls': [{'name': 'population', 'args': {'city': 'Ulm'}}]}"
LOOP = f"""
results = [m["content"] for m in context if m["role"] == "tool"] if isinstance(context, list) else []
FINAL(results[0] + ' people' if results else {CALL})
"""


def test_handed_back_calls_go_through_the_agents_own_loop():
    messages = ask(create_agent(model(LOOP, tools_in="reply"), [population]))["messages"]
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[-1].content == "126000 people"


def test_a_person_approves_calls_that_are_handed_back():
    approve = HumanInTheLoopMiddleware(interrupt_on={"population": True})
    agent = create_agent(
        model(LOOP, tools_in="reply"), [population], middleware=[approve], checkpointer=InMemorySaver()
    )
    [pause] = ask(agent, config=THREAD)["__interrupt__"]
    assert pause.value["action_requests"][0]["args"] == {"city": "Ulm"}
    end = ask(agent, Command(resume={"decisions": [{"type": "approve"}]}), THREAD)
    assert end["messages"][-1].content == "126000 people"


def test_an_agent_streams_the_answer_of_its_model_in_pieces():
    agent = create_agent(model("print(1)", "FINAL('word ' * 60)"), [population])
    parts = [
        chunk
        for chunk, metadata in agent.stream({"messages": [("human", "q")]}, stream_mode="messages")
        if metadata["langgraph_node"] == "model" and metadata.get("ls_provider") == "rlm"
    ]
    assert "".join(part.text for part in parts) == "word " * 60
    assert len([part for part in parts if part.text]) > 3
    assert any(part.additional_kwargs.get("reasoning_content") for part in parts)


def calls_twice(messages: list[Any]) -> AIMessage:
    """An agent's model that asks a tool two things at once, and repeats what it hears."""
    heard = [message.content for message in messages if isinstance(message, ToolMessage)]
    if heard:
        return AIMessage(" and ".join(map(str, heard)))
    asked = [
        {"name": "ask_corpus", "args": {"query": q}, "id": q, "type": "tool_call"} for q in ("first", "second")
    ]
    return AIMessage("", tool_calls=asked)


class Calling(FunctionModel):
    """A model that is told of its tools, and needs no telling."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_an_agent_asks_an_rlm_several_things_at_once(how):
    code = {"first": ["FINAL(len(context))"], "second": ["FINAL(llm_query(context[:3]))"]}
    corpus = rlm_tool(create_rlm(script("", children=code), sandbox="monty"), "abcdef")
    agent = create_agent(Calling(function=calls_twice), [corpus], checkpointer=InMemorySaver())
    assert ask(agent, config=THREAD, how=how)["messages"][-1].content == "6 and <abc>"
