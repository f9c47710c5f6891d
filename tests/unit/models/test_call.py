"""Asking a model: tries, waits, the gate, and what passes through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphInterrupt

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import BudgetRefused, Ledger
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.models.call import (
    Account,
    CallFailed,
    Completion,
    RetryPolicy,
    complete,
)
from rlm_langchain.models.learned import MIN_OUTPUT, Learned
from rlm_langchain.models.model import FREE, Model
from rlm_langchain.models.registry import resolve
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.types import Usage

HI = [HumanMessage("hi")]


class StatusError(Exception):
    def __init__(self, status_code: int, retry_after: str | None = None) -> None:
        super().__init__("sk-secret")
        self.status_code = status_code
        self.headers = {"retry-after": retry_after} if retry_after else {}


@dataclass
class Clock:
    """Sleeps in no time, and remembers for how long. Jitter is at its longest."""

    slept: list[float] = field(default_factory=list)
    retry: RetryPolicy = field(init=False)

    def __post_init__(self) -> None:
        self.retry = RetryPolicy(sleep=self.sleep, random=lambda _, longest: longest)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def model(function: Callable[[list[BaseMessage]], str | AIMessage]) -> Model:
    return Model("m", FunctionModel(function=function), price=FREE)


def failing(*errors: BaseException, then: str = "yes") -> Model:
    """A model that raises these, one after the other, and then replies."""
    left = list(errors)

    def reply(_: list[BaseMessage]) -> str:
        if left:
            raise left.pop(0)
        return then

    return model(reply)


async def test_a_reply_is_told_with_what_it_took(clock: Clock) -> None:
    done = await complete(model(lambda messages: f"you said {messages[-1].content}"), HI, retry=clock.retry)
    assert (done.text, done.retries, done.usage.calls, done.finish) == ("you said hi", 0, 1, None)
    assert done.seconds >= 0
    assert clock.slept == []


@pytest.mark.parametrize("error", [StatusError(429), StatusError(500), TimeoutError(), ConnectionResetError()])
async def test_a_fault_that_may_pass_is_tried_again_with_doubling_waits(error: Exception, clock: Clock) -> None:
    done = await complete(failing(*[error] * 4), HI, retry=clock.retry)
    assert (done.text, done.retries) == ("yes", 4)
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("error", [StatusError(400), StatusError(401), StatusError(404), ZeroDivisionError()])
async def test_any_other_fault_ends_the_call_at_once(error: Exception, clock: Clock) -> None:
    with pytest.raises(CallFailed) as caught:
        await complete(failing(error), HI, retry=clock.retry)
    assert (caught.value.retries, clock.slept) == (0, [])
    assert caught.value.__suppress_context__, "the provider's words are in no traceback"
    assert caught.value.__context__ is error, "a debugger finds them"


async def test_the_last_fault_is_told_without_the_providers_words(clock: Clock) -> None:
    with pytest.raises(CallFailed) as caught:
        await complete(failing(*[StatusError(503)] * 9), HI, retry=clock.retry)
    assert str(caught.value) == "the provider's server failed (status 503, StatusError), tried 5 times"
    assert (caught.value.code, caught.value.retries, len(clock.slept)) == ("server_error", 4, 4)


async def test_a_provider_that_names_a_time_is_waited_for(clock: Clock) -> None:
    await complete(failing(StatusError(429, "7"), StatusError(429)), HI, retry=clock.retry)
    assert clock.slept == [7.5, 1.0]


async def test_no_wait_is_longer_than_the_longest(clock: Clock) -> None:
    short = replace(clock.retry, max_wait=3.0)
    await complete(failing(StatusError(429, "3600"), *[StatusError(500)] * 3), HI, retry=short)
    assert clock.slept == [3.5, 1.0, 2.0, 3.0]


async def test_patience_ends_before_a_wait_that_is_too_much(clock: Clock) -> None:
    with pytest.raises(CallFailed) as caught:
        await complete(failing(*[StatusError(500)] * 9), HI, retry=replace(clock.retry, max_total_wait=3.0))
    assert (clock.slept, caught.value.retries) == ([0.5, 1.0], 2)


async def test_jitter_keeps_calls_apart() -> None:
    clock = Clock()
    drawn = RetryPolicy(sleep=clock.sleep)
    await asyncio.gather(*(complete(failing(StatusError(429, "2")), HI, retry=drawn) for _ in range(20)))
    assert len(set(clock.slept)) == 20
    assert all(2.0 <= seconds <= 2.5 for seconds in clock.slept)


async def test_a_cancel_in_flight_passes_through_and_opens_the_gate(clock: Clock) -> None:
    asked, gate = asyncio.Event(), asyncio.Semaphore(1)

    class Hanging(FunctionModel):
        async def _agenerate(self, *_: Any, **__: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

    hanging = Model("m", Hanging(function=lambda _: ""))
    task = asyncio.create_task(complete(hanging, HI, limiter=gate, retry=clock.retry))
    await asked.wait()
    task.cancel("by test")
    with pytest.raises(asyncio.CancelledError, match="by test"):
        await task
    assert clock.slept == []
    assert not gate.locked()


async def test_a_call_can_be_cancelled_while_it_waits_to_try_again() -> None:
    waiting = asyncio.Event()

    async def forever(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(complete(failing(StatusError(500)), HI, retry=RetryPolicy(sleep=forever)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [ConfigurationError("no such proxy"), GraphInterrupt()])
async def test_our_own_errors_and_signals_of_a_graph_pass_through(error: Exception, clock: Clock) -> None:
    with pytest.raises(type(error)) as caught:
        await complete(failing(error), HI, retry=clock.retry)
    assert caught.value is error


async def test_the_gate_is_held_in_flight_and_not_between_tries() -> None:
    gate, held = asyncio.Semaphore(1), []

    def reply(_: list[BaseMessage]) -> str:
        held.append(("asked", gate.locked()))
        if len(held) < 3:
            raise StatusError(500)
        return "yes"

    async def sleep(_: float) -> None:
        held.append(("waiting", gate.locked()))

    await complete(model(reply), HI, limiter=gate, retry=RetryPolicy(sleep=sleep))
    assert held == [("asked", True), ("waiting", False), ("asked", True)]
    assert not gate.locked()


async def test_the_gate_is_open_again_after_a_failure(clock: Clock) -> None:
    gate = asyncio.Semaphore(1)
    with pytest.raises(CallFailed):
        await complete(failing(StatusError(400)), HI, limiter=gate, retry=clock.retry)
    assert not gate.locked()


@pytest.mark.parametrize(
    ("name", "own", "asked", "sent"),
    [
        ("max_tokens", None, 50, 50),
        ("max_tokens", 20, 50, 20),
        ("max_tokens", 90, 50, 50),
        ("max_output_tokens", None, 50, 50),
        ("num_predict", -1, 50, 50),
        ("temperature", None, 50, None),
        ("max_tokens", 20, None, None),
    ],
)
async def test_output_is_capped_by_the_name_that_the_model_knows(
    name: str, own: int | None, asked: int | None, sent: int | None
) -> None:
    received: list[Any] = []

    class Capped(BaseChatModel):
        __annotations__ = {name: Any}
        locals()[name] = own
        _llm_type = "capped"

        def _generate(self, *args: Any, **given: Any) -> ChatResult:
            received.append(given.get(name))
            return ChatResult(generations=[ChatGeneration(message=AIMessage("yes"))])

    await complete(Model("m", Capped()), HI, output_tokens=asked)
    assert received == [sent]


async def test_callbacks_of_the_caller_see_the_call() -> None:
    from langchain_core.callbacks import UsageMetadataCallbackHandler

    seen = UsageMetadataCallbackHandler()
    done: Completion = await complete(model(lambda _: "yes"), HI, config={"callbacks": [seen]})
    assert seen.usage_metadata["function"]["output_tokens"] == done.usage.output


@pytest.mark.parametrize("spent", [0, 100])
async def test_the_account_is_looked_at_after_the_wait_for_a_models_own_rate_limiter(spent: int) -> None:
    ledger, asked = Ledger(Budget(tokens=100), reserve_for_last_call=Usage()), []

    class Limiter(BaseRateLimiter):
        """Lets a call go when others have spent so much."""

        acquired = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            raise NotImplementedError

        async def aacquire(self, *, blocking: bool = True) -> bool:
            await asyncio.sleep(0)
            self.acquired += 1
            ledger.add_spent(Usage(input=spent))
            return True

    def reply(messages: list[BaseMessage]) -> str:
        asked.append(messages)
        return "yes"

    limiter = Limiter()
    limited = Model("m", FunctionModel(function=reply, rate_limiter=limiter), price=FREE)
    async with ledger.reserve(Usage(calls=1, input=10)) as entry:
        call = complete(limited, HI, account=Account(entry, lambda _: None))
        if spent:
            with pytest.raises(BudgetRefused):
                await call
        else:
            assert (await call).text == "yes"
    assert (len(asked), limiter.acquired) == (0 if spent else 1, 1)


def could_not_read(error: BaseException) -> Callable[[Any], str]:
    def parse(_: Any) -> str:
        raise error

    return parse


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no JSON in the reply: 'its context window is 8,192 tokens, and the prompt was too long'"),
        ValueError("rate limit"),
        StatusError(503),
        TimeoutError("late"),
        KeyError("context_length"),
    ],
    ids=repr,
)
async def test_a_step_behind_the_model_that_fails_is_no_error_of_the_provider(
    error: Exception, clock: Clock
) -> None:
    asked: list[str] = []

    def said(name: str) -> FunctionModel:
        return FunctionModel(function=lambda _: asked.append(name) or "42 pages")

    chain = resolve(said("first").with_fallbacks([said("second")]) | RunnableLambda(could_not_read(error)), "root")
    booked: list[Completion] = []
    ledger = Ledger(Budget())
    async with ledger.reserve(Usage(calls=1)) as entry:
        with pytest.raises(CallFailed, match=f"after the model .*{type(error).__name__}") as caught:
            await complete(chain, HI, retry=clock.retry, account=Account(entry, booked.append))
    assert (caught.value.code, caught.value.retries, clock.slept, asked) == ("unknown", 0, [], ["first"])
    assert [(one.text, one.failed) for one in booked] == [("42 pages", None)]
    assert type(caught.value.__cause__) is type(error), "its traceback shows where"


def told(words: str) -> Exception:
    error = type("BadRequestError", (Exception,), {})(words)
    vars(error).update(status_code=400, body={"message": words})
    return error


LEGACY = (
    "This model's maximum context length is {w} tokens. However, you requested {t} tokens ({p} in the messages, "
    "{c} in the completion). Please reduce the length of the messages or completion."
)
VLLM = (
    "'max_tokens' or 'max_completion_tokens' is too large: {c}. This model's maximum context length is {w} tokens "
    "and your request has {p} input tokens ({c} > {w} - {p})."
)
SUMS = [
    LEGACY,
    VLLM,
    "input length and `max_tokens` exceed context limit: {p} + {c} > {w}, decrease input length or `max_tokens`",
    "`inputs` tokens + `max_new_tokens` must be <= {w}. Given: {p} `inputs` tokens and {c} `max_new_tokens`",
    "This endpoint's maximum context length is {w} tokens. However, you requested about {t} tokens ({p} of text "
    "input, {c} in the output).",
    "Requested token count exceeds the model's maximum context length of {w} tokens. You requested a total of {t} "
    "tokens: {p} tokens from the input messages and {c} tokens for the completion.",
    "This model's maximum context length is {w} tokens. However, you requested {c} output tokens and your prompt "
    "contains {p} input tokens, for a total of {t} tokens.",
    "This model's maximum context length is {w} tokens. However, you requested {t} tokens.",
    "the request exceeds the available context size, n_ctx: {w}",
]


@pytest.mark.parametrize("words", SUMS)
@pytest.mark.parametrize(("window", "prompt", "cap"), [(4096, 780, 4096), (8192, 5000, 4096), (2048, 1000, 1500)])
async def test_a_cap_that_a_window_has_no_room_for_is_lowered_and_the_prompt_is_not(
    words: str, window: int, prompt: int, cap: int, clock: Clock
) -> None:
    sent: list[int] = []

    class Small(FunctionModel):
        async def _agenerate(self, *args: Any, **given: Any) -> ChatResult:
            sent.append(given["max_tokens"])
            if prompt + sent[-1] > window:
                raise told(words.format(w=window, p=prompt, c=sent[-1], t=prompt + sent[-1]))
            return self._generate(args[0], **given)

    learned, small = Learned(), Model("m", Small(function=lambda _: "yes"), price=FREE)
    ask = partial(complete, small, [HumanMessage("word" * (prompt - 4))], output_tokens=cap, learned=learned)
    assert (await ask(retry=clock.retry)).text == "yes"
    assert sent == [cap, window - prompt], "it is told at once by how much"
    assert any("capped" in note for note in learned.take_notes())
    assert (await ask(retry=clock.retry)).text == "yes"
    assert all(one <= max(window - prompt, MIN_OUTPUT) for one in sent[2:]), "it is remembered"
    assert learned.of("m").window is None, "nothing is wrong with the prompt"


OUTPUTS = [
    "max_tokens is too large: {c}. This model supports at most {m} completion tokens, whereas you provided {c}.",
    "max_tokens: {c} > {m}, which is the maximum allowed number of output tokens for claude-x",
    "`max_tokens` must be less than or equal to `{m}`, the maximum value for `max_tokens` is less than the window",
    "Invalid max_tokens value, the valid range of max_tokens is [1, {m}]",
]


@pytest.mark.parametrize("words", OUTPUTS)
async def test_a_cap_above_what_a_model_can_write_is_lowered_for_good(words: str, clock: Clock) -> None:
    sent: list[int] = []

    class Short(FunctionModel):
        async def _agenerate(self, *args: Any, **given: Any) -> ChatResult:
            sent.append(given["max_tokens"])
            if sent[-1] > 1024:
                raise told(words.format(c=sent[-1], m=1024))
            return self._generate(args[0], **given)

    learned, short = Learned(), Model("m", Short(function=lambda _: "yes"), price=FREE)
    for _ in range(2):
        assert (await complete(short, HI, output_tokens=4096, learned=learned, retry=clock.retry)).text == "yes"
    assert sent == [4096, 1024, 1024]


@pytest.mark.parametrize(
    ("words", "requests"),
    [
        ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", 1),
        ("prompt is too long: 9000 tokens > 8192 maximum", 1),
        (LEGACY.format(w=8192, t=9000 + 4096, p=9000, c=4096), 1),
        (VLLM.format(w=8192, p=8100, c=4096), 1),
        ("temperature must be at most 2", 1),
        ("max_tokens must be at least 5000", 1),
        ("Please reduce the length of the messages or completion.", 5),
    ],
)
async def test_a_prompt_that_is_too_long_is_not_blamed_on_the_cap(words: str, requests: int, clock: Clock) -> None:
    refused, asked = told(words), []

    def reply(_: list[BaseMessage]) -> str:
        asked.append(1)
        raise refused

    with pytest.raises(CallFailed):
        await complete(model(reply), [HumanMessage("word" * 9000)], output_tokens=4096, retry=clock.retry)
    assert (len(asked), clock.slept) == (requests, [])


@pytest.mark.parametrize(("prompt", "sent"), [(780, 3316), (3000, 1096), (4000, 1024), (9000, 1024)])
async def test_a_window_that_is_known_leaves_room_for_the_reply(prompt: int, sent: int) -> None:
    caps: list[int] = []

    class Small(FunctionModel):
        async def _agenerate(self, *args: Any, **given: Any) -> ChatResult:
            caps.append(given["max_tokens"])
            return self._generate(args[0], **given)

    small = Model("m", Small(function=lambda _: "yes"), window=4096, price=FREE)
    await complete(small, [HumanMessage("word" * (prompt - 4))], output_tokens=4096)
    assert caps == [sent]


@pytest.mark.parametrize(
    ("errors", "code", "fallback"),
    [
        ([told("prompt is too long: 9000 tokens > 8192 maximum"), StatusError(401)], "too_long", None),
        ([StatusError(401), told("prompt is too long: 9000 tokens > 8192 maximum")], "too_long", "b"),
        ([told("prompt is too long"), StatusError(503)], "too_long", None),
        ([StatusError(503), StatusError(401), told("prompt is too long")], "too_long", "c"),
        ([StatusError(400), StatusError(401)], "auth", "b"),
        ([StatusError(503), StatusError(401)], "server_error", None),
    ],
)
async def test_of_a_model_and_its_fallbacks_the_one_whose_prompt_is_too_long_is_named(
    errors: list[Exception], code: str, fallback: str | None, clock: Clock
) -> None:
    first, *others = [replace(failing(*[error] * 9), name=name) for name, error in zip("abc", errors, strict=False)]
    with pytest.raises(CallFailed) as caught:
        await complete(replace(first, fallbacks=tuple(others)), HI, retry=clock.retry)
    assert (caught.value.code, caught.value.fallback) == (code, fallback)
    assert caught.value.words == str(errors["abc".index(fallback or "a")])
    assert all(f"{name}: " in str(caught.value) for name in "abc"[: len(errors)]), "all of them are told"
