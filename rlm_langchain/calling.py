"""The one place where a model is asked: limits how many at once, tries again, and tells what it took.

Nothing else in this library retries, and clients are built with their own retries off.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from rlm_langchain.errors import RLMError
from rlm_langchain.faults import Fault, FaultCode, read_fault
from rlm_langchain.models import Model
from rlm_langchain.responses import finish_of, text_of, usage_of
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""What chat models call the cap on their output."""


class CallFailed(RLMError):
    """A model call failed, after its retries. Its text is ours: nothing of the provider's words is in it."""

    def __init__(self, code: FaultCode, sentence: str, retries: int, seconds: float) -> None:
        self.code: FaultCode = code
        self.sentence, self.retries, self.seconds = sentence, retries, seconds
        tries = f", tried {retries + 1} times" if retries else ""
        super().__init__(f"{sentence}{tries}")


@dataclass(frozen=True, slots=True)
class Retry:
    """When to ask again after a fault that may pass: waits double, and are drawn at random up to that."""

    attempts: int = 5
    base: float = 0.5
    """Seconds: the longest first wait."""
    longest: float = 60.0
    """Seconds of one wait, also when the provider asks for more."""
    patience: float = 180.0
    """Seconds of all waits of a call together."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[float, float], float] = random.uniform

    def wait(self, attempt: int, fault: Fault) -> float:
        """Seconds to wait after this attempt, from 1. Calls that were told the same time come back apart."""
        jitter = self.draw(0.0, min(self.longest, self.base * 2.0 ** (attempt - 1)))
        return jitter if fault.after is None else min(fault.after, self.longest) + jitter

    def gives_up(self, attempt: int, waited: float) -> bool:
        """Whether this attempt was the last, when all waits, the next one included, are `waited` seconds."""
        return attempt >= self.attempts or waited > self.patience


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


async def complete(
    model: Model,
    messages: Sequence[BaseMessage],
    *,
    config: RunnableConfig | None = None,
    gate: AbstractAsyncContextManager[Any] | None = None,
    output_tokens: int | None = None,
    retry: Retry = Retry(),
    received: Callable[[Completion], None] = lambda _: None,
) -> Completion:
    """Ask a model, again when a fault may pass. `gate` is held while a request is in flight, not in between.

    `received` is told of the reply, which is paid for then, also when a callback fails or a cancel comes after it.
    Raises `CallFailed`. Cancelling, our own errors, LangGraph's signals and what callbacks raise on purpose
    (`raise_error`) pass through as they are.
    """
    call = _Call(model, messages, config, output_tokens, received)
    while True:
        try:
            async with gate or nullcontext():
                return await call.ask()
        except Exception as error:
            if isinstance(error, RLMError) or _is_signal(error) or _is_from_callback(error):
                raise
            wait = call.failed(read_fault(error), retry)
        await retry.sleep(wait)


@dataclass(slots=True)
class _Call:
    """One call over all its attempts."""

    model: Model
    messages: Sequence[BaseMessage]
    config: RunnableConfig | None
    output_tokens: int | None
    received: Callable[[Completion], None]
    attempt: int = 0
    waited: float = 0.0
    began: float = 0.0

    async def ask(self) -> Completion:
        self.attempt += 1
        self.began = self.began or time.monotonic()
        cap, watch = _cap(self.model.chat, self.output_tokens), _Watch()
        config = _told_too(self.config, watch)
        try:
            reply: BaseMessage = await self.model.chat.ainvoke(list(self.messages), config, **cap)
        except BaseException:
            if watch.reply is not None:
                self._take(watch.reply)
            raise
        return self._take(reply)

    def _take(self, reply: BaseMessage) -> Completion:
        text = text_of(reply)
        usage = usage_of(self.model, self.messages, reply, text)
        completion = Completion(text, usage, self.seconds, self.attempt - 1, finish_of(reply))
        self.received(completion)
        return completion

    def failed(self, fault: Fault, retry: Retry) -> float:
        """Seconds to wait before the next attempt. Raises `CallFailed` when there is none."""
        wait = retry.wait(self.attempt, fault)
        self.waited += wait
        if not fault.passing or retry.gives_up(self.attempt, self.waited):
            # Whoever prints the chain of an error would print the provider's words, too.
            raise CallFailed(fault.code, fault.sentence, self.attempt - 1, self.seconds) from None
        return wait

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class _Watch(AsyncCallbackHandler):
    """Sees a reply at the moment it is there, before other callbacks, which may take long or fail."""

    run_inline = True
    ignore_chat_model = True
    reply: BaseMessage | None = None

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Keep it."""
        for generation in response.generations[0][:1]:
            if isinstance(generation, ChatGeneration):
                self.reply = generation.message


def _told_too(config: RunnableConfig | None, handler: BaseCallbackHandler) -> RunnableConfig:
    """The config with one more handler. Nodes have a manager: for them it is what `merge_configs` makes, at a fifth
    of its cost, and this is done for every call."""
    callbacks = config.get("callbacks") if config else None
    if config is None or not isinstance(callbacks, BaseCallbackManager):
        return merge_configs(config, {"callbacks": [handler]})
    manager = callbacks.copy()
    manager.add_handler(handler)
    return {**config, "callbacks": manager}


def takes_cap(chat: BaseChatModel) -> str | None:
    """What this chat model calls the cap on its output; None when it takes none."""
    return next((cap for cap in _CAPS if cap in type(chat).model_fields), None)


def _cap(chat: BaseChatModel, output_tokens: int | None) -> dict[str, Any]:
    """The cap as this chat model takes it with a call; never above the one it was built with."""
    name = takes_cap(chat)
    if output_tokens is None or name is None:
        return {}
    own = getattr(chat, name)
    # Ollama's own class writes -1 for no cap.
    return {name: min(output_tokens, own) if isinstance(own, int) and own > 0 else output_tokens}


def _is_from_callback(error: Exception) -> bool:
    """Whether a callback raised it, which LangChain lets through only when the callback wants to stop the run."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "langchain_core.callbacks.manager" for frame in frames)


def _is_signal(error: Exception) -> bool:
    """Whether LangGraph is at work: a model that is itself a graph may pause, and that is no failure."""
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)
