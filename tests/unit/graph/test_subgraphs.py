"""An RLM inside other graphs, and inside other RLMs: one thread, one saver, pauses and time travel from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from rlm_langchain import Budget, create_rlm, rlm_tool
from rlm_langchain.testing.models import script

THREAD: Any = {"configurable": {"thread_id": "t"}}
PAUSE = "FINAL(llm_query_batched(['a', 'b', 'c']))"
WAYS: dict[str, Callable[[Any], Any]] = {
    "as_node": lambda rlm: rlm.as_node(),
    "graph": lambda rlm: rlm.graph,
    "itself": lambda rlm: rlm,
}
"""How an RLM becomes a node."""

asked: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    asked.clear()


class Desk(TypedDict, total=False):
    query: str
    context: Any
    answer: Any
    other: Any


def rlm(*cells: str, children: Any = None, **options: Any) -> Any:
    def leaf(prompt: str) -> str:
        asked.append(prompt)
        return prompt.upper()

    return create_rlm(script(*cells, children=children, leaf=leaf), sandbox="monty", **options)


def row(saver: Any = None, **nodes: Any) -> Any:
    """A graph of these nodes, one after another."""
    graph, last = StateGraph(Desk), START
    for name, node in nodes.items():
        graph.add_node(name, node)
        graph.add_edge(last, name)
        last = name
    graph.add_edge(last, END)
    return graph.compile(checkpointer=saver)


@pytest.fixture(params=["invoke", "ainvoke"])
def run(request: pytest.FixtureRequest) -> Any:
    def run(graph: Any, given: Any, config: Any = THREAD) -> Any:
        if request.param == "invoke":
            return graph.invoke(given, config)
        return asyncio.run(graph.ainvoke(given, config))

    return run


@pytest.fixture(params=list(WAYS))
def node(request: pytest.FixtureRequest) -> Any:
    return WAYS[request.param]


def test_time_travel_goes_back_before_a_node_and_takes_another_way(node, run):
    read = node(rlm("FINAL([llm_query('x'), len(context)])"))
    graph = row(
        InMemorySaver(), first=lambda desk: {"other": 1}, read=read, last=lambda desk: {"other": desk["other"] + 1}
    )
    assert run(graph, {"query": "q", "context": "abc"})["answer"] == ["X", 3]
    before = next(state for state in graph.get_state_history(THREAD) if state.next == ("read",))
    assert run(graph, None, before.config)["answer"] == ["X", 3]
    other = graph.update_state(before.config, {"context": "abcdef"})
    end = run(graph, None, other)
    assert (end["answer"], end["other"]) == (["X", 6], 2)
    assert asked == ["x"] * 3


def test_a_pause_goes_through_the_parent_and_nothing_is_paid_twice(node, run):
    code = "a = llm_query('first')\n" + PAUSE
    graph = row(InMemorySaver(), read=node(rlm(code, budget=Budget(approve_above_calls=2))))
    pause = run(graph, {"query": "q", "context": "abc"})["__interrupt__"][0].value
    assert (pause["ask"], pause["calls"]) == ("approve", 3)
    assert run(graph, Command(resume=True))["answer"] == ["A", "B", "C"]
    assert sorted(asked) == ["a", "b", "c", "first"]


@pytest.mark.parametrize("way", ["as_node", "graph"])
def test_the_state_of_a_paused_run_can_be_read_through_the_parent(way, run):
    graph = row(InMemorySaver(), read=WAYS[way](rlm(PAUSE, budget=Budget(approve_above_calls=2))))
    run(graph, {"query": "q", "context": "abc"})
    inner = graph.get_state(THREAD, subgraphs=True).tasks[0].state
    assert inner.values["query"] == "q"
    assert inner.next == ("approve",)


@pytest.mark.parametrize("way", ["as_node", "graph"])
def test_a_parent_sees_inside(way):
    graph = row(read=WAYS[way](rlm("FINAL(1)")))
    assert [name for name, _ in graph.get_subgraphs()] == ["read"]
    assert "subcall" in graph.get_graph(xray=True).draw_mermaid()


def test_nodes_side_by_side_do_not_meet(run):
    graph = StateGraph(Desk)
    graph.add_node("a", rlm("FINAL(context + llm_query('1'))").as_node(answer="answer"))
    graph.add_node("b", rlm("FINAL(context + llm_query('2'))").as_node(answer="other"))
    for name in ("a", "b"):
        graph.add_edge(START, name)
    end = run(graph.compile(checkpointer=InMemorySaver()), {"query": "q", "context": "x"})
    assert (end["answer"], end["other"]) == ("x1", "x2")


def test_two_nodes_that_pause_at_once_are_answered_each(run):
    graph = StateGraph(Desk)
    budget = Budget(approve_above_calls=2)
    graph.add_node("a", rlm(PAUSE, budget=budget).as_node(answer="answer"))
    graph.add_node("b", rlm(PAUSE.replace("'a'", "'z'"), budget=budget).as_node(answer="other"))
    for name in ("a", "b"):
        graph.add_edge(START, name)
    compiled = graph.compile(checkpointer=InMemorySaver())
    pauses = run(compiled, {"query": "q"})["__interrupt__"]
    end = run(compiled, Command(resume={pause.id: True for pause in pauses}))
    assert (end["answer"], end["other"]) == (["A", "B", "C"], ["Z", "B", "C"])


@pytest.mark.parametrize("mode", ["values", "updates", "custom", "messages"])
@pytest.mark.parametrize("way", ["as_node", "graph"])
def test_a_parent_streams_what_happens_inside_and_below(way, mode):
    read = WAYS[way](
        rlm("FINAL(rlm_query('KID'))", children={"KID": ["FINAL(llm_query('y'))"]}, budget=Budget(depth=2))
    )
    parts = [*row(read=read).stream({"query": "q"}, stream_mode=mode, subgraphs=True)]
    assert {1, 2} <= {len(path) for path, _ in parts}


async def test_a_parent_streams_asynchronously_too():
    stream = row(read=rlm("FINAL(1)").as_node()).astream(
        {"query": "q"}, stream_mode=["updates", "custom"], subgraphs=True
    )
    parts = [part async for part in stream]
    assert {"prepare", "generate", "execute", "finalise"} <= {
        name for path, mode, part in parts if path and mode == "updates" for name in part
    }
    assert [part["type"] for path, mode, part in parts if mode == "custom"][-1] == "answer"


def test_a_state_that_is_a_model_has_its_keys_read_too(run):
    from pydantic import BaseModel

    class Form(BaseModel):
        query: str = ""
        context: Any = None
        answer: Any = None

    graph = StateGraph(Form)
    graph.add_node("read", rlm("FINAL(len(context))").as_node())
    graph.add_edge(START, "read")
    assert run(graph.compile(), {"query": "q", "context": "abcd"}, None)["answer"] == 4


SAVERS: list[tuple[bool, bool | str]] = [
    (False, False),
    (True, False),
    (False, True),
    (True, True),
    (True, "the same"),
]


def inside(kind: str, inner: Any) -> Any:
    """An RLM as what code in another one's REPL can call: by `rlm_tool`, or in a function."""
    if kind == "tool":
        return rlm_tool(inner, "a corpus", name="ask")

    def ask(query: str) -> str:
        """Asks."""
        return str(inner.invoke(query)["answer"])

    return ask


@pytest.mark.parametrize("kind", ["tool", "function"])
@pytest.mark.parametrize("savers", SAVERS, ids=str)
def test_an_rlm_that_asks_another_one_shares_its_thread(savers, kind, run):
    outer_saver = InMemorySaver() if savers[0] else None
    own = InMemorySaver() if savers[1] is True else None
    inner = rlm("FINAL(llm_query('deep'))", checkpointer=outer_saver if savers[1] == "the same" else own)
    outer = rlm("FINAL(ask('q1') + ask('q2'))", checkpointer=outer_saver, tools=[inside(kind, inner)])
    assert run(outer, "q", THREAD if any(savers) else None)["answer"] == "DEEPDEEP"
    assert run(inner, "q", THREAD)["answer"] == "DEEP"


@pytest.mark.parametrize("kind", ["tool", "function"])
def test_a_saver_that_is_sync_only_serves_the_inner_one_too(kind, tmp_path: Path):
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        inner = rlm("FINAL(llm_query('deep'))")
        outer = rlm("FINAL(ask('q1'))", checkpointer=saver, tools=[inside(kind, inner)])
        assert outer.invoke("q", THREAD)["answer"] == "DEEP"


@pytest.mark.parametrize("kind", ["tool", "function"])
def test_a_pause_of_an_inner_run_pauses_the_outer_one_and_both_go_on(kind, run):
    inner = rlm(PAUSE, budget=Budget(approve_above_calls=2))
    outer = rlm(
        "a = llm_query('one')\nFINAL([a, ask('q1')])", checkpointer=InMemorySaver(), tools=[inside(kind, inner)]
    )
    pause = run(outer, "q")["__interrupt__"][0].value
    assert pause["calls"] == 3
    assert run(outer, Command(resume=True))["answer"] == ["ONE", "['A', 'B', 'C']"]
    assert sorted(asked) == ["a", "b", "c", "one"]


def test_what_a_paused_tool_was_called_with_is_kept_by_reference(run):
    """A tool may be given a long text; what waits in a checkpoint is where it is."""
    inner = rlm(PAUSE, budget=Budget(approve_above_calls=2))

    def ask(text: str) -> str:
        """Asks."""
        return f"{len(text)} {inner.invoke('q')['answer']}"

    saver = InMemorySaver()
    outer = rlm("FINAL(ask('long ' * 50000))", checkpointer=saver, tools=[ask])
    run(outer, "q")
    assert "long " * 1000 not in str([*saver.list(THREAD)])
    assert run(outer, Command(resume=True))["answer"] == "250000 ['A', 'B', 'C']"


def test_many_child_runs_use_tools_that_are_rlms_with_tools(run):
    """Functions in threads that wait for functions in threads: a pool of them would run out."""

    def shout(word: str) -> str:
        """Shouts."""
        return word.upper()

    inner = rlm("FINAL(shout('deep'))", tools=[shout])
    kids = [f"KID {number}" for number in range(12)]
    outer = rlm(
        f"FINAL(rlm_query_batched({kids}))",
        children={"KID": ["FINAL(ask('q'))"]},
        tools=[inside("function", inner)],
        budget=Budget(depth=2),
    )
    assert run(outer, "q", None)["answer"] == ["DEEP"] * 12


def test_three_rlms_deep_the_usage_of_each_is_its_own(run):
    third = rlm("FINAL(llm_query('3'))")
    second = rlm("FINAL(llm_query('2') + ask('q'))", tools=[inside("tool", third)])
    first = rlm("FINAL(llm_query('1') + ask('q'))", tools=[inside("tool", second)])
    output = run(first, "q", None)
    assert output["answer"] == "123"
    assert output["usage"]["sub"]["calls"] == 1


def test_nothing_is_left_alive_of_runs_inside_others(run):
    inner = rlm("FINAL(llm_query('deep'))")
    outer = rlm("FINAL(ask('q'))", tools=[inside("tool", inner)])
    run(outer, "q", None)
    assert not inner.built.components.trees._alive
    assert not outer.built.components.trees._alive
