"""The machine as a Runnable: it behaves in LangChain like LangChain's own."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from typing_extensions import is_typeddict

import rlm_langchain as public
from rlm_langchain import Budget, ConfigurationError, create_rlm
from rlm_langchain.testing.models import FunctionModel, script

ANSWER = RunnableLambda(lambda output: output["answer"])


def test_thirty_iterations_work_inside_a_chain_that_hands_down_25_steps():
    rlm = create_rlm(script(*(f"print({n})" for n in range(30)), "FINAL('done')"), budget=Budget(iterations=40))
    assert (RunnableLambda(lambda q: {"query": q}) | rlm | ANSWER).invoke("q") == "done"


async def test_the_same_when_awaited():
    rlm = create_rlm(script(*(f"print({n})" for n in range(30)), "FINAL('done')"), budget=Budget(iterations=40))
    assert await (RunnableLambda(lambda q: {"query": q}) | rlm | ANSWER).ainvoke("q") == "done"


def test_a_chain_that_streams_hands_the_next_step_the_output():
    chain = RunnableLambda(lambda q: q) | create_rlm(script("FINAL(7)")) | ANSWER
    assert [*chain.stream("q")] == [7]


async def test_a_chain_that_streams_asynchronously_does_too():
    chain = RunnableLambda(lambda q: q) | create_rlm(script("FINAL(7)")) | ANSWER
    assert [part async for part in chain.astream("q")] == [7]


def test_a_batch_gives_answers_in_order():
    rlm = create_rlm(script("FINAL(context)"))
    outputs = rlm.batch([{"query": "q", "context": str(i)} for i in range(8)])
    assert [output["answer"] for output in outputs] == [str(i) for i in range(8)]


async def test_an_async_batch_gives_answers_in_order():
    rlm = create_rlm(script("FINAL(context)"))
    outputs = await rlm.abatch([{"query": "q", "context": str(i)} for i in range(8)])
    assert [output["answer"] for output in outputs] == [str(i) for i in range(8)]


def test_records_stream_as_custom_events_with_those_of_child_runs():
    model = script("FINAL(rlm_query('KID', 'x'))", children={"KID": ["FINAL(llm_query('y'))"]})
    rlm = create_rlm(model, budget=Budget(depth=2))
    events = [*rlm.stream("q", stream_mode="custom", subgraphs=True)]
    paths = {record["path"] for _, record in events}
    assert paths == {"", "0"}
    assert events[-1][1]["type"] == "answer"


def test_a_copy_with_other_options_has_a_graph_of_its_own():
    rlm = create_rlm(script("FINAL(1)"))
    assert rlm.invoke("q")["answer"] == 1
    assert rlm.model_copy(update={"root_model": script("FINAL(2)")}).invoke("q")["answer"] == 2
    assert rlm.invoke("q")["answer"] == 1


def test_options_survive_a_pickle(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    rlm = create_rlm("openai:any", budget=Budget(calls=7))
    assert rlm.graph
    again = pickle.loads(pickle.dumps(rlm))
    assert again.budget == Budget(calls=7)
    assert again.graph


def test_retries_fallbacks_and_bindings_wrap_it():
    broken = create_rlm(FunctionModel(function=lambda messages: 1 / 0))
    good = create_rlm(script("FINAL('good')"))
    assert good.with_retry().invoke("q")["answer"] == "good"
    assert good.with_config(tags=["t"]).invoke("q")["answer"] == "good"
    assert good.bind(stream_mode="values").invoke("q")["answer"] == "good"
    assert broken.with_fallbacks([good]).invoke("q")["answer"] == "good"


def test_the_graph_can_be_drawn():
    drawn = create_rlm(script("FINAL(1)")).graph.get_graph().draw_mermaid()
    for name in ("prepare", "generate", "execute", "approve", "subcall", "finalise"):
        assert name in drawn


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_it_is_a_tool_with_a_question_and_a_context():
    tool = create_rlm(script("FINAL(len(context))")).as_tool(name="ask", description="Asks.")
    assert set(tool.args) == {"query", "context"}
    assert tool.invoke({"query": "q", "context": "abc"})["answer"] == 3


def test_its_schemas_name_what_goes_in_and_comes_out():
    rlm = create_rlm(script("FINAL(1)"))
    assert set(rlm.get_input_jsonschema()["properties"]) == {"query", "context"}
    assert {"answer", "status", "stop_reason", "usage", "trajectory"} <= set(
        rlm.graph.get_output_jsonschema()["properties"]
    )
    assert issubclass(rlm.get_input_schema(), BaseModel)


@pytest.mark.parametrize("mode", ["values", "updates", "messages", "custom"])
def test_every_mode_of_the_graph_streams(mode):
    assert [*create_rlm(script("FINAL(1)")).stream("q", stream_mode=mode)]


async def test_events_of_version_2_name_the_runs():
    rlm = create_rlm(script("FINAL(llm_query('x'))"))
    names = [event["name"] async for event in rlm.astream_events("q", version="v2")]
    assert {"generate", "execute", "subcall", "finalise"} <= set(names)


@pytest.mark.parametrize("config", [None, {"configurable": {"thread_id": None}}], ids=["no config", "no name"])
async def test_a_checkpointer_without_a_thread_is_told_what_to_do(config):
    rlm = create_rlm(script("FINAL(1)"), checkpointer=InMemorySaver())
    told = "config={'configurable': {'thread_id': ...}}"
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        rlm.invoke("q", config)
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        await rlm.ainvoke("q", config)
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        [*rlm.stream("q", config, stream_mode="custom")]
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        [part async for part in rlm.astream("q", config, stream_mode="custom")]


def test_inside_a_graph_the_thread_is_that_ones_even_if_it_has_none():
    rlm = create_rlm(script("FINAL(1)"), checkpointer=InMemorySaver())
    graph = StateGraph(dict).add_node("n", lambda _: {"answer": rlm.invoke("q")["answer"]}).add_edge(START, "n")
    assert graph.compile().invoke({"x": 1}) == {"answer": 1}


def public_objects(home: Path) -> dict[str, Any]:
    """One of each public class and function that makes something, as large as they come."""
    long = "heron " * 20_000
    model = script(f"FINAL({long!r})")
    strategy = public.Strategy("s", "a strategy", long, f"text = {long!r}")
    store = public.FAISSStore.from_texts([long] * 9, DeterministicFakeEmbedding(size=4), [{"text": long}] * 9)
    retriever = public.RLMRetriever(corpus=[Document(long)] * 9, embeddings=DeterministicFakeEmbedding(size=4))
    function = public.HostFunction("look", "text", long, lambda text: text)
    rlm = create_rlm(model, strategies=[strategy] * 9, functions=[function], retriever=retriever, sandbox="monty")
    (home / "skill").mkdir()
    (home / "skill" / "SKILL.md").write_text(f"---\nname: skill\ndescription: A skill.\n---\n{long}", "utf-8")
    saved = create_rlm(model, checkpointer=InMemorySaver(), sandbox="monty")
    rows = [{"id": str(number), "query": "q", "context": long} for number in range(9)]
    return {
        "Budget": public.Budget(),
        "ChatRLM": public.ChatRLM(rlm),
        "FAISSStore": store,
        "HostFunction": function,
        "Limits": public.Limits(),
        "Price": public.Price(1, 2),
        "BatchBudget": public.BatchBudget(),
        "RLMContextMiddleware": public.RLMContextMiddleware(rlm),
        "RLMRetriever": retriever,
        "RLMRunnable": rlm,
        "Strategy": strategy,
        "create_batch": public.create_batch(saved, rows, home / "results.jsonl", name="mine"),
        "create_hybrid_rlm": public.create_hybrid_rlm(store, model, strategies=[strategy]),
        "create_rlm": rlm.with_config(tags=["x"]),
        "create_rlm_graph": public.create_rlm_graph(model),
        "read_skill": public.read_skill(home / "skill"),
        "rlm_tool": public.rlm_tool(rlm, [long] * 9),
        "a retriever of the store": store.as_retriever(),
        "a retriever of files": public.RLMRetriever(corpus=home),
        "an RLM over a long text": public.RLMRetriever(corpus=long),
        "a node": rlm.as_node(),
    }


def test_what_is_public_has_a_short_repr(tmp_path):
    made = public_objects(tmp_path)
    others = {name for name in public.__all__ if name not in made}
    kinds = [getattr(public, name) for name in others]
    # Errors are sentences; the rest are types of dicts, and protocols.
    assert all(
        issubclass(kind, public.RLMError) or is_typeddict(kind) or getattr(kind, "_is_protocol", False)
        for kind in kinds
    )
    for name, one in made.items():
        told = repr(one)
        assert len(told) < 1_500, name
        assert "heron heron heron" not in told, name
