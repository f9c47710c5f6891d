"""The one place where a model is asked: limits how many at once, tries again, and tells what it took.

Nothing else in this library retries, and clients are built with their own retries off.
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
from rlm_langchain.errors import RLMError
from rlm_langchain.models.messages import (
    finish_of,
    text_of,
    tokens_in,
    usage_of,
)
from rlm_langchain.models.model import Model
from rlm_langchain.models.provider_errors import ErrorCode, ProviderError, classify_error, is_graph_signal
from rlm_langchain.models.usage import StreamedUsage, unread, usage_in_error
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""What chat models call the cap on their output."""


class CallFailed(RLMError):
    """A model call failed, after its retries. Its text is ours: nothing of the provider's words is in it."""

    def __init__(self, code: ErrorCode, sentence: str, retries: int, seconds: float) -> None:
        self.code: ErrorCode = code
        self.sentence, self.retries, self.seconds = sentence, retries, seconds
        tries = f", tried {retries + 1} times" if retries else ""
        super().__init__(f"{sentence}{tries}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to ask again after a fault that may pass: waits double, and are drawn at random up to that."""

    attempts: int = 5
    base: float = 0.5
    """Seconds: the longest first wait."""
    max_wait: float = 60.0
    """Seconds of one wait, also when the provider asks for more."""
    max_total_wait: float = 180.0
    """Seconds of all waits of a call together."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[float, float], float] = random.uniform

    def wait(self, attempt: int, fault: ProviderError) -> float:
        """Seconds to wait after this attempt, from 1. Calls that were told the same time come back apart."""
        jitter = self.random(0.0, min(self.max_wait, self.base * 2.0 ** (attempt - 1)))
        return jitter if fault.retry_after is None else min(fault.retry_after, self.max_wait) + jitter

    def gives_up(self, attempt: int, waited: float) -> bool:
        """Whether this attempt was the last, when all waits, the next one included, are `waited` seconds."""
        return attempt >= self.attempts or waited > self.max_total_wait


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's reply."""

    text: str
    usage: Usage
    seconds: float
    """From the first request to the reply, with the waits between, without the wait for the first turn."""
    retries: int
    finish: str | None
    """Why it stopped, in its provider's words."""
    from_cache: bool = False
    """Whether LangChain's cache had it: then nothing was sent, and it costs nothing."""
    failed: Literal["unread", "lost"] | None = None
    """When there was none: it could not be read, or was an error that was billed; or it did not come, or not whole,
    and then `usage` is what it may have cost."""


class Account(NamedTuple):
    """Where a call is accounted for."""

    entry: Reservation
    """Its reservation, which is looked at before each request: others may have cost more than they should have."""
    received: Callable[[Completion], None]
    """Told of the reply, which is paid for then, also when a callback fails or a cancel comes after it; and of
    replies that were lost or could not be read."""


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
    """Ask a model, again when a fault may pass. `gate` is held while a request is in flight, not in between.

    Raises `CallFailed`, and `Refused` when the account has nothing left for a request. Cancelling, our own errors,
    LangGraph's signals and what callbacks raise on purpose (`raise_error`) pass through as they are.
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
    """One call over all its attempts."""

    model: Model
    messages: Sequence[BaseMessage]
    config: RunnableConfig | None
    output_tokens: int | None
    account: Account | None = None
    attempt: int = 0
    waited: float = 0.0
    began: float = 0.0
    booked: bool = False
    """Whether what the latest request has cost is on the account."""

    async def pace(self) -> None:
        """Wait for the chat model's own rate limiter, before the account is looked at and not after it."""
        if self.model.chat.rate_limiter is not None:
            await self.model.chat.rate_limiter.aacquire(blocking=True)

    async def ask(self) -> Completion:
        self.attempt += 1
        self.booked = False
        self.began = self.began or time.monotonic()
        cap, watch = _cap(self.model.chat, self.output_tokens), _ReplyCapture()
        config, chat = _with_callback(self.config, watch), self.model.chat
        if chat.rate_limiter is not None:  # which has let it go
            chat = chat.model_copy(update={"rate_limiter": None})
        try:
            reply: BaseMessage = await chat.ainvoke(list(self.messages), config, **cap)
        except BaseException:
            if watch.reply is not None:
                self._take(watch.reply, watch)
            raise
        return self._take(reply, watch)

    def _take(self, reply: BaseMessage, watch: _ReplyCapture) -> Completion:
        text, from_cache = text_of(reply), _is_from_cache(self.model.chat, reply)
        said = f"{text}{watch.others}"
        usage = Usage() if from_cache else usage_of(self.model, self.messages, reply, said, watch.streamed)
        completion = Completion(text, usage, self.seconds, self.attempt - 1, finish_of(reply), from_cache)
        self.booked = True
        if self.account is not None:
            self.account.received(completion)
        return completion

    def withdraw(self) -> None:
        """The latest request has cost nothing."""
        if self.account is not None and not self.booked:
            self.account.entry.withdraw()

    def _book(self, fault: ProviderError) -> None:
        """Book what a request has cost that has brought no reply, as far as that can be known."""
        if self.booked or self.account is None:
            return
        wanted, told, how = self.account.entry.wanted, usage_in_error(self.model, fault.usage), fault.arrival
        if told is None and how != "none":
            told = unread(wanted)
        if told is None:
            self.withdraw()
            return
        lost = how == "lost" and fault.usage is None
        failed: Literal["unread", "lost"] = "lost" if lost else "unread"
        self.account.received(Completion("", told, self.seconds, self.attempt - 1, None, failed=failed))

    def failed(self, fault: ProviderError, retry: RetryPolicy) -> float:
        """Seconds to wait before the next attempt. Raises `CallFailed` when there is none."""
        self._book(fault)
        wait = retry.wait(self.attempt, fault)
        self.waited += wait
        if not fault.retryable or retry.gives_up(self.attempt, self.waited):
            # Whoever prints the chain of an error would print the provider's words, too.
            raise CallFailed(fault.code, fault.message, self.attempt - 1, self.seconds) from None
        return wait

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class _ReplyCapture(AsyncCallbackHandler):
    """Sees a reply at the moment it is there, before other callbacks, which may take long or fail.

    And what each chunk of a stream tells of the usage: LangChain adds it all up, and some providers tell in each
    what was used so far.
    """

    run_inline = True
    ignore_chat_model = True

    def __init__(self) -> None:
        self.reply: BaseMessage | None = None
        self.others = ""
        """What was said beside it, by a model that was asked for several replies at once."""
        self.streamed: list[StreamedUsage] = []
        self._since = 0

    async def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """Keep what a chunk tells of the usage."""
        self._since += tokens_in(token) if isinstance(token, str) else 0
        if told := getattr(getattr(chunk, "message", None), "usage_metadata", None):
            self.streamed.append(StreamedUsage(told, self._since))
            self._since = 0

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Keep it."""
        messages = [one.message for one in response.generations[0] if isinstance(one, ChatGeneration)]
        if messages:
            self.reply, *others = messages
            self.others = "".join(text_of(other) for other in others)


def _with_callback(config: RunnableConfig | None, handler: BaseCallbackHandler) -> RunnableConfig:
    """The config with one more handler. Nodes have a manager: for them it is what `merge_configs` makes, at a fifth
    of its cost, and this is done for every call."""
    callbacks = config.get("callbacks") if config else None
    if config is None or not isinstance(callbacks, BaseCallbackManager):
        return merge_configs(config, {"callbacks": [handler]})
    manager = callbacks.copy()
    manager.add_handler(handler)
    return {**config, "callbacks": manager}


def _is_from_cache(chat: BaseChatModel, reply: BaseMessage) -> bool:
    """Whether LangChain's cache had this reply: it has no other mark than this, and no model that sets it."""
    told = getattr(reply, "usage_metadata", None)
    if not isinstance(told, Mapping) or told.get("total_cost") != 0 or chat.cache is False:
        return False
    return isinstance(chat.cache, BaseCache) or get_llm_cache() is not None


def accepts_output_cap(chat: BaseChatModel) -> str | None:
    """What this chat model calls the cap on its output; None when it takes none."""
    return next((cap for cap in _CAPS if cap in type(chat).model_fields), None)


def _cap(chat: BaseChatModel, output_tokens: int | None) -> dict[str, Any]:
    """The cap as this chat model takes it with a call; never above the one it was built with."""
    name = accepts_output_cap(chat)
    if output_tokens is None or name is None:
        return {}
    own = getattr(chat, name)
    # Ollama's own class writes -1 for no cap.
    return {name: min(output_tokens, own) if isinstance(own, int) and own > 0 else output_tokens}


def _is_from_callback(error: Exception) -> bool:
    """Whether a callback raised it, which LangChain lets through only when the callback wants to stop the run."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "langchain_core.callbacks.manager" for frame in frames)
