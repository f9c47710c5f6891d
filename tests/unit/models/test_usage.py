"""What models of any class say of their usage, drawn at random: the account is one that can be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, ModelError, create_rlm
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.models.call import RetryPolicy
from rlm_langchain.models.messages import usage_of
from rlm_langchain.models.model import Model, Price
from rlm_langchain.models.usage import MAX_TOKENS, StreamedUsage
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.run_scope import CompiledRLM
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.types import Usage

PRICE = Price(1.0, 10.0, cached=0.1, written=2.0)
MODEL = Model("m", FunctionModel(function=lambda _: ""), price=PRICE)
ASKED = [HumanMessage("x" * 40)]
"""14 tokens, with the frame."""

junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
counts = st.integers(0, 5000) | junk
details = junk | st.dictionaries(
    st.sampled_from(["cache_read", "cache_creation", "ephemeral_5m_input_tokens", "priority_cache_read", "audio"]),
    counts,
)
metadata = junk | st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": counts,
        "output_tokens": counts,
        "total_tokens": counts,
        "input_token_details": details,
        "output_token_details": junk | st.dictionaries(st.sampled_from(["reasoning", "audio"]), counts),
    },
)
bills = junk | st.fixed_dictionaries(
    {},
    optional={
        "cost": junk | st.floats(0, 1),
        "is_byok": junk,
        "cost_details": junk | st.fixed_dictionaries({"upstream_inference_cost": junk}),
    },
)
told = st.fixed_dictionaries(
    {},
    optional={
        "token_usage": bills,
        "token_usages": junk | st.lists(bills, max_size=3),
        "cost": junk,
        "finish_reason": junk,
        "status": junk,
        "stop_reason": junk,
    },
)


def reply(text: str, usage: Any, response: dict[str, Any]) -> AIMessage:
    """A reply as a class that checks nothing makes it."""
    message = AIMessage(text, response_metadata=response)
    message.__dict__["usage_metadata"] = usage
    return message


def is_sound(used: Usage) -> bool:
    json.dumps(used.record(), allow_nan=False)
    in_range = all(type(n) is int and 0 <= n <= 4 * MAX_TOKENS for n in used[:4])
    return in_range and used.cached <= used.input and (used.cost is None or used.cost >= 0)


@given(metadata, told, st.text(max_size=60), st.lists(st.tuples(metadata, st.integers(0, 50)), max_size=4))
@settings(max_examples=400, derandomize=True, deadline=None)
def test_whatever_is_told_the_usage_is_sound_and_what_cannot_be_is_marked(
    usage: Any, response: dict[str, Any], text: str, streamed: list[tuple[Any, int]]
) -> None:
    chunks = [StreamedUsage(*one) for one in streamed]
    used = usage_of(MODEL, ASKED, reply(text, usage, response), text, chunks)
    assert is_sound(used)
    assert used.calls == 1
    assert used.estimated or (used.input > 0 and (used.output > 0 or not text))
    assert used.cost is not None


@pytest.mark.parametrize(
    ("details", "cost"),
    [
        ({"cache_read": 60, "cache_creation": 20}, (20 + 6 + 40 + 200) / 1e6),
        ({"cache_read": 60, "cache_creation": 60}, (40 + 120 + 200) / 1e6),
        ({"cache_creation": -1_000_000}, (100 + 200) / 1e6),
        ({"cache_read": -1_000_000}, (100 + 200) / 1e6),
        ({"cache_read": 2**70}, (100 + 200) / 1e6),
    ],
)
def test_a_cache_that_cannot_be_lowers_no_price(details: dict[str, int], cost: float) -> None:
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "input_token_details": details}
    assert usage_of(MODEL, ASKED, reply("x", usage, {}), "x").cost == pytest.approx(cost)


@pytest.mark.parametrize(
    ("usage", "output"),
    [
        ({"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}, 5),
        ({"input_tokens": 20, "output_tokens": 5, "total_tokens": 90}, 70),
        ({"input_tokens": 20, "output_tokens": 5, "total_tokens": 3}, 5),
        ({"input_tokens": 20, "output_tokens": 5, "output_token_details": {"reasoning": 50}}, 50),
    ],
    ids=["told", "thoughts in the total", "a total too small", "thoughts beyond the output"],
)
def test_thoughts_are_paid_for(usage: dict[str, Any], output: int) -> None:
    used = usage_of(MODEL, ASKED, reply("x", usage, {}), "x")
    assert (used.output, used.estimated) == (output, output > 5)


@pytest.mark.parametrize(("told", "estimated"), [(1, True), (400, False)])
def test_next_to_nothing_for_a_long_text_is_not_believed(told: int, estimated: bool) -> None:
    text = "word " * 400
    usage = {"input_tokens": 20, "output_tokens": told, "total_tokens": 20 + told}
    used = usage_of(MODEL, ASKED, reply(text, usage, {}), text)
    assert (used.output, used.estimated) == (500 if estimated else told, estimated)


class Several(FunctionModel):
    """Says three things at once, and tells of no usage."""

    n: int = 3

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        text = str(AIMessage(self.function(messages)).text)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text)) for _ in range(self.n)])


def test_all_of_several_replies_are_paid_for_and_reserved() -> None:
    model = Model("m", Several(function=lambda _: "```repl\nFINAL(1)\n```"), price=PRICE)
    output = create_rlm(model, sandbox="monty", budget=Budget(usd=1.0)).invoke("q")
    one = -(-len("```repl\nFINAL(1)\n```") // 4)
    assert 3 * one - 3 <= output["usage"]["root"]["output"] <= 3 * one
    few = Budget(tokens=4_000)  # the last call reserves 1,024 tokens for each reply
    assert create_rlm(model, sandbox="monty", budget=few).invoke("q")["stop_reason"] == "tokens"
    single = Model("m", FunctionModel(function=lambda _: "```repl\nFINAL(1)\n```"), price=PRICE)
    assert create_rlm(single, sandbox="monty", budget=few).invoke("q")["stop_reason"] == "answer"


@given(metadata, told)
@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_thread_whose_model_says_anything_can_be_gone_on_with(usage: Any, response: dict[str, Any]) -> None:
    def play(messages: list[BaseMessage]) -> AIMessage:
        text = "a leaf" if messages[0].type != "system" else "```repl\nFINAL(llm_query('a'))\n```"
        return reply(text, usage, response)

    rlm = create_rlm(
        Model("m", FunctionModel(function=play), price=PRICE),
        sandbox="monty",
        budget=Budget(usd=5.0, calls=20),
        checkpointer=InMemorySaver(),
    )
    thread: Any = {"configurable": {"thread_id": "t"}}
    output = rlm.invoke("q", thread)
    used = [Usage(**output["usage"][who]) for who in ("root", "sub")]
    assert all(is_sound(one) for one in used)
    assert sum(one.calls for one in used) >= 1
    assert rlm.invoke(None, thread)["usage"] == output["usage"]


@pytest.mark.parametrize(("error", "booked"), [(ConnectionResetError(), 4 * 3), (KeyError("choices"), 4)])
def test_what_failed_requests_may_have_cost_counts_after_a_resume_too(error: Exception, booked: int) -> None:
    """Four sub-calls fail, and the provider is gone; then another tree goes on, as in another process."""
    gone = [True]

    def play(messages: list[BaseMessage]) -> str:
        if messages[0].type != "system":
            raise error
        if sum(message.type == "ai" for message in messages) == 0:
            return "```repl\nx = llm_query_batched(['a', 'b', 'c', 'd'])\n```"
        if gone[0]:
            raise StatusError
        return "```repl\nFINAL(budget()['calls'])\n```"

    def made() -> Any:
        rlm = create_rlm(FunctionModel(function=play), sandbox="monty", budget=Budget(calls=90), checkpointer=saver)
        components = replace(assemble(rlm), retry=RetryPolicy(attempts=3, sleep=no_time))
        rlm._built = CompiledRLM(components, rlm_graph(components).compile(name="rlm", checkpointer=saver))
        return rlm

    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    with pytest.raises(ModelError):
        made().invoke("q", thread)
    gone[0] = False
    output = made().invoke(None, thread)
    assert output["answer"] == 90 - 2 - booked
    assert output["usage"]["sub"]["calls"] == booked
    assert output["usage"]["sub"]["estimated"]


class StatusError(Exception):
    """What a provider says that rejects a request."""

    status_code = 400


async def no_time(_: float) -> None:
    """Do not wait."""
