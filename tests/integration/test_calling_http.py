"""Calls to a server that misbehaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from rlm_langchain.models.call import (
    CallFailed,
    Completion,
    RetryPolicy,
    complete,
)
from rlm_langchain.models.http.pool import keep_pool_open
from rlm_langchain.models.model import Model, Price
from tests.servers.endings import chat
from tests.servers.openai import (
    DROPPED,
    HANGING,
    INVALID_JSON,
    RATE_LIMITED,
    SERVER_ERROR,
    TOO_LONG,
    Reply,
    failure,
    tool_call,
)
from tests.servers.scripted import echo, first, serve

HI = [HumanMessage("hello")]
SECRET = "sk-live-secret"


@dataclass
class Clock:
    """Sleeps in no time; jitter is at its longest."""

    slept: list[float] = field(default_factory=list)

    @property
    def retry(self) -> RetryPolicy:
        return RetryPolicy(sleep=self.sleep, random=lambda _, longest: longest)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def model(url: str) -> Model:
    return Model("m", chat(url), price=Price(1.0, 10.0, cached=0.1))


async def ask(url: str, clock: Clock) -> Completion:
    async with keep_pool_open():
        return await complete(model(url), HI, retry=clock.retry)


async def ask_for(reply: Reply) -> Completion:
    with serve(lambda _: reply) as server:
        return await ask(server.url, Clock())


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (RATE_LIMITED, [2.5, 3.0]),
        (SERVER_ERROR, [0.5, 1.0]),
        (failure(503, retry_after="7"), [7.5, 8.0]),
        (failure(408), [0.5, 1.0]),
        (failure(409), [0.5, 1.0]),
        (DROPPED, [0.5, 1.0]),
        (INVALID_JSON, [0.5, 1.0]),
        (Reply(raw=b'{"error": {"code": 502, "message": "upstream"}}'), [0.5, 1.0]),
    ],
    ids=["429", "500", "503", "408", "409", "dropped", "invalid JSON", "error in a reply with status 200"],
)
async def test_what_may_pass_is_tried_again_here_and_nowhere_else(
    fault: Reply, waits: list[float], clock: Clock
) -> None:
    with serve(echo, rule=first(2, fault)) as server:
        done = await ask(server.url, clock)
    assert (done.text, done.retries, server.calls) == ("hello", 2, 3)
    assert clock.slept == waits


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (failure(400, f"bad {SECRET}"), "bad_request"),
        (failure(401, f"Incorrect API key provided: {SECRET}"), "auth"),
        (failure(403, f"{SECRET} was flagged by moderation"), "refused_by_provider"),
        (failure(404, f"no model at {SECRET}"), "bad_request"),
        (failure(402, f"insufficient credits for {SECRET}"), "no_credit"),
        (failure(429, f"quota of {SECRET}", "insufficient_quota"), "no_credit"),
        (TOO_LONG, "too_long"),
        (Reply(raw=b'{"error": {"code": 401, "message": "no auth"}}'), "auth"),
        (Reply(raw=b'{"object": "chat.completion", "choices": null}'), "unknown"),
        (Reply(raw=b"<html>hello</html>", headers={"Content-Type": "text/html"}), "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status),
)
async def test_anything_else_fails_at_once_and_tells_no_secret(fault: Reply, code: str, clock: Clock) -> None:
    with serve(lambda _: fault) as server:
        with pytest.raises(CallFailed) as caught:
            await ask(server.url, clock)
        assert (caught.value.code, server.calls, clock.slept) == (code, 1, [])
    for foreign in (SECRET, server.url, "maximum context"):
        assert foreign not in str(caught.value)


async def test_a_server_that_never_recovers_is_asked_five_times(clock: Clock) -> None:
    with serve(lambda _: SERVER_ERROR) as server:
        with pytest.raises(CallFailed, match=r"\(status 500, \w+\), tried 5 times$") as caught:
            await ask(server.url, clock)
        assert (caught.value.code, caught.value.retries, server.calls) == ("server_error", 4, 5)


async def test_a_server_that_is_not_there_is_a_fault_of_the_connection(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(CallFailed) as caught:
        await ask(f"http://127.0.0.1:{port}/v1", clock)
    assert (caught.value.code, caught.value.retries) == ("connection", 4)


async def test_a_reply_that_does_not_come_is_a_timeout(clock: Clock) -> None:
    with serve(lambda _: HANGING) as server:
        impatient = chat(server.url, timeout=0.05)
        async with keep_pool_open():
            with pytest.raises(CallFailed) as caught:
                await complete(Model("m", impatient), HI, retry=clock.retry)
        assert (caught.value.code, server.calls) == ("timeout", 5)


async def test_a_cancelled_call_leaves_the_server(clock: Clock) -> None:
    with serve(lambda _: HANGING) as server:
        task = asyncio.create_task(ask(server.url, clock))
        await asyncio.to_thread(server.wait, lambda s: s.in_flight == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.wait, lambda s: s.requests[0].state == "lost")
        assert server.calls == 1


async def test_one_failure_does_not_touch_its_siblings(clock: Clock) -> None:
    with serve(echo, rule=lambda request: failure(400) if "7" in str(request.messages) else None) as server:
        async with keep_pool_open():
            ended = await asyncio.gather(
                *(complete(model(server.url), [HumanMessage(str(n))], retry=clock.retry) for n in range(10)),
                return_exceptions=True,
            )
    assert [end.text if isinstance(end, Completion) else "failed" for end in ended] == [
        *map(str, range(7)),
        "failed",
        "8",
        "9",
    ]


@pytest.mark.parametrize("width", [1, 64])
async def test_the_gate_is_the_only_limit_and_is_used_in_full(width: int) -> None:
    with serve(lambda _: HANGING) as server:
        asked, gate = model(server.url), asyncio.Semaphore(width)
        async with keep_pool_open():
            calls = [asyncio.create_task(complete(asked, HI, gate=gate)) for _ in range(width + 5)]
            await asyncio.to_thread(server.wait, lambda s: s.in_flight == width)
            server.rule = lambda _: Reply("late")
            server.release()
            assert [done.text for done in await asyncio.gather(*calls)] == ["late"] * (width + 5)
    assert server.peak == width


async def test_usage_is_what_the_server_has_billed() -> None:
    with serve(lambda _: Reply("a reply of words", cached=1)) as server:
        done = await ask(server.url, Clock())
    assert done.usage[:4] == (1, server.tokens["input"], server.tokens["cached"], server.tokens["output"])
    assert done.usage.cost == pytest.approx((1 * 1.0 + 1 * 0.1 + 4 * 10.0) / 1e6)
    assert not done.usage.estimated


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": -3, "completion_tokens": -1, "total_tokens": -4},
    ],
    ids=str,
)
async def test_usage_that_is_missing_or_wrong_is_counted_here(usage: dict[str, Any] | None) -> None:
    done = await ask_for(Reply("12345678", usage=usage))
    assert done.usage[:4] == (1, 6, 0, 2)
    assert done.usage.estimated


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (Reply("", finish="length"), "", "length"),
        (Reply(None), "", "stop"),
        (Reply(None, extra={"refusal": "I cannot"}), "I cannot", "stop"),
        (Reply("yes", extra={"reasoning_content": "long", "reasoning": "long"}), "yes", "stop"),
        (
            Reply(None, extra={"tool_calls": [tool_call("python", code="print(1)")]}, finish="tool_calls"),
            "```repl\nprint(1)\n```",
            "tool_calls",
        ),
        (Reply(None, extra={"tool_calls": [tool_call("weather", city="Bonn")]}), "", "stop"),
    ],
    ids=["empty", "null", "refusal", "reasoning", "code as a tool call", "another tool call"],
)
async def test_odd_replies_are_read_for_their_words(reply: Reply, text: str, finish: str) -> None:
    done = await ask_for(reply)
    assert (done.text, done.finish) == (text, finish)


def test_the_same_model_works_on_one_loop_after_another(clock: Clock) -> None:
    def once(url: str, how: Callable[[], Model]) -> str:
        return asyncio.run(complete(how(), HI, retry=clock.retry)).text

    with serve(echo) as server:
        shared = model(server.url)
        assert [once(server.url, lambda: shared) for _ in range(3)] == ["hello"] * 3
    assert server.calls == 3
    assert clock.slept == []
