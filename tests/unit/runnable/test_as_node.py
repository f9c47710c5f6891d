"""An RLM inside a parent graph, and as a tool of an agent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from rlm_langchain import Budget, ConfigurationError, InputError, create_rlm, rlm_tool
from rlm_langchain.testing.models import FunctionModel, script


class Desk(TypedDict, total=False):
    question: str
    archive: Any
    finding: Any
    report: Any


def parent(*rlms: Any, saver: Any = None) -> Any:
    """A graph whose nodes are RLMs in a row."""
    graph = StateGraph(Desk)
    last = START
    for number, rlm in enumerate(rlms):
        graph.add_node(f"n{number}", rlm)
        graph.add_edge(last, f"n{number}")
        last = f"n{number}"
    graph.add_edge(last, END)
    return graph.compile(checkpointer=saver)


def as_node(rlm: Any, **keys: str) -> Any:
    return rlm.as_node(**{"query": "question", "context": "archive", "answer": "finding", **keys})


@pytest.fixture(params=["invoke", "ainvoke"])
def run(request):
    def go(graph: Any, given: Any, config: Any = None) -> Any:
        if request.param == "invoke":
            return graph.invoke(given, config)
        return asyncio.run(graph.ainvoke(given, config))

    return go


def test_a_node_reads_and_writes_the_keys_of_its_parent(run):
    rlm = create_rlm(script("FINAL([len(context), llm_query('x')])"))
    end = run(parent(as_node(rlm, output="report")), {"question": "How long?", "archive": "abc"})
    assert end["finding"] == [3, "<x>"]
    assert end["report"]["status"] == "complete"


@dataclass
class Sheet:
    question: str
    archive: Any = None
    finding: Any = None


@pytest.mark.parametrize("schema", [Desk, Sheet])
@pytest.mark.parametrize("option", ["query", "context", "answer", "output"])
def test_a_key_that_the_state_does_not_have_is_told_before_anything_is_paid(run, schema, option):
    asked: list[Any] = []
    rlm = create_rlm(FunctionModel(function=asked.append), sandbox="monty")
    graph = StateGraph(schema)
    graph.add_node("n", as_node(rlm, **{option: "qq"}))
    graph.add_edge(START, "n")
    with pytest.raises(
        ConfigurationError, match=rf"{option}='qq'\): .*; it has archive, finding, question"
    ) as raised:
        run(graph.compile(), {"question": "q", "archive": "a"})
    assert "branch" not in str(raised.value)
    assert not asked


def test_a_question_that_the_state_has_not_got_yet_is_told(run):
    with pytest.raises(InputError, match=r"query='question'.*holds nothing there"):
        run(parent(as_node(create_rlm(script("FINAL(1)"), sandbox="monty"))), {"archive": "a"})


class Chat(MessagesState, total=False):
    context: Any
    answer: Any


@pytest.mark.parametrize(("keys", "written"), [({}, "messages"), ({"answer": "answer"}, "answer")])
@pytest.mark.parametrize(("value", "said"), [("'a whale'", "a whale"), ("[1, 'é']", '[1, "é"]')])
def test_a_node_over_messages_answers_the_last_thing_that_a_person_said(run, keys, written, value, said):
    rlm = create_rlm(script("FINAL('other')", children={"What is it?": [f"FINAL({value})"]}), sandbox="monty")
    graph = StateGraph(Chat)
    graph.add_node("read", rlm.as_node(query="messages", **keys))
    graph.add_edge(START, "read")
    compiled = graph.compile()
    asked = [{"type": "text", "text": "What is it?"}]
    conversation = [("user", "Hello"), ("ai", "Hi"), ("user", asked), ("ai", "Hm")]
    end = run(compiled, {"messages": conversation, "context": "a long text"})
    if written == "answer":
        assert (end["answer"], len(end["messages"])) == (eval(value), 4)
    else:
        assert [(one.type, one.text) for one in end["messages"][4:]] == [("ai", said)]
    with pytest.raises(InputError, match="no message of a person"):
        run(compiled, {"messages": [("ai", "Hi")]})


def test_several_nodes_in_one_parent_do_not_meet(run):
    first, second = create_rlm(script("FINAL(context + '1')")), create_rlm(script("FINAL(context + '2')"))
    graph = parent(as_node(first, answer="archive"), as_node(second), saver=InMemorySaver())
    assert run(graph, {"question": "q", "archive": "a"}, {"configurable": {"thread_id": "t"}})["finding"] == "a12"


def test_langgraph_sees_the_subgraph_and_draws_it():
    graph = parent(as_node(create_rlm(script("FINAL(1)"))))
    assert [name for name, _ in graph.get_subgraphs()] == ["n0"]
    assert "subcall" in graph.get_graph(xray=True).draw_mermaid()


def test_records_stream_through_the_parent():
    graph = parent(as_node(create_rlm(script("FINAL(1)"))))
    kinds = [part["type"] for _, part in graph.stream({"question": "q"}, stream_mode="custom", subgraphs=True)]
    assert kinds[0] == "question"
    assert kinds[-1] == "answer"


def test_an_approval_goes_through_the_parent_and_nothing_is_paid_twice(run):
    asked: list[str] = []
    code = "a = llm_query('a')\nFINAL([a] + llm_query_batched(['b', 'c', 'd']))"
    model = script(code, leaf=lambda prompt: asked.append(prompt) or prompt.upper())
    graph = parent(as_node(create_rlm(model, budget=Budget(approve_above_calls=3))), saver=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    pause = run(graph, {"question": "q"}, config)["__interrupt__"][0].value
    assert pause["calls"] == 3
    assert run(graph, Command(resume=True), config)["finding"] == ["A", "B", "C", "D"]
    assert sorted(asked) == ["a", "b", "c", "d"]


def test_nothing_is_left_alive_in_the_parent(run):
    rlm = create_rlm(script("FINAL(1)"))
    node = as_node(rlm)
    run(parent(node), {"question": "q"})
    assert not rlm.built.components.trees._alive


class Suite:
    """What LangChain's suites for tools want to know."""

    @property
    def tool_constructor(self) -> Any:
        return rlm_tool(create_rlm(script("FINAL(len(context))")), "abc")

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "How long?"}


class TestToolUnit(Suite, ToolsUnitTests):
    """How it describes itself."""


class TestToolIntegration(Suite, ToolsIntegrationTests):
    """How it is called."""


def test_questions_of_an_agent_do_not_become_one_conversation():
    rlm = create_rlm(script("FINAL([len(context), llm_query('x')])"), checkpointer=InMemorySaver())
    tool, config = rlm_tool(rlm, "abc"), {"configurable": {"thread_id": "t"}}
    assert [tool.invoke({"query": q}, config) for q in ("first", "second")] == ["[3, '<x>']"] * 2
    assert not rlm.checkpointer.storage


async def test_a_tool_answers_over_its_corpus():
    tool = rlm_tool(create_rlm(script("FINAL(len(context))")), ["one", "two"], name="archive")
    assert "list of 2" in tool.description
    assert tool.invoke({"query": "q"}) == "2"
    message = await tool.ainvoke({"type": "tool_call", "id": "1", "name": "archive", "args": {"query": "q"}})
    assert message.content == "2"
    assert message.artifact["status"] == "complete"


def test_a_partial_answer_says_so():
    rlm = create_rlm(script("print(1)", "prose:about 3"), budget=Budget(iterations=1))
    assert rlm_tool(rlm, "x").invoke({"query": "q"}) == "about 3\n(a partial answer: iterations)"
