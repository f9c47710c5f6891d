"""Calls to a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_ollama import ChatOllama

from rlm_langchain import create_rlm
from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import Ledger
from rlm_langchain.models.call import (
    Account,
    CallFailed,
    Completion,
    RetryPolicy,
    complete,
)
from rlm_langchain.models.compatible_chat import CompatibleChat
from rlm_langchain.models.http.pool import keep_pool_open
from rlm_langchain.models.http.transport import async_client
from rlm_langchain.models.learned import Learned
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.models.model import Model, Price
from rlm_langchain.models.registry import resolve
from rlm_langchain.types import Usage
from tests.servers.anthropic import Anthropic
from tests.servers.endings import chat
from tests.servers.openai import (
    DROPPED,
    HANGING,
    INVALID_JSON,
    RATE_LIMITED,
    SERVER_ERROR,
    TOO_LONG,
    OpenAI,
    Reply,
    failure,
    tool_call,
)
from tests.servers.scripted import echo, first, serve
from tests.servers.server import Request, Rule

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


KINDS = ("application/json", "text/html; charset=utf-8")
NO_REPLIES = (
    b'{"error": {"code": 502, "message": "upstream"}}',
    b'{"error": {"code": "529", "message": "Overloaded"}}',
    b'{"error": "Overloaded"}',
    b'{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}',
    b'{"error": {"code": "rate_limit_exceeded", "message": "x"}}',
    b'{"object": "chat.completion", "choices": null}',
    b'{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}',
    b'{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "message": '
    b'{"role": "assistant", "content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "x"}}]}',
    b"<html><title>502 Bad Gateway</title></html>",
    b"",
    b"null",
)


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
        *((Reply(raw=body, headers={"Content-Type": kind}), [0.5, 1.0]) for kind in KINDS for body in NO_REPLIES),
    ],
    ids=lambda value: value.raw[:60] if isinstance(value, Reply) and value.raw else "",
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
        (Reply(raw=b'{"error": {"type": "invalid_request_error", "message": "no"}}'), "bad_request"),
        (Reply(status=302, headers={"Location": "https://elsewhere.example/v1?key=1"}, raw=b""), "bad_request"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status),
)
async def test_anything_else_fails_at_once_and_tells_no_secret(fault: Reply, code: str, clock: Clock) -> None:
    with serve(lambda _: fault) as server:
        with pytest.raises(CallFailed) as caught:
            await ask(server.url, clock)
        assert (caught.value.code, server.calls, clock.slept) == (code, 1, [])
    for foreign in (SECRET, server.url, "key=1"):
        assert foreign not in str(caught.value)


async def test_a_server_that_never_recovers_is_asked_five_times(clock: Clock) -> None:
    with serve(lambda _: SERVER_ERROR) as server:
        with pytest.raises(CallFailed, match=r"\(status 500, \w+\); it says: \"oops\", tried 5 times$") as caught:
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
            calls = [asyncio.create_task(complete(asked, HI, limiter=gate)) for _ in range(width + 5)]
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


CHUNK = b'data: {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [%b]}\n\n'
WORD = CHUNK % b'{"index": 0, "delta": {"content": "hello"}, "finish_reason": null}'
END = CHUNK % b'{"index": 0, "delta": {}, "finish_reason": "stop"}'
DONE = b"data: [DONE]\n\n"


def streaming(url: str) -> Model:
    return replace(model(url), chat=chat(url).model_copy(update={"streaming": True}))


def events(*sent: bytes) -> Reply:
    return Reply(raw=b"".join(sent), headers={"Content-Type": "text/event-stream"})


async def stream(url: str, clock: Clock, account: Account | None = None) -> Completion:
    async with keep_pool_open():
        return await complete(streaming(url), HI, retry=clock.retry, account=account)


@pytest.mark.parametrize(
    "fault",
    [
        events(WORD, b'data: {"error": {"code": "529", "message": "Overloaded"}}\n\n'),
        events(b'event: error\ndata: {"error": {"type": "server_error", "message": "x"}}\n\n'),
        events(WORD, b'data: {"error": {"code": "rate_limit_exceeded", "message": "x"}}\n\n'),
        events(b'data: {"error": "Overloaded"}\n\n'),
        events(CHUNK % b"", DONE),
        events(END.replace(b"stop", b"error"), DONE),
        events(DONE),
        events(),
        Reply(raw=b"<html><title>Busy</title></html>", headers={"Content-Type": "text/html"}),
        Reply("one two three", sent=2),
        Reply("one two three", sent=0),
    ],
    ids=lambda value: value.raw[-60:] if value.raw else "reset",
)
async def test_a_stream_that_fails_or_breaks_off_is_asked_again_and_what_it_may_have_cost_is_booked(
    fault: Reply, clock: Clock
) -> None:
    got: list[Completion] = []
    ledger = Ledger(Budget())
    with serve(echo, rule=first(1, fault)) as server:
        async with ledger.reserve(Usage(calls=1, input=10, output=20)) as entry:
            done = await stream(server.url, clock, Account(entry, got.append))
    assert (done.text, done.retries, server.calls) == ("hello", 1, 2)
    assert [one.failed is None for one in got] == [False, True]
    assert (got[0].usage.output, got[0].usage.estimated) == (20, True)


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        (events(WORD, END, DONE, DONE), "stop"),
        (events(WORD, END), "stop"),
        (events(WORD), "incomplete"),
        (events(WORD, DONE), "incomplete"),
    ],
)
async def test_a_stream_without_an_end_is_a_reply_that_was_cut(reply: Reply, finish: str, clock: Clock) -> None:
    with serve(lambda _: reply) as server:
        done = await stream(server.url, clock)
    assert (done.text, done.finish, server.calls) == ("hello", finish, 1)
    assert flaw_of(done.text, done.finish) == (None if finish == "stop" else "cut")


def test_a_stream_that_drips_past_the_time_of_the_run_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda _: Reply("one two", sent=2, hangs=True)) as server:
        asked = chat(server.url).model_copy(update={"streaming": True})
        output = create_rlm(asked, budget=Budget(seconds=0.2)).invoke("q")
        assert (output["status"], output["stop_reason"]) == ("failed", "seconds")


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_that_keeps_the_request_is_followed(status: int, clock: Clock) -> None:
    with serve(echo) as right:
        there = Reply(status=status, headers={"Location": f"{right.url}/chat/completions"}, raw=b"")
        with serve(lambda _: there) as wrong:
            assert (await ask(wrong.url, clock)).text == "hello"


def refuses(*names: str, words: str = "Unsupported parameter: '{}' is not supported with this model.") -> Rule:
    """A gateway that does not take these parameters."""

    def rule(request: Request) -> Reply | None:
        found = next((name for name in names if name in request.body), None)
        return None if found is None else failure(400, words.format(found), "unsupported_parameter")

    return rule


WORDS = (
    "Unsupported parameter: '{}' is not supported with this model. Use another instead.",
    "Unrecognized request argument supplied: {}",
    "{}: Extra inputs are not permitted",
    'Invalid JSON payload received. Unknown name "{}": Cannot find field.',
    "unknown field `{}`",
    "This model does not support the parameter {}",
    "Argument not supported on this model: {}",
    "Parameter '{}' not recognized",
)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(
    ("refused", "taken"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
)
async def test_a_cap_is_sent_by_the_name_that_is_taken_and_is_remembered(
    refused: str, taken: str, words: str, clock: Clock
) -> None:
    with serve(echo, rule=refuses(refused, words=words)) as server:
        learned, asked = Learned(), model(server.url)
        if refused == "max_tokens":
            named = CompatibleChat(**options(server.url), http_async_client=async_client())
            asked = replace(asked, chat=named)
        async with keep_pool_open():
            for _ in range(2):
                await complete(asked, HI, retry=clock.retry, output_tokens=7, learned=learned)
    sent = [{name: request.body.get(name) for name in (refused, taken)} for request in server.requests]
    assert sent == [{refused: 7, taken: None}, *[{refused: None, taken: 7}] * 2]
    assert clock.slept == []
    assert [refused in note and taken in note for note in learned.take_notes()] == [True]


async def test_a_server_that_takes_no_cap_is_not_asked_without(clock: Clock) -> None:
    with serve(echo, rule=refuses("max_tokens", "max_completion_tokens")) as server:
        async with keep_pool_open():
            with pytest.raises(CallFailed, match="it accepts no name for the output limit"):
                await complete(model(server.url), HI, retry=clock.retry, output_tokens=7)
    assert all(request.body.keys() & {"max_tokens", "max_completion_tokens"} for request in server.requests)
    assert server.calls == 2


@pytest.mark.parametrize("words", WORDS)
async def test_what_we_ask_for_is_left_out_where_it_is_refused(words: str, clock: Clock) -> None:
    with serve(echo, rule=refuses("stream_options", words=words)) as server:
        assert (await stream(server.url, clock)).text == "hello"
    assert ["stream_options" in request.body for request in server.requests] == [True, False]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0.3},
        {"seed": 1},
        {"stop": ["x"]},
        {"reasoning_effort": "low"},
        {"parallel_tool_calls": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("bound", [False, True])
async def test_what_the_user_asks_for_is_named_in_the_error(
    given: dict[str, Any], bound: bool, words: str, clock: Clock
) -> None:
    [name] = given
    with serve(echo, rule=refuses(name, words=words)) as server:
        plain = chat(server.url)
        if bound or name == "parallel_tool_calls":
            asked = resolve(plain.bind(**given), "root")
        else:
            asked = resolve(plain.__class__(**(options(server.url) | given)), "root")
        async with keep_pool_open():
            with pytest.raises(CallFailed, match=f"you have set '{name}' on the model"):
                await complete(asked, HI, retry=clock.retry)
    assert server.calls == 1


def options(url: str) -> dict[str, Any]:
    return {"model": "m", "base_url": url, "api_key": "k", "max_retries": 0}


async def test_an_error_in_a_reply_of_anthropic_is_what_it_says(clock: Clock) -> None:
    overloaded = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
    usage = {"input_tokens": 3, "output_tokens": 1}
    start = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    begun = json.dumps({"type": "message_start", "message": start}).encode()
    stream = events(b"event: message_start\ndata: %b\n\n" % begun, b"event: error\ndata: %b\n\n" % overloaded)
    for streams, fault in {False: Reply(raw=overloaded), True: stream}.items():
        with serve(echo, rule=first(1, fault), dialect=Anthropic()) as server:
            url: Any = server.url.removesuffix("/v1")
            claude = ChatAnthropic(model="claude", base_url=url, api_key="k", streaming=streams)  # type: ignore[call-arg, arg-type]
            async with keep_pool_open():
                done = await complete(resolve(claude, "root"), HI, retry=clock.retry)
        assert (done.text, done.retries) == ("hello", 1)


async def test_an_error_in_a_stream_of_ollama_is_what_it_says(clock: Clock) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    fault = Reply(raw=b'{"error": "model is overloaded, try again"}\n', headers=headers)
    said = {"message": {"role": "assistant", "content": "hello"}, "done": True, "done_reason": "stop"}
    reply = Reply(raw=json.dumps({"model": "m", "created_at": "2024-01-01T00:00:00Z", **said}).encode())
    with serve(lambda _: reply, rule=first(1, fault), dialect=OpenAI("/api/chat")) as server:
        ollama = ChatOllama(model="m", base_url=server.url.removesuffix("/v1"))
        done = await complete(resolve(ollama, "root"), HI, retry=clock.retry)
    assert (done.text, done.retries) == ("hello", 1)
