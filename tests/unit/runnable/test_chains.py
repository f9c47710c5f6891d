"""The machine in LCEL: `|` on both sides, wrappers, streams, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator
from typing import Any

import cloudpickle
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from pydantic import BaseModel

from rlm_langchain import (
    Budget,
    ConfigurationError,
    ModelError,
    create_rlm,
)
from rlm_langchain.integrations.hybrid import HybridRLM
from rlm_langchain.testing.models import FunctionModel, script


def rlm(*cells: str, **options: Any) -> Any:
    return create_rlm(script(*cells), sandbox="monty", **options)


def told(questions: list[str], *cells: str) -> Any:
    """One that notes what it is asked."""
    played = script(*cells)

    def reply(messages: Any) -> Any:
        questions.append(str(messages[1].content))
        return played.function(messages)

    return create_rlm(FunctionModel(function=reply), sandbox="monty")


def answer(output: Any) -> Any:
    return output["answer"]


RETRIEVE = {"query": RunnablePassthrough(), "context": RunnableLambda(lambda query: ["one", "two", query])}


@pytest.fixture(params=["invoke", "ainvoke", "stream", "astream"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Four ways to have the one output of a chain."""

    async def ask(chain: Any, given: Any) -> Any:
        match request.param:
            case "invoke":
                return chain.invoke(given)
            case "ainvoke":
                return await chain.ainvoke(given)
            case "stream":
                parts = [*chain.stream(given)]
            case _:
                parts = [part async for part in chain.astream(given)]
        assert len(parts) == 1
        return parts[0]

    return ask


async def test_a_dict_of_steps_before_it_is_its_input_however_the_parts_arrive(ask):
    assert await ask(RETRIEVE | rlm("FINAL(context)") | answer, "three") == ["one", "two", "three"]


async def test_a_prompt_before_it_is_its_question(ask):
    asked: list[str] = []
    assert await ask(PromptTemplate.from_template("How long is {x}?") | told(asked, "FINAL(1)") | answer, "it") == 1
    assert "How long is it?" in asked[0]


async def test_a_chat_prompt_before_it_is_its_question(ask):
    asked: list[str] = []
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "How long is {x}?")])
    assert await ask(prompt | told(asked, "FINAL(1)") | answer, {"x": "it"}) == 1
    assert "Be brief.\n\nHow long is it?" in asked[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (HumanMessage("How long?"), "How long?"),
        ([SystemMessage("Be brief."), HumanMessage("How long?")], "Be brief.\n\nHow long?"),
        (
            [HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("How long?")],
            "Human: Hi\nAI: Hello\nHuman: How long?",
        ),
    ],
)
def test_messages_are_a_question_too(given, words):
    asked: list[str] = []
    assert told(asked, "FINAL(1)").invoke(given)["answer"] == 1
    assert words in asked[0]


async def test_a_model_before_it_streams_its_question(ask):
    asked: list[str] = []
    model = FunctionModel(function=lambda messages: f"What is {messages[-1].content}?")
    assert await ask(model | told(asked, "FINAL(1)") | answer, "this") == 1
    assert "What is this?" in asked[0]


async def test_a_step_before_it_that_streams_words_is_heard_out(ask):
    async def words(given: AsyncIterator[str]) -> AsyncIterator[str]:
        async for text in given:
            for word in text.split(" "):
                yield f"{word} "

    def same(given: Any) -> Any:
        for text in given:
            for word in text.split(" "):
                yield f"{word} "

    asked: list[str] = []
    assert await ask(RunnableGenerator(same, words) | told(asked, "FINAL(1)") | answer, "how long is it") == 1
    assert "how long is it" in asked[0]


async def test_a_parser_after_it_takes_the_answer(ask):
    assert await ask(rlm("FINAL('yes')").pick("answer") | StrOutputParser(), "q") == "yes"


async def test_two_of_them_follow_each_other_and_stand_side_by_side(ask):
    both = RunnableParallel(a=rlm("FINAL('a')") | answer, b=rlm("FINAL('b')") | answer)
    pair = RunnableLambda(lambda given: given) | both | (lambda given: {"query": "q", "context": [*given.values()]})
    assert sorted(await ask(pair | rlm("FINAL(context)") | answer, "q")) == ["a", "b"]


async def test_an_empty_stream_is_no_question():
    assert [*rlm("FINAL(1)").transform(iter([]))] == []
    assert [part async for part in rlm("FINAL(1)").atransform(_nothing())] == []


async def _nothing() -> AsyncIterator[Any]:
    return
    yield


async def test_events_of_a_chain_end_with_its_output():
    chain = RETRIEVE | rlm("FINAL(len(context))") | answer
    events = [event async for event in chain.astream_events("q", version="v2")]
    assert events[-1]["event"] == "on_chain_end"
    assert events[-1]["data"]["output"] == 3
    assert {"generate", "execute", "finalise"} <= {event["name"] for event in events}


def test_failures_of_a_batch_can_be_values():
    broken = create_rlm(FunctionModel(function=lambda messages: 1 / 0), sandbox="monty")
    assert all(isinstance(end, ModelError) for end in broken.batch(["a", "b"], return_exceptions=True))


async def test_failures_of_an_async_batch_can_be_values():
    broken = create_rlm(FunctionModel(function=lambda messages: 1 / 0), sandbox="monty")
    assert all(isinstance(end, ModelError) for end in await broken.abatch(["a", "b"], return_exceptions=True))


async def test_a_batch_tells_each_output_as_it_comes():
    given: list[Any] = [{"query": "q", "context": str(i)} for i in range(4)]
    one = rlm("FINAL(context)")
    assert sorted((i, output["answer"]) for i, output in one.batch_as_completed(given)) == [
        (i, str(i)) for i in range(4)
    ]
    found = [(i, output["answer"]) async for i, output in one.abatch_as_completed(given)]
    assert sorted(found) == [(i, str(i)) for i in range(4)]


async def test_one_at_a_time_still_has_room_for_child_runs():
    """LangChain's `max_concurrency` holds in each graph of a tree: a child run does not wait for its parent's."""
    model = script(
        "FINAL(rlm_query_batched(['KID a', 'KID b', 'KID c']))",
        children={"KID": ["FINAL(llm_query_batched(['x', 'y']))"]},
    )
    deep = create_rlm(model, sandbox="monty", budget=Budget(depth=2))
    want = [['["<x>", "<y>"]'] * 3] * 2
    assert [output["answer"] for output in deep.batch(["q", "r"], {"max_concurrency": 1})] == want
    assert [output["answer"] for output in await deep.abatch(["q", "r"], {"max_concurrency": 1})] == want


def test_a_batch_builds_one_machine():
    one = rlm("FINAL(context)")
    built = RunnableLambda(lambda _: id(one.built))
    assert len(set(built.batch([None] * 8, {"max_concurrency": 8}))) == 1


def test_a_retry_asks_again():
    tries: list[int] = []

    def reply(messages: Any) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise KeyError("once")
        return "```repl\nFINAL('after all')\n```"

    flaky = create_rlm(FunctionModel(function=reply), sandbox="monty")
    retrying = flaky.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    assert retrying.invoke("q")["answer"] == "after all"


async def test_a_fallback_takes_over(ask):
    broken = create_rlm(FunctionModel(function=lambda messages: 1 / 0), sandbox="monty")
    safe = broken.with_fallbacks([rlm("FINAL('safe')")])
    assert (await ask(RunnableLambda(lambda q: q) | safe | answer, "q")) == "safe"
    assert (await ask(safe, "q"))["answer"] == "safe"


async def test_whatever_hands_a_stream_on_gives_the_output_once(ask):
    """Branches, and functions that return a Runnable, call `stream` without a mode: it is the output."""
    one = rlm("FINAL(1)")
    branch = RunnableBranch((lambda q: q == "other", lambda q: {"answer": 2}), one)
    assert await ask(RunnableLambda(lambda q: q) | branch | answer, "q") == 1
    assert await ask(RunnableLambda(lambda q: one) | answer, "q") == 1
    assert await ask(RunnableLambda(lambda q: q) | one.with_retry() | answer, "q") == 1
    assert (await ask(one, "q"))["answer"] == 1


def test_options_can_be_left_to_the_call():
    first, second = script("FINAL(1)"), script("FINAL(2)")
    open_model = create_rlm(first, sandbox="monty").configurable_fields(
        root_model=ConfigurableField(id="model"), budget=ConfigurableField(id="budget")
    )
    assert open_model.invoke("q")["answer"] == 1
    assert open_model.with_config(configurable={"model": second}).invoke("q")["answer"] == 2
    spent = open_model.with_config(configurable={"budget": Budget(iterations=1), "model": script("print(1)")})
    assert spent.invoke("q")["stop_reason"] == "iterations"


def test_another_one_can_be_chosen_by_the_call():
    either = rlm("FINAL('a')").configurable_alternatives(
        ConfigurableField(id="which"), default_key="a", b=rlm("FINAL('b')")
    )
    assert either.invoke("q")["answer"] == "a"
    assert either.with_config(configurable={"which": "b"}).invoke("q")["answer"] == "b"


def test_options_of_langgraph_can_be_bound():
    records = [*rlm("FINAL(1)").bind(stream_mode="custom").stream("q")]
    assert (records[0]["type"], records[-1]["type"]) == ("question", "answer")
    assert rlm("FINAL(1)").invoke("q", stream_mode="updates")[0].keys() == {"prepare"}


class Length(BaseModel):
    """A typed answer."""

    characters: int


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_round_trip_keeps_the_options_and_builds_anew(dumps, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    one = create_rlm("openai:any", budget=Budget(calls=7), sandbox="monty", output_schema=Length, name="reader")
    assert one.graph
    again = pickle.loads(dumps(one))
    assert (again.budget, again.answer_schema, again.name, again._built) == (
        Budget(calls=7),
        Length,
        "reader",
        None,
    )
    assert again.graph.get_name() == "reader"


def test_a_chain_goes_to_another_process_by_cloudpickle():
    chain = RETRIEVE | rlm("FINAL(len(context))") | answer
    assert chain.invoke("q") == 3
    assert pickle.loads(cloudpickle.dumps(chain)).invoke("q") == 3


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda one: one.model_copy(),
        lambda one: one.model_copy(deep=True),
        lambda one: one.model_copy(update={"budget": Budget(calls=3)}),
    ],
    ids=["copy", "deepcopy", "model_copy", "deep model_copy", "updated"],
)
def test_a_copy_has_a_machine_of_its_own(copied):
    one = rlm("FINAL(1)")
    assert one.invoke("q")["answer"] == 1
    other = copied(one)
    assert other.invoke("q")["answer"] == 1
    assert other.built.components is not one.built.components
    assert other.built.components.budget == other.budget


def test_an_option_that_is_set_later_counts():
    one = rlm("FINAL(1)")
    assert one.invoke("q")["answer"] == 1
    one.root_model = script("FINAL(2)")
    assert one.invoke("q")["answer"] == 2


def test_an_option_that_is_misspelt_is_not_swallowed():
    with pytest.raises(ConfigurationError, match="no option 'budgt'; did you mean 'budget'"):
        create_rlm(script("FINAL(1)"), budgt=Budget())


def test_a_chain_is_drawn_with_the_machine_in_it():
    chain = RETRIEVE | rlm("FINAL(1)") | answer
    for drawn in (chain.get_graph().draw_mermaid(), rlm("FINAL(1)").get_graph().draw_mermaid()):
        for name in ("prepare", "generate", "execute", "subcall", "finalise"):
            assert name in drawn


def test_its_output_schema_is_that_of_a_run_with_the_answers_own_type():
    output = create_rlm(script("FINAL({'characters': 3})"), sandbox="monty", output_schema=Length)
    schema = output.get_output_jsonschema()
    assert schema["$defs"]["Length"]["properties"]["characters"]["type"] == "integer"
    assert {"answer", "status", "stop_reason", "usage", "cost_usd", "trajectory"} <= set(schema["properties"])
    assert output.get_output_schema().model_validate(output.invoke("q")).answer == Length(characters=3)
    assert rlm("FINAL(1)").get_output_schema().model_validate(rlm("FINAL(1)").invoke("q")).answer == 1


def test_its_input_schema_says_what_each_part_is_for():
    properties = rlm("FINAL(1)").get_input_jsonschema()["properties"]
    assert properties["query"]["type"] == "string"
    assert all(properties[name]["description"] for name in ("query", "context"))


class Fixed(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Any]:
        return []


@pytest.mark.parametrize(
    "step",
    [
        StrOutputParser(),
        JsonOutputParser(),
        StrOutputParser() | RunnableLambda(str),
        StrOutputParser().with_config(tags=["x"]),
        script("x"),
        script("x").with_retry(),
        script("x").bind(stop=["x"]),
        Fixed(),
        {"text": StrOutputParser(), "whole": RunnablePassthrough()},
        RunnableParallel(text=RunnablePassthrough(), also=JsonOutputParser()),
        RunnablePassthrough.assign(text=StrOutputParser()),
        StrOutputParser().with_fallbacks([StrOutputParser()]),
    ],
    ids=lambda step: type(step).__name__,
)
def test_a_step_that_takes_no_dict_is_refused_with_the_way_to_give_it_the_answer(step: Any) -> None:
    one = rlm("FINAL('a')")
    for chain in (lambda: one | step, lambda: one.pipe(step), lambda: HybridRLM(Fixed(), one) | step):
        with pytest.raises(ConfigurationError, match=r'rlm.pick\("answer"\) \|'):
            chain()
    assert (one.pick("answer") | StrOutputParser()).invoke("q") == "a"
    assert (one | ChatPromptTemplate.from_template("{answer}!")).invoke("q").to_string() == "Human: a!"
    assert one.pipe(answer, str.upper).invoke("q") == "A"
