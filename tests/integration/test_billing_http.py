"""Providers that say odd things of what was used, or use more than they may, at a server that counts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, ModelError, create_rlm
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.models.call import Completion, RetryPolicy, complete
from rlm_langchain.models.compatible_chat import CompatibleChat
from rlm_langchain.models.http.pool import keep_pool_open
from rlm_langchain.models.http.transport import async_client, sync_client
from rlm_langchain.models.model import FREE, Model, Price
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.run_scope import CompiledRLM
from tests.servers.openai import Reply
from tests.servers.scripted import serve
from tests.servers.server import Request, Server

PRICE = Price(10.0, 100.0, cached=1.0, written=12.5)
WIDE = "FINAL([str(one) for one in llm_query_batched([f'part {n}' for n in range(60)])].count('None'))"


def model(url: str, kind: type[ChatOpenAI] = ChatOpenAI, **options: Any) -> Model:
    chat = kind(
        model="m",
        base_url=url,
        api_key="k",
        max_retries=0,
        stream_usage=True,
        http_client=sync_client(),
        http_async_client=async_client(),
        **options,
    )
    return Model("m", chat, price=PRICE)


def says(code: str, leaf: Reply) -> Any:
    """A root that writes `code`, and answers when it has to; its replies tell the truth."""

    def rule(request: Request) -> Reply:
        if request.messages[0]["role"] != "system":
            return leaf
        last = "has to end now" in str(request.messages[-1]["content"])
        return Reply("That is all." if last else f"```repl\n{code}\n```")

    return rule


async def ask(url: str, kind: type[ChatOpenAI] = ChatOpenAI, **options: Any) -> Completion:
    async def sleep(_: float) -> None:
        pass

    async with keep_pool_open():
        return await complete(model(url, kind, **options), [HumanMessage("x" * 40)], retry=RetryPolicy(sleep=sleep))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(lambda _: "hello") as running:
        yield running


GOOD = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
ODD: list[Any] = [
    {**GOOD, "cost": float("nan")},
    {**GOOD, "cost": float("inf")},
    {**GOOD, "cost": -0.2},
    {**GOOD, "cost": "0.001"},
    {**GOOD, "cost": True},
    {**GOOD, "cost": [1]},
    {**GOOD, "cost": 1e300},
    {**GOOD, "cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": -5}},
    {**GOOD, "cost": 0.001, "is_byok": True, "cost_details": "none"},
    {**GOOD, "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": -1_000_000}},
    {**GOOD, "prompt_tokens_details": {"cached_tokens": -7}},
    {**GOOD, "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 40}},
    {**GOOD, "prompt_tokens_details": {"cached_tokens": "some"}},
    {**GOOD, "completion_tokens_details": {"reasoning_tokens": 99}},
    {**GOOD, "completion_tokens_details": {"reasoning_tokens": -99}},
    {**GOOD, "prompt_tokens": "fifty"},
    {**GOOD, "prompt_tokens": 50.5},
    {**GOOD, "prompt_tokens": True},
    {**GOOD, "prompt_tokens": [50]},
    {**GOOD, "completion_tokens": 2**70},
    {**GOOD, "completion_tokens": -1},
    {**GOOD, "completion_tokens": float("nan")},
    {**GOOD, "completion_tokens": 0},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    {"prompt_tokens": {"a": 1}, "completion_tokens": None},
    {"nothing": "known"},
]


pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
"""The SDK warns of odd figures in a stream when it passes them on."""


@pytest.mark.parametrize("usage", ODD, ids=str)
@pytest.mark.parametrize("streaming", [False, True])
async def test_what_cannot_be_is_estimated_and_marked_and_the_reply_is_taken(
    usage: dict[str, Any], streaming: bool, server: Server
) -> None:
    server.rule = lambda _: Reply("hello you", usage=usage)
    done = await ask(server.url, CompatibleChat, streaming=streaming)
    assert done.text == "hello you"
    assert done.usage.estimated
    assert done.usage.calls == 1
    assert done.usage.input >= 10
    assert done.usage.output >= 3
    least = (10 * PRICE.input + 3 * PRICE.output) / 1e6
    assert done.usage.cost is not None
    assert least <= done.usage.cost < 0.02


@pytest.mark.parametrize("streaming", [False, True])
async def test_control_what_can_be_is_believed(streaming: bool, server: Server) -> None:
    server.rule = lambda _: Reply("hello you", usage={**GOOD, "cost": 0.25})
    done = await ask(server.url, CompatibleChat, streaming=streaming)
    assert done.usage == (1, 50, 0, 10, 0.25, False)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("price", "cost", "estimated"),
    [(PRICE, (50 * 10.0 + 10 * 100.0) / 1e6, True), (FREE, 0.0, False), (None, 0.0, False)],
    ids=["priced", "free", "unknown"],
)
@pytest.mark.parametrize(
    "told",
    [{"cost": 0}, {"cost": 0.0, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}],
    ids=str,
)
async def test_a_cost_of_nothing_is_believed_only_of_what_has_no_price(
    told: dict[str, Any], price: Price | None, cost: float, estimated: bool, streaming: bool, server: Server
) -> None:
    server.rule = lambda _: Reply("hello you", usage={**GOOD, **told})
    asked = replace(model(server.url, CompatibleChat, streaming=streaming), price=price)
    async with keep_pool_open():
        done = await complete(asked, [HumanMessage("x" * 40)])
    assert done.usage == (1, 50, 0, 10, pytest.approx(cost), estimated)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_provider_that_reports_no_cost_turns_off_no_limit(sandbox: Any, server: Server) -> None:
    """Each sub-call costs two cents by its price, whatever the provider says: no more than 30 of 60 fit."""
    leaf = Reply("leaf", usage={"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100, "cost": 0})
    server.rule = says(WIDE, leaf)
    asked, before = model(server.url, CompatibleChat, max_tokens=200), server.calls
    output = create_rlm(asked, sandbox=sandbox, budget=Budget(usd=0.6)).invoke("q")
    assert output["cost_usd"] <= 0.6
    assert server.calls - before <= 32
    sub = output["usage"]["sub"]
    assert sub["cost"] == pytest.approx(0.02 * sub["calls"])
    assert sub["calls"] > 0


def chunks(*parts: dict[str, Any], done: bool = True) -> Reply:
    """A stream of these chunks, as it is on the wire."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    lines = [json.dumps({**head, **part}) for part in parts] + ["[DONE]"] * done
    body = "".join(f"data: {line}\n\n" for line in lines)
    return Reply(raw=body.encode(), headers={"Content-Type": "text/event-stream"})


def piece(text: str | None, usage: Any = None, finish: str | None = None) -> dict[str, Any]:
    delta = None if text is None else {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": usage}


def tokens(read: int, wrote: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


@pytest.mark.parametrize("kind", [ChatOpenAI, CompatibleChat])
@pytest.mark.parametrize(
    ("told", "read", "wrote"),
    [
        ([tokens(50, 50)] * 5, 50, 50),
        ([tokens(40, n) for n in (2, 4, 6, 8, 10)], 40, 10),
        ([None, None, None, None, tokens(40, 10)], 40, 10),
        ([tokens(40, 1), None, None, None, tokens(40, 10)], 40, 10),
        ([tokens(0, n) for n in (2, 4, 6, 8)] + [tokens(40, 10)], 40, 10),
        ([tokens(40, 2), tokens(0, 2), tokens(0, 2), tokens(0, 2), tokens(0, 2)], 40, 10),
    ],
    ids=["repeated", "growing", "at the end", "at both ends", "growing output", "differences"],
)
async def test_a_stream_that_tells_its_usage_several_times_is_booked_once(
    kind: type[ChatOpenAI], told: list[Any], read: int, wrote: int, server: Server
) -> None:
    server.rule = lambda _: chunks(*(piece("12345678", usage) for usage in told), piece("", finish="stop"))
    done = await ask(server.url, kind, streaming=True)
    assert done.text == "12345678" * 5
    assert done.usage[:4] == (1, read, 0, wrote)


async def test_costs_that_grow_in_a_stream_are_not_added_up(server: Server) -> None:
    told = [{**tokens(40, n), "cost": n / 1000} for n in (1, 2, 3)]
    server.rule = lambda _: chunks(*(piece("1234", usage) for usage in told))
    done = await ask(server.url, CompatibleChat, streaming=True)
    assert done.usage == (1, 40, 0, 3, 0.003, False)


@pytest.mark.parametrize("name", ["own cache", "global cache"])
@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_what_langchains_cache_has_costs_nothing_and_is_marked(name: str, sandbox: Any, server: Server) -> None:
    server.rule = says("FINAL(llm_query('a'))", Reply("leaf"))
    cached = model(server.url, cache=InMemoryCache() if name == "own cache" else None)
    set_llm_cache(InMemoryCache() if name == "global cache" else None)
    try:
        rlm = create_rlm(cached, sandbox=sandbox, budget=Budget(usd=1.0))
        first, calls = rlm.invoke("q"), server.calls
        second = rlm.invoke("q")
    finally:
        set_llm_cache(None)
    assert server.calls == calls
    assert first["answer"] == second["answer"] == "leaf"
    assert first["cost_usd"] > 0
    assert second["cost_usd"] == 0.0
    assert [second["usage"][who]["calls"] for who in ("root", "sub")] == [0, 0]
    marks = [record["from_cache"] for record in second["trajectory"] if "from_cache" in record]
    assert marks == [True, True]
    assert not any("from_cache" in record for record in first["trajectory"])


UNREADABLE = {
    "a usage in words": Reply("x", usage={"prompt_tokens": "many", "completion_tokens": 3}),
    "no choices": Reply(raw=b'{"object": "chat.completion", "choices": null}'),
    "a page": Reply(raw=b"<html>hello</html>", headers={"Content-Type": "text/html"}),
    "a list": Reply(raw=b"[1, 2]"),
}


@pytest.mark.parametrize("leaf", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_replies_that_cannot_be_read_count_as_calls_and_are_estimated(leaf: Reply, sandbox: Any) -> None:
    with serve(lambda _: "", rule=says(WIDE, leaf)) as server:
        output = create_rlm(model(server.url), sandbox=sandbox, budget=Budget(calls=30, usd=50.0)).invoke("q")
    assert server.calls <= 30
    assert output["usage"]["root"]["calls"] + output["usage"]["sub"]["calls"] == server.calls
    assert output["usage"]["sub"]["estimated"]
    assert not output["usage"]["root"]["estimated"]


@pytest.mark.parametrize("usage", ODD, ids=str)
def test_no_figure_voids_a_limit_in_dollars(usage: dict[str, Any], server: Server) -> None:
    """Sub-calls cost at least two cents by what we know of them: no more than 30 of 40 fit into 60 cents."""
    code = "FINAL(len(llm_query_batched([f'part {n}, ' + 'x' * 60 for n in range(40)])))"
    server.rule, before = says(code, Reply("hello you", usage=usage)), server.calls
    leaf = replace(model(server.url), name="leaf", price=Price(1_000.0, 1_000.0))
    rlm = create_rlm(
        model(server.url), recursive_model=leaf, sandbox="monty", budget=Budget(usd=0.6, output_tokens=100)
    )
    output = rlm.invoke("q")
    sent = [request for request in server.requests[before:] if request.messages[0]["role"] != "system"]
    assert 0 < len(sent) <= 30
    assert output["cost_usd"] <= 0.6
    assert output["usage"]["sub"]["calls"] == len(sent)
    assert output["usage"]["sub"]["estimated"]


def test_an_error_that_was_billed_is_on_the_account() -> None:
    body = {"error": {"message": "no", "code": "bad"}, "usage": {**GOOD, "cost": 0.02}}
    leaf = Reply(status=400, raw=json.dumps(body).encode())
    with serve(lambda _: "", rule=says(WIDE, leaf)) as server:
        budget = Budget(usd=1.0, output_tokens=100, concurrency=1)
        output = create_rlm(model(server.url), sandbox="monty", budget=budget).invoke("q")
    billed = sum(request.messages[0]["role"] != "system" for request in server.requests)
    assert 0 < billed < 60
    assert output["usage"]["sub"]["cost"] == pytest.approx(0.02 * billed)
    assert output["cost_usd"] <= 1.0


UPSTREAM = {"error": {"message": "the upstream failed", "code": 502}}


@pytest.mark.parametrize("kind", [ChatOpenAI, CompatibleChat])
@pytest.mark.parametrize("usage", [None, {**GOOD, "cost": 0.02}], ids=["no usage", "usage"])
@pytest.mark.parametrize("streaming", [False, True])
def test_an_error_in_the_body_of_a_good_reply_is_a_call_and_may_be_billed(
    kind: type[ChatOpenAI], usage: Any, streaming: bool
) -> None:
    """A provider that has begun to work cannot change the status any more; retries do not pass the limits."""
    told = {**UPSTREAM, **({"usage": usage} if usage else {})}
    leaf = chunks(piece("hel"), told) if streaming else Reply(raw=json.dumps(told).encode())

    async def sleep(_: float) -> None:
        pass

    with serve(lambda _: "", rule=says(WIDE, leaf)) as server:
        budget = Budget(calls=20, usd=50.0, output_tokens=100)
        leaves = model(server.url, kind, streaming=streaming)
        rlm = create_rlm(model(server.url), recursive_model=leaves, sandbox="monty", budget=budget)
        output = quick(rlm, RetryPolicy(sleep=sleep)).invoke("q")
    assert server.calls <= 20
    assert output["usage"]["root"]["calls"] + output["usage"]["sub"]["calls"] == server.calls
    assert output["usage"]["sub"]["estimated"]
    if usage and not streaming and kind is CompatibleChat:
        assert output["usage"]["sub"]["cost"] == pytest.approx(0.02 * output["usage"]["sub"]["calls"])


@pytest.mark.parametrize("leaf", [Reply(drop=True), Reply(raw=b'{"choices": [{"mess')], ids=["dropped", "cut off"])
def test_replies_that_do_not_come_may_be_billed_and_count_against_the_limit(leaf: Reply) -> None:
    async def sleep(_: float) -> None:
        pass

    with serve(lambda _: "", rule=says(WIDE, leaf)) as server:
        budget = Budget(calls=40, usd=50.0)
        rlm = create_rlm(model(server.url), sandbox="monty", budget=budget)
        output = quick(rlm, RetryPolicy(sleep=sleep)).invoke("q")
    assert server.calls <= 40
    assert output["status"] in ("partial", "complete")


def quick(rlm: Any, retry: RetryPolicy) -> Any:
    """The same RLM, whose waits between tries take no time."""
    components = replace(assemble(rlm), retry=retry)
    rlm._built = CompiledRLM(components, rlm_graph(components).compile(name="rlm", checkpointer=rlm.checkpointer))
    return rlm


CHATTY = Reply("word " * 400, usage={"prompt_tokens": 30, "completion_tokens": 3000, "total_tokens": 3030})
"""A reply that is thirty times as long as it may be."""
DEEP = "FINAL(len(rlm_query_batched([f'child {n}' for n in range(6)], ['piece'] * 6)))"


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("way", ["usd", "tokens"])
def test_a_provider_that_ignores_the_cap_is_not_asked_once_the_account_knows(
    depth: int, sandbox: Any, way: str
) -> None:
    def rule(request: Request) -> Reply:
        if request.messages[0]["role"] != "system":
            return CHATTY
        if "has to end now" in str(request.messages[-1]["content"]):
            return Reply("That is all.")
        child = "child" in str(request.messages[1]["content"])
        return Reply(f"```repl\n{DEEP if depth == 2 and not child else WIDE}\n```")

    limits: dict[str, Any] = {"usd": Budget(usd=2.0, output_tokens=100, concurrency=2, depth=depth)}
    limits["tokens"] = Budget(tokens=40_000, output_tokens=100, concurrency=2, depth=depth)
    with serve(lambda _: "", rule=rule) as server:
        output = create_rlm(model(server.url), sandbox=sandbox, budget=limits[way]).invoke(
            {"query": "q", "context": "text"}
        )
    chatty = sum(request.messages[0]["role"] != "system" for request in server.requests)
    assert chatty > 1, "the provider was asked, and overdid it"
    one = (30 * PRICE.input + 3000 * PRICE.output) / 1e6 if way == "usd" else 3030
    told = server.tokens
    bill = (
        (told["input"] * PRICE.input + told["output"] * PRICE.output) / 1e6
        if way == "usd"
        else told["input"] + told["output"]
    )
    limit = limits[way].usd if way == "usd" else limits[way].tokens
    assert bill <= limit + 2 * one
    assert output["stop_reason"] in ("answer", way)


def test_what_a_model_was_seen_to_use_is_reserved_for_its_next_calls() -> None:
    """One call at a time: after the first long reply, none is sent whose like would pass the limit."""
    code = "n = 0\nwhile True:\n    llm_query(f'part {n}')\n    n += 1"
    with serve(lambda _: "", rule=says(code, CHATTY)) as server:
        budget = Budget(usd=2.0, output_tokens=100)
        create_rlm(model(server.url), sandbox="monty", budget=budget).invoke("q")
    bill = (server.tokens["input"] * PRICE.input + server.tokens["output"] * PRICE.output) / 1e6
    assert 1.0 < bill <= 2.0


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.integers(0, 2000)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
counts = st.integers(0, 2000) | junk
usages = (
    st.none()
    | junk
    | st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": counts,
            "completion_tokens": counts,
            "total_tokens": counts,
            "cost": st.floats(0, 0.01) | junk,
            "is_byok": st.booleans() | junk,
            "cost_details": junk | st.fixed_dictionaries({"upstream_inference_cost": junk}),
            "prompt_tokens_details": junk
            | st.dictionaries(st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens"]), counts),
            "completion_tokens_details": junk | st.dictionaries(st.sampled_from(["reasoning_tokens", "x"]), counts),
        },
    )
)
finishes = st.sampled_from(["stop", "length", "content_filter", "tool_calls", "", "made up"]) | junk
texts = st.text(max_size=40)
wholes = st.builds(
    lambda text, usage, finish: {
        "id": "1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": usage,
    },
    texts | st.none(),
    usages,
    finishes,
)
odd_chunks = st.one_of(
    st.builds(piece, texts | st.none(), usages, finishes),
    st.builds(lambda usage: {"choices": [], "usage": usage}, usages),
    st.fixed_dictionaries({"choices": junk}),
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    replies=st.lists(wholes, min_size=1, max_size=3),
    streams=st.lists(
        st.tuples(st.lists(odd_chunks, max_size=4), st.booleans(), st.booleans()), min_size=1, max_size=3
    ),
    streaming=st.booleans(),
    kind=st.sampled_from([ChatOpenAI, CompatibleChat]),
)
def test_whatever_a_provider_says_the_limits_hold_and_the_thread_can_be_resumed(
    server: Server, replies: list[Any], streams: list[Any], streaming: bool, kind: Any
) -> None:
    """Replies of sub-calls are drawn; the root is sober. Each reply that was sent counts as one call."""

    def leaf(request: Request) -> Reply:
        if not request.body.get("stream"):
            return Reply(raw=json.dumps(replies[request.number % len(replies)]).encode())
        parts, done, broken = streams[request.number % len(streams)]
        made = chunks(*parts, done=done)
        return Reply(raw=(made.raw or b"") + b'data: {"choi\n\n' * broken, headers=made.headers)

    def rule(request: Request) -> Reply:
        sober = says("FINAL(len(llm_query_batched([f'part {n}' for n in range(12)])))", Reply(""))(request)
        return sober if request.messages[0]["role"] == "system" else leaf(request)

    async def sleep(_: float) -> None:
        pass

    server.rule, before = rule, server.calls
    rlm = create_rlm(
        model(server.url, kind, streaming=streaming),
        sandbox="monty",
        budget=Budget(calls=9, usd=5.0, output_tokens=200, concurrency=2),
        checkpointer=InMemorySaver(),
    )
    thread: Any = {"configurable": {"thread_id": "t"}}
    output: Any = None
    with contextlib.suppress(ModelError):
        output = quick(rlm, RetryPolicy(sleep=sleep)).invoke("q", thread)
    assert server.calls - before <= 9
    if output is not None:
        check(output)
    again = rlm.invoke(None, thread) if output is not None else output
    assert (again or {}).get("usage") == (output or {}).get("usage")


def check(output: Any) -> None:
    """The account is one that can be: and what JSON and every saver can hold."""
    json.dumps(output["usage"], allow_nan=False)
    for used in output["usage"].values():
        assert all(type(used[name]) is int and 0 <= used[name] < 2**63 for name in ("calls", "input", "output"))
        assert 0 <= used["cached"] <= used["input"]
        assert used["cost"] is None or used["cost"] >= 0
