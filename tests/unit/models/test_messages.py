"""What replies hold, in the shapes that providers give them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, InvalidToolCall, ToolCall
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from rlm_langchain.models.messages import (
    count_tokens,
    finish_of,
    text_of,
    tokens_in,
    usage_of,
)
from rlm_langchain.models.model import Model, Price, PriceListEntry
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.types import Usage

MODEL = Model("m", FunctionModel(function=lambda _: ""), price=Price(1.0, 10.0, cached=0.1, written=2.0))
ASKED = [HumanMessage("x" * 40)]


def usage(reply: AIMessage, model: Model = MODEL) -> Usage:
    return usage_of(model, ASKED, reply, text_of(reply))


def billed(read: int, wrote: int, **details: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=read,
        output_tokens=wrote,
        total_tokens=read + wrote,
        input_token_details=InputTokenDetails(**details),  # type: ignore[typeddict-item]
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ([], ""),
        (["a", "b"], "ab"),
        ([{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "yes"}], "yes"),
        (
            [{"type": "reasoning", "summary": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "ab",
        ),
        ([{"type": "redacted_thinking", "data": "..."}], ""),
        ([{"type": "refusal", "refusal": "I cannot"}], "I cannot"),
        ([{"type": "tool_use", "id": "1", "name": "f", "input": {}}], ""),
        ("<think>\nlong\n</think>\n\nyes", "yes"),
        ("\n<think></think>yes", "yes"),
        ("yes <think>no</think>", "yes <think>no</think>"),
        ("<think>never ends", "<think>never ends"),
        ("So it is yes.\n</think>\n\nyes", "yes"),
        ("close it with </think>, yes", "close it with </think>, yes"),
        ("`x\n</think>`\n yes", "`x\n</think>`\n yes"),
        ("```repl\nx = 'a\n</think>\n'\n```", "```repl\nx = 'a\n</think>\n'\n```"),
        ("[THINK]long[/THINK]yes", "yes"),
        ("◁think▷long◁/think▷yes", "yes"),
        (
            "<|channel|>analysis<|message|>So<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>",
            "yes",
        ),
        ("<|channel|>final <|constrain|>json<|message|>{}", "{}"),
    ],
)
def test_the_text_is_the_words_alone(content: Any, text: str) -> None:
    assert text_of(AIMessage(content)) == text


def test_a_refusal_beside_the_content_is_words_too() -> None:
    assert text_of(AIMessage("", additional_kwargs={"refusal": "I cannot"})) == "I cannot"
    assert text_of(AIMessage("yes", additional_kwargs={"refusal": None})) == "yes"


def called(name: str, **args: Any) -> ToolCall:
    return ToolCall(name=name, args=args, id="1")


@pytest.mark.parametrize("name", ["python", "repl", "functions.python", "code_interpreter", "run_python"])
def test_code_in_a_sole_call_of_an_interpreter_is_a_block(name: str) -> None:
    assert text_of(AIMessage("", tool_calls=[called(name, code="print(1)")])) == "```repl\nprint(1)\n```"


def test_code_that_is_no_json_is_a_block_too() -> None:
    bad = InvalidToolCall(name="python", args="print(1)", id="1", error=None)
    assert text_of(AIMessage("", invalid_tool_calls=[bad])) == "```repl\nprint(1)\n```"


@pytest.mark.parametrize(
    "calls",
    [
        [called("get_weather", code="print(1)")],
        [called("python", cell="print(1)")],
        [called("python", code=["print(1)"])],
        [called("python", code="1"), called("python", code="2")],
    ],
)
def test_other_tool_calls_are_no_words(calls: list[ToolCall]) -> None:
    assert text_of(AIMessage("", tool_calls=calls)) == ""


def test_words_come_before_a_tool_call() -> None:
    assert text_of(AIMessage("let me see", tool_calls=[called("python", code="1")])) == "let me see"


@pytest.mark.parametrize(
    ("told", "finish"),
    [
        ({"finish_reason": "length"}, "length"),
        ({"stop_reason": "max_tokens"}, "max_tokens"),
        ({"done_reason": "stop"}, "stop"),
        ({"status": "incomplete"}, "incomplete"),
        ({"finish_reason": None}, None),
        ({}, None),
    ],
)
def test_the_end_is_told_in_the_providers_words(told: dict[str, Any], finish: str | None) -> None:
    assert finish_of(AIMessage("x", response_metadata=told)) == finish


def test_usage_is_what_the_provider_says() -> None:
    reply = AIMessage("x", usage_metadata=billed(100, 20, cache_read=60))
    assert usage(reply) == Usage(1, 100, 60, 20, pytest.approx((40 + 6 + 200) / 1e6), False)


@pytest.mark.parametrize(
    "details", [{"cache_creation": 30}, {"ephemeral_5m_input_tokens": 30, "cache_creation": 0}]
)
def test_what_is_put_into_a_cache_is_priced_so(details: dict[str, int]) -> None:
    reply = AIMessage("x", usage_metadata=billed(100, 0, **details))
    assert usage(reply).cost == pytest.approx((70 + 60 + 10) / 1e6)


def test_cached_tokens_of_a_service_tier_count() -> None:
    assert usage(AIMessage("x", usage_metadata=billed(100, 1, priority_cache_read=7))).cached == 7


def test_more_cached_than_read_is_not_believed() -> None:
    assert usage(AIMessage("x", usage_metadata=billed(10, 1, cache_read=99))).cached == 10


def test_what_the_provider_does_not_tell_is_counted_and_marked() -> None:
    found = usage(AIMessage("y" * 9))
    assert found == Usage(1, 14, 0, 3, pytest.approx(44 / 1e6), True)


def test_zeros_for_words_are_not_believed() -> None:
    found = usage(AIMessage("y" * 9, usage_metadata=billed(0, 0)))
    assert (found.input, found.output, found.estimated) == (14, 3, True)


def test_an_empty_reply_may_have_used_no_output() -> None:
    found = usage(AIMessage("", usage_metadata=billed(5, 0)))
    assert (found.input, found.output, found.estimated) == (5, 0, False)


@pytest.mark.parametrize(
    "told",
    [{"token_usage": {"cost": 0.25}}, {"cost": 0.25}, {"cost": 0.25, "token_usage": None}],
)
def test_the_providers_own_cost_comes_first(told: dict[str, Any]) -> None:
    reply = AIMessage("x", usage_metadata=billed(100, 20), response_metadata=told)
    assert usage(reply).cost == 0.25


def test_a_cost_of_nothing_is_a_cost_where_no_price_is_known() -> None:
    nothing = AIMessage("x", response_metadata={"cost": 0})
    assert usage_of(Model("m", MODEL.chat), [], nothing, "x").cost == 0.0
    assert usage(nothing).cost > 0


def test_with_a_key_of_ones_own_the_upstream_bill_is_added() -> None:
    bill = {"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.95}}
    assert usage(AIMessage("x", response_metadata={"token_usage": bill})).cost == pytest.approx(1.0)
    bill["is_byok"] = False
    assert usage(AIMessage("x", response_metadata={"token_usage": bill})).cost == 0.05


@pytest.mark.parametrize("cost", [None, True, "0.25", -1, {}])
def test_a_cost_that_is_none_is_ignored(cost: object) -> None:
    unlisted = Model("m", MODEL.chat)
    reply = AIMessage("x", response_metadata={"token_usage": {"cost": cost}})
    assert usage(reply, unlisted).cost is None


def test_the_price_lists_are_the_last_resort() -> None:
    listed = Model("m", MODEL.chat, listing=PriceListEntry("openai", "gpt-4o"))
    reply = AIMessage("x", usage_metadata=billed(1_000_000, 100_000, cache_read=400_000))
    assert usage(reply, listed).cost == pytest.approx(0.6 * 2.5 + 0.4 * 1.25 + 0.1 * 10)


def test_tokens_are_four_bytes_rounded_up() -> None:
    assert [tokens_in(text) for text in ("", "a", "abcd", "abcde", "日本語", "\ud800")] == [0, 1, 1, 2, 3, 1]


def test_messages_count_with_their_frames_and_without_their_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
    assert count_tokens([HumanMessage("abcd"), HumanMessage([{"type": "text", "text": "abcd"}, picture])]) == 10
