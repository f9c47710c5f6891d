"""Streams of the machine: LangGraph's modes, and LangChain's events in both versions."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage

from rlm_langchain import Budget, ConfigurationError, create_rlm
from rlm_langchain.testing.models import FunctionModel, script

BETA = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
GIVEN: Any = {"query": "q", "context": "abc"}


def rlm(**options: Any) -> Any:
    model = script("FINAL([llm_query('x'), rlm_query('KID')])", children={"KID": ["FINAL(llm_query('y'))"]})
    return create_rlm(model, sandbox="monty", budget=Budget(depth=2), **options)


ANSWER = ["<x>", "<y>"]
NODES = ["prepare", "generate", "execute", "subcall", "execute", "subcall", "execute", "finalise"]


@pytest.fixture(params=["stream", "astream"])
def parts(request: pytest.FixtureRequest) -> Any:
    async def parts(one: Any, **options: Any) -> list[Any]:
        if request.param == "stream":
            return [*one.stream(GIVEN, **options)]
        return [part async for part in one.astream(GIVEN, **options)]

    return parts


async def test_values_end_with_the_output(parts):
    states = await parts(rlm(), stream_mode="values")
    assert (states[-1]["answer"], states[-1]["status"]) == (ANSWER, "complete")


async def test_updates_are_the_nodes_one_after_another(parts):
    assert [name for update in await parts(rlm(), stream_mode="updates") for name in update] == NODES


async def test_messages_are_what_the_models_say(parts):
    pieces = await parts(rlm(), stream_mode="messages", subgraphs=True)
    said = [(len(path), message.content, about["langgraph_node"]) for path, (message, about) in pieces]
    assert [node for _, _, node in said] == ["generate", "subcall", "generate", "subcall"]
    assert [words for _, words, _ in said][1::2] == ["<x>", "<y>"]
    assert [depth for depth, _, _ in said] == [0, 0, 1, 1]


async def test_custom_parts_are_our_records(parts):
    records = await parts(rlm(), stream_mode="custom")
    assert records[0]["type"] == "question"
    assert (records[-1]["type"], records[-1]["answer"]) == ("answer", ANSWER)
    assert {record["path"] for record in records} == {""}


async def test_child_runs_are_in_the_streams_of_subgraphs(parts):
    records = await parts(rlm(), stream_mode="custom", subgraphs=True)
    assert [record["path"] for _, record in records if record["type"] == "question"] == ["", "1"]
    assert {(len(path), record["path"]) for path, record in records} == {(0, ""), (1, "1")}


async def test_several_modes_come_with_their_names(parts):
    pieces = await parts(rlm(), stream_mode=["updates", "custom", "values", "messages"])
    assert {name for name, _ in pieces} == {"updates", "custom", "values", "messages"}
    tripled = await parts(rlm(), stream_mode=["updates", "custom"], subgraphs=True)
    assert {(len(path), name) for path, name, _ in tripled} == {
        (d, n) for d in (0, 1) for n in ("updates", "custom")
    }


async def test_typed_parts_of_langgraph_are_passed_on(parts):
    pieces = await parts(rlm(), stream_mode=["updates", "values"], version="v2")
    assert {part["type"] for part in pieces} == {"updates", "values"}


async def test_events_tell_of_every_model_with_the_runs_above_it():
    events = [event async for event in rlm().astream_events(GIVEN, version="v2")]
    calls = [event for event in events if event["event"] == "on_chat_model_end"]
    assert [len(event["parent_ids"]) for event in calls] == [2, 2, 4, 4]
    assert events[0]["run_id"] == calls[-1]["parent_ids"][0]
    assert events[-1]["data"]["output"]["answer"] == ANSWER


async def test_events_can_be_chosen():
    events = [event async for event in rlm().astream_events(GIVEN, version="v2", include_types=["chat_model"])]
    assert {event["event"] for event in events} == {"on_chat_model_start", "on_chat_model_end"}


@BETA
async def test_typed_events_have_the_values_and_end_with_the_output():
    run = await rlm().astream_events(GIVEN, version="v3")
    states = [state async for state in run.values]
    assert states[-1]["answer"] == ANSWER
    assert (await run.output())["status"] == "complete"


@BETA
async def test_typed_events_have_the_words_of_the_models():
    run = await rlm().astream_events(GIVEN, version="v3")
    said = [str((await message.output).text) async for message in run.messages]
    assert said == ["```repl\nFINAL([llm_query('x'), rlm_query('KID')])\n```", "<x>"]


@BETA
async def test_typed_events_have_child_runs_as_subgraphs():
    run = await rlm().astream_events(GIVEN, version="v3")
    names = [child.graph_name async for child in run.subgraphs]
    assert "rlm" in str(names) or names


@BETA
def test_typed_events_come_synchronously_too():
    run = rlm().stream_events(GIVEN, version="v3")
    assert [state.get("answer") for state in run.values][-1] == ANSWER
    assert run.output["status"] == "complete"


@BETA
async def test_a_typed_stream_that_is_left_lets_everything_go():
    one = rlm()
    async with await one.astream_events(GIVEN, version="v3") as run:
        async for _ in run.values:
            break
    assert not one.built.components.trees._alive
    with one.stream_events(GIVEN, version="v3") as run:
        next(iter(run.values))
    assert not one.built.components.trees._alive


@BETA
async def test_typed_events_go_through_a_binding():
    run = await rlm().with_config(tags=["t"]).astream_events(GIVEN, version="v3")
    assert (await run.output())["answer"] == ANSWER


async def test_an_unknown_version_is_langchains_error():
    with pytest.raises(NotImplementedError, match="v9"):
        _ = [event async for event in rlm().astream_events(GIVEN, version="v9")]
    with pytest.raises(NotImplementedError):
        rlm().stream_events(GIVEN, version="v2")


async def test_a_stream_that_cannot_begin_says_so(parts):
    waiting = create_rlm(script("FINAL(1)"), sandbox="monty", budget=Budget(approve_above_calls=1))
    with pytest.raises(ConfigurationError, match="checkpointer"):
        await parts(waiting, stream_mode="custom")


async def test_a_model_that_streams_is_heard_word_by_word(parts):
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel

    words = "```repl\nFINAL('said slowly')\n```"
    slow = create_rlm(GenericFakeChatModel(messages=iter([AIMessage(words)])), sandbox="monty")
    pieces = await parts(slow, stream_mode="messages")
    assert len(pieces) > 2
    assert "".join(str(message.content) for message, _ in pieces) == words


def test_a_reply_of_content_blocks_streams_as_they_are():
    blocks = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "```repl\nFINAL(1)\n```"}]
    model = FunctionModel(function=lambda _: AIMessage(blocks))  # type: ignore[arg-type]
    pieces = [*create_rlm(model, sandbox="monty").stream(GIVEN, stream_mode="messages")]
    assert pieces[0][0].content == blocks
