"""Cases that a careful reader found: each was wrong once."""

from __future__ import annotations

import asyncio

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    Budget,
    ConfigurationError,
    Price,
    create_rlm,
    create_rlm_graph,
)
from rlm_langchain.testing.models import FunctionModel, script


def test_waves_of_the_graph_alone_are_all_answered_though_each_has_a_loop_of_its_own():
    code = "FINAL([llm_query_batched([f'{w}{i}' for i in range(6)]) for w in 'ab'])"
    graph = create_rlm_graph(script(code), budget=Budget(concurrency=2)).compile()
    assert graph.invoke({"query": "q"})["answer"] == [[f"<{w}{i}>" for i in range(6)] for w in "ab"]


def test_a_thread_of_the_graph_alone_bills_each_question_for_itself():
    code = "FINAL(llm_query_batched([f'p{i}' for i in range(4)]))"
    graph = create_rlm_graph(script(code), budget=Budget(calls=8)).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    ends = [graph.invoke({"query": f"q{n}"}, config) for n in range(3)]
    assert [end["status"] for end in ends] == ["complete"] * 3


def test_half_a_character_from_a_model_does_not_spoil_a_checkpoint():
    failing = iter([True])

    def play(messages):
        if messages[0].type != "system":
            return "bad \ud800"
        if len(messages) > 2 and next(failing, False):
            raise ValueError("down")
        return "```repl\nx = llm_query('x')\nprint(x)\n```" if len(messages) == 2 else "```repl\nFINAL(x)\n```"

    rlm = create_rlm(FunctionModel(function=play), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        rlm.invoke("q", config)
    assert rlm.invoke(None, config)["answer"] == "bad \ufffd"


@pytest.mark.parametrize("call", ["_host_call('tool', '[' * 100000)", "_host_call('search', '[\"q\", Infinity]')"])
def test_a_call_that_is_none_is_an_error_of_the_cell(call):
    code = f"try:\n    {call}\nexcept Exception as e:\n    FINAL(type(e).__name__)"
    rlm = create_rlm(script(code), retriever="bm25")
    assert rlm.completion("q", "a text")["answer"] == "LLMError"


@pytest.mark.parametrize(
    "limits", [{"concurrency": 0}, {"concurrency": -1}, {"iterations": 0}, {"requests_per_minute": 0}, {"usd": -1}]
)
def test_a_limit_that_no_run_could_keep_is_refused(limits):
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Budget(**limits)


def test_a_model_that_takes_no_cap_cannot_have_its_tokens_limited():
    class Uncapped(FunctionModel):
        pass

    del Uncapped.model_fields["max_tokens"]
    model = Uncapped(function=lambda messages: "x")
    with pytest.raises(ConfigurationError, match="max_tokens"):
        _ = create_rlm(model, budget=Budget(tokens=1000)).graph


def test_a_person_is_not_asked_about_what_spends_no_call():
    def rate() -> int:
        """A number."""
        return 7

    rlm = create_rlm(
        script("FINAL(rate())"),
        tools=[rate],
        budget=Budget(approve_above_usd=0.0001),
        checkpointer=InMemorySaver(),
        prices={"function": Price(1.0, 1.0)},
    )
    assert asyncio.run(rlm.ainvoke("q", {"configurable": {"thread_id": "t"}}))["answer"] == 7
