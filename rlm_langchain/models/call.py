"""Calls a chat model: waits for a free slot, retries, and reports the usage.

Nothing else in this library retries, and clients are built with their own retries turned off.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, BaseCallbackManager
from langchain_core.globals import get_llm_cache
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from rlm_langchain.budget.ledger import Reservation
from rlm_langchain.errors import ForeignExit, RLMError, ends_more_than_its_work
from rlm_langchain.models.messages import (
    finish_of,
    text_of,
    tokens_in,
    usage_of,
)
from rlm_langchain.models.model import Model
from rlm_langchain.models.provider_errors import ErrorCode, ProviderError, classify_error, is_graph_signal
from rlm_langchain.models.usage import StreamedUsage, usage_in_error, worst_case_usage
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""Names under which chat model classes take a cap on the output tokens."""


class CallFailed(RLMError):
    """A model call failed, after its retries. The message quotes nothing of the provider's error."""

    def __init__(self, code: ErrorCode, sentence: str, retries: int, seconds: float) -> None:
        self.code: ErrorCode = code
        self.sentence, self.retries, self.seconds = sentence, retries, seconds
        tries = f", tried {retries + 1} times" if retries else ""
        super().__init__(f"{sentence}{tries}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to send a request again after a temporary error: exponential backoff with random jitter."""

    attempts: int = 5
    base: float = 0.5
    """Seconds: upper bound of the first wait. The bound doubles with each attempt."""
    max_wait: float = 60.0
    """Seconds: upper bound of any wait, also when the provider asks for a longer one."""
    max_total_wait: float = 180.0
    """Seconds that all waits of a call may take together."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[float, float], float] = random.uniform

    def wait(self, attempt: int, fault: ProviderError) -> float:
        """Return the seconds to wait after this attempt (counted from 1). The jitter spreads calls that were given
        the same `Retry-After`."""
        jitter = self.random(0.0, min(self.max_wait, self.base * 2.0 ** (attempt - 1)))
        return jitter if fault.retry_after is None else min(fault.retry_after, self.max_wait) + jitter

    def gives_up(self, attempt: int, waited: float) -> bool:
        """Return whether this attempt was the last. `waited` is the sum of all waits, including the next one."""
        return attempt >= self.attempts or waited > self.max_total_wait


@dataclass(frozen=True, slots=True)
class Completion:
    """Reply of a model."""

    text: str
    usage: Usage
    seconds: float
    """Seconds from the first request to the reply, with the waits between attempts, without the wait for a slot."""
    retries: int
    finish: str | None
    """Finish reason, in the provider's words."""
    from_cache: bool = False
    """Whether LangChain's cache had the reply. Nothing was sent then, so it costs nothing."""
    failed: Literal["unread", "lost"] | None = None
    """Set when there is no usable reply. `unread`: it could not be parsed, or it was an error that was billed.
    `lost`: it did not arrive, or not completely, and `usage` is what it may have cost."""


class Account(NamedTuple):
    """Where the cost of a call is booked."""

    entry: Reservation
    """The reservation of the call. It is checked before each request: other calls may have cost more than
    expected."""
    received: Callable[[Completion], None]
    """Called with the reply as soon as it is paid for, even if a callback fails or the call is cancelled
    afterwards; also called for replies that were lost or could not be parsed."""


async def complete(
    model: Model,
    messages: Sequence[BaseMessage],
    *,
    config: RunnableConfig | None = None,
    gate: AbstractAsyncContextManager[Any] | None = None,
    output_tokens: int | None = None,
    retry: RetryPolicy = RetryPolicy(),
    account: Account | None = None,
) -> Completion:
    """Call a model, and retry after temporary errors. `gate` is held while a request is in flight, not between.

    Raises `CallFailed`, and `BudgetRefused` when the budget has nothing left for a request. Cancellation, the
    errors of this library, LangGraph's signals and errors raised by callbacks (`raise_error`) pass through
    unchanged.
    """
    call = _Attempts(model, messages, config, output_tokens, account)
    while True:
        if account is not None:
            await account.entry.renew()
        try:
            async with gate or nullcontext():
                await call.pace()
                if account is not None and not account.entry.begin():
                    continue
                return await call.ask()
        except Exception as error:
            if isinstance(error, RLMError) or is_graph_signal(error) or _is_from_callback(error):
                call.withdraw()
                raise
            wait = call.failed(classify_error(error), retry)
        await retry.sleep(wait)


@dataclass(slots=True)
class _Attempts:
    """State of one call over all its attempts."""

    model: Model
    messages: Sequence[BaseMessage]
    config: RunnableConfig | None
    output_tokens: int | None
    account: Account | None = None
    attempt: int = 0
    waited: float = 0.0
    began: float = 0.0
    booked: bool = False
    """Whether the cost of the latest request has been booked."""

    async def pace(self) -> None:
        """Wait for the chat model's own rate limiter. This comes before the budget check, which must be current
        when the request is sent."""
        if self.model.chat.rate_limiter is not None:
            await self.model.chat.rate_limiter.aacquire(blocking=True)

    async def ask(self) -> Completion:
        self.attempt += 1
        self.booked = False
        self.began = self.began or time.monotonic()
        cap, capture = _cap(self.model.chat, self.output_tokens), _ReplyCapture()
        config, chat = _with_callback(self.config, capture), self.model.chat
        if chat.rate_limiter is not None:  # `pace` has waited for it already
            chat = chat.model_copy(update={"rate_limiter": None})
        try:
            reply: BaseMessage = await chat.ainvoke(list(self.messages), config, **cap)
        except BaseException as error:
            if capture.reply is not None:
                self._accept(capture.reply, capture)
            if isinstance(error, ForeignExit) or ends_more_than_its_work(error):
                raise self._exited(error) from error
            raise
        return self._accept(reply, capture)

    def _accept(self, reply: BaseMessage, capture: _ReplyCapture) -> Completion:
        text, from_cache = text_of(reply), _is_from_cache(self.model.chat, reply)
        all_text = f"{text}{capture.other_replies}"
        usage = Usage() if from_cache else usage_of(self.model, self.messages, reply, all_text, capture.streamed)
        completion = Completion(text, usage, self.seconds, self.attempt - 1, finish_of(reply), from_cache)
        self.booked = True
        if self.account is not None:
            self.account.received(completion)
        return completion

    def _exited(self, error: BaseException) -> RLMError:
        """Return the error for a model, or a callback, that tried to end the process."""
        cause = (error.__cause__ or error) if isinstance(error, ForeignExit) else error
        if _is_from_callback(cause):
            return ForeignExit(cause)
        return CallFailed("unknown", f"the model raised {type(cause).__name__}", self.attempt - 1, self.seconds)

    def withdraw(self) -> None:
        """Note that the latest request has cost nothing."""
        if self.account is not None and not self.booked:
            self.account.entry.withdraw()

    def _book(self, fault: ProviderError) -> None:
        """Book the cost of a request without a reply, as far as it can be known."""
        if self.booked or self.account is None:
            return
        used = usage_in_error(self.model, fault.usage)
        if used is None and fault.arrival != "none":
            used = worst_case_usage(self.account.entry.wanted)
        if used is None:
            self.withdraw()
            return
        lost = fault.arrival == "lost" and fault.usage is None
        failed: Literal["unread", "lost"] = "lost" if lost else "unread"
        self.account.received(Completion("", used, self.seconds, self.attempt - 1, None, failed=failed))

    def failed(self, fault: ProviderError, retry: RetryPolicy) -> float:
        """Return the seconds to wait before the next attempt. Raises `CallFailed` when there is none."""
        self._book(fault)
        wait = retry.wait(self.attempt, fault)
        self.waited += wait
        if not fault.retryable or retry.gives_up(self.attempt, self.waited):
            # A chained error would print the provider's words, which may hold a key.
            raise CallFailed(fault.code, fault.message, self.attempt - 1, self.seconds) from None
        return wait

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class _ReplyCapture(AsyncCallbackHandler):
    """Captures a reply as soon as it arrives, before other callbacks, which may take long or fail.

    It also captures the usage that each chunk of a stream reports: LangChain adds these figures up, but some
    providers report the usage so far in every chunk.
    """

    run_inline = True
    ignore_chat_model = True

    def __init__(self) -> None:
        self.reply: BaseMessage | None = None
        self.other_replies = ""
        """Text of the other replies, when the request asked for several at once."""
        self.streamed: list[StreamedUsage] = []
        self._tokens_since_report = 0

    async def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """Keep the usage that a chunk reports."""
        self._tokens_since_report += tokens_in(token) if isinstance(token, str) else 0
        if reported := getattr(getattr(chunk, "message", None), "usage_metadata", None):
            self.streamed.append(StreamedUsage(reported, self._tokens_since_report))
            self._tokens_since_report = 0

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Keep the reply."""
        messages = [one.message for one in response.generations[0] if isinstance(one, ChatGeneration)]
        if messages:
            self.reply, *others = messages
            self.other_replies = "".join(text_of(other) for other in others)


def _with_callback(config: RunnableConfig | None, handler: BaseCallbackHandler) -> RunnableConfig:
    """Return the config with one more callback handler.

    Inside a node the config holds a callback manager. Copying it gives the same result as `merge_configs` at a
    fifth of the cost, which counts because this is done for every call.
    """
    callbacks = config.get("callbacks") if config else None
    if config is None or not isinstance(callbacks, BaseCallbackManager):
        return merge_configs(config, {"callbacks": [handler]})
    manager = callbacks.copy()
    manager.add_handler(handler)
    return {**config, "callbacks": manager}


def _is_from_cache(chat: BaseChatModel, reply: BaseMessage) -> bool:
    """Return whether the reply came from LangChain's cache. A `total_cost` of 0 is the cache's only mark; no chat
    model sets it."""
    usage = getattr(reply, "usage_metadata", None)
    if not isinstance(usage, Mapping) or usage.get("total_cost") != 0 or chat.cache is False:
        return False
    return isinstance(chat.cache, BaseCache) or get_llm_cache() is not None


def accepts_output_cap(chat: BaseChatModel) -> str | None:
    """Return the name under which this chat model takes a cap on its output, or None if it takes none."""
    return next((cap for cap in _CAPS if cap in type(chat).model_fields), None)


def _cap(chat: BaseChatModel, output_tokens: int | None) -> dict[str, Any]:
    """Return the cap as a keyword argument of a call; never above the one that the model was built with."""
    name = accepts_output_cap(chat)
    if output_tokens is None or name is None:
        return {}
    own = getattr(chat, name)
    # LangChain's Ollama class uses -1 for "no cap".
    return {name: min(output_tokens, own) if isinstance(own, int) and own > 0 else output_tokens}


def _is_from_callback(error: BaseException) -> bool:
    """Return whether a callback raised the error. LangChain lets it through only if the callback wants to stop."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "langchain_core.callbacks.manager" for frame in frames)
