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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, BaseCallbackManager
from langchain_core.globals import get_llm_cache
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs

from rlm_langchain.budget.ledger import Reservation
from rlm_langchain.context.sanitize import shows_nothing
from rlm_langchain.errors import ForeignExit, RLMError, ends_more_than_its_work
from rlm_langchain.models.http.adopt_client import uses_shared_http
from rlm_langchain.models.http.renamed import RENAMED_PARAMETERS
from rlm_langchain.models.learned import CAP_NAMES, NEVER_DROPPED, OTHER_CAP_NAME, Learned, refused_parameter
from rlm_langchain.models.messages import (
    count_tokens,
    finish_of,
    text_of,
    tokens_in,
    usage_of,
    with_cache_control,
)
from rlm_langchain.models.model import Model
from rlm_langchain.models.provider_errors import (
    ErrorCode,
    ProviderError,
    UnusableReply,
    classify_error,
    is_graph_signal,
)
from rlm_langchain.models.provider_words import displayed_words, log_failure, secrets_of
from rlm_langchain.models.usage import StreamedUsage, usage_in_error, worst_case_usage
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""Names under which chat model classes take a cap on the output tokens."""
MAX_CAP_REDUCTIONS = 4
"""Most times that the cap on the output of one call is lowered: the error may in fact be about the prompt."""
REPORTS_FINISH_REASON = frozenset({"langchain_openai", "langchain_anthropic"})
"""Packages whose chat models pass on the finish reason. A streamed reply of theirs without one was cut off."""


class CallFailed(RLMError):
    """A model call failed, after its retries. The message quotes the provider's error, without keys."""

    def __init__(
        self,
        code: ErrorCode,
        sentence: str,
        retries: int,
        seconds: float,
        words: str = "",
        fallback: str | None = None,
    ) -> None:
        self.code: ErrorCode = code
        self.fallback = fallback
        """Name of the fallback model that `code` and `words` are about. None: the model itself."""
        self.words = words
        """The provider's message, unchanged. It may contain a key, so it is never displayed."""
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
    raw_of: str | None = None
    """Name of the model whose parser has yet to parse `text`. None: it was parsed, or there is no parser."""
    failed: Literal["unread", "lost"] | None = None
    """Set when there is no usable reply. `unread`: it could not be read, or it was an error that was billed.
    `lost`: it did not arrive, or not completely, and `usage` is what it may have cost."""


class Account(NamedTuple):
    """The reservation of a call, and the function that books its cost."""

    entry: Reservation
    """The reservation of the call. It is checked before each request: other calls may have cost more than
    expected."""
    received: Callable[[Completion], None]
    """Called with the reply as soon as it is paid for, even if a callback fails or the call is cancelled
    afterwards; also called for replies that were lost or could not be parsed."""


async def complete(  # noqa: PLR0913 - a keyword for each part of a call
    model: Model,
    messages: Sequence[BaseMessage],
    *,
    config: RunnableConfig | None = None,
    limiter: AbstractAsyncContextManager[Any] | None = None,
    output_tokens: int | None = None,
    retry: RetryPolicy = RetryPolicy(),
    account: Account | None = None,
    learned: Learned | None = None,
    cacheable: bool = False,
) -> Completion:
    """Call a model, and retry after temporary errors. `limiter` is held while a request is in flight, not between.

    When the model fails, each of its fallbacks is called once before anything is retried. A parameter of ours that
    the provider refuses is sent under its other name, or left out. `learned` holds what a run knows about such
    parameters, and is updated. `cacheable`: later prompts begin with this one.

    Raises `CallFailed`, and `BudgetRefused` when the budget has nothing left for a request. Cancellation, the
    errors of this library, LangGraph's signals and errors raised by callbacks (`raise_error`) pass through
    unchanged.
    """
    call = _Attempts(model.chain, messages, config, output_tokens, account, learned or Learned(), cacheable)
    while True:
        if account is not None:
            await account.entry.renew()
        try:
            async with limiter or nullcontext():
                await call.pace()
                if account is not None and not account.entry.begin():
                    continue
                return await call.ask()
        except Exception as error:
            if isinstance(error, RLMError) or is_graph_signal(error) or _is_from_callback(error):
                call.withdraw()
                raise
            wait = call.failed(error, retry)
        if wait is not None:
            await retry.sleep(wait)


async def parsed_text(model: Model, reply: BaseMessage, config: RunnableConfig | None) -> str:
    """Return the text of a reply, after the parsers that follow the model in its chain.

    Raises `CallFailed` if a parser fails. The reply has arrived and is paid for, so the call is neither repeated
    nor passed to a fallback.
    """
    if model.wrapped is None or not model.wrapped.after:
        return text_of(reply)
    try:
        return text_of(await model.wrapped.parse_reply(reply, config))
    except Exception as error:
        if isinstance(error, RLMError) or is_graph_signal(error) or _is_from_callback(error):
            raise
        said = displayed_words(str(error), secrets_of(model.chat))
        sentence = f"the parser after the model could not read its reply ({type(error).__name__}: {said})"
        raise CallFailed("unknown", sentence, 0, 0.0) from error


@dataclass(slots=True)
class _Attempts:
    """State of one call over all its attempts."""

    chain: tuple[Model, ...]
    """The model and its fallbacks."""
    messages: Sequence[BaseMessage]
    config: RunnableConfig | None
    output_tokens: int | None
    account: Account | None
    learned: Learned
    cacheable: bool
    attempt: int = 0
    """Number of requests so far, to all models of the chain."""
    chain_passes: int = 1
    """Number of the pass through the chain, from 1."""
    chain_index: int = 0
    """Index of the current model in the chain."""
    waited: float = 0.0
    began: float = 0.0
    booked: bool = False
    """Whether the cost of the latest request has been booked."""
    capture: _ReplyCapture | None = None
    renamed_in_request: Mapping[str, str | None] = field(default_factory=dict)
    """Parameters that the latest request sent under another name, or not at all (None)."""
    prompt_tokens: int = 0
    """Tokens of the latest request, by our count."""
    cap: int | None = None
    """Cap on the output of the latest request."""
    lowered_caps: dict[str, int] = field(default_factory=dict)
    """Lowered caps by the name of the model, for providers that refused a higher cap after this prompt."""
    cap_reductions: int = 0
    """Number of times that a cap was lowered."""
    faults: list[ProviderError] = field(default_factory=list)
    """The error of each model that has failed in this pass."""

    @property
    def model(self) -> Model:
        return self.chain[self.chain_index]

    async def pace(self) -> None:
        """Wait for the chat model's own rate limiter. This comes before the budget check, which must be current
        when the request is sent."""
        if self.model.chat.rate_limiter is not None:
            await self.model.chat.rate_limiter.aacquire(blocking=True)

    async def ask(self) -> Completion:
        self.attempt += 1
        self.booked = False
        self.began = self.began or time.monotonic()
        model, wrapped = self.model, self.model.wrapped
        self.capture = capture = _ReplyCapture()
        self.renamed_in_request = dict(self.learned.of(model.name).renamed)
        bound = {} if wrapped is None else dict(wrapped.bound)
        config = self.config if wrapped is None else wrapped.config(self.config)
        messages = self.messages if wrapped is None else await wrapped.prepare_messages(self.messages, config)
        self.prompt_tokens = count_tokens(messages)
        options = bound | self._cap()
        if self.cacheable and model.needs_cache_control:
            messages = with_cache_control(messages)
        chat, config = model.chat, _with_callback(config, capture)
        if chat.rate_limiter is not None:  # `pace` has already waited for it
            chat = chat.model_copy(update={"rate_limiter": None})
        renamed = RENAMED_PARAMETERS.set(self.renamed_in_request)
        try:
            reply: BaseMessage = await chat.ainvoke(list(messages), config, **options)
        except BaseException as error:
            if capture.reply is not None:
                self._accept(capture.reply, capture)
            elif capture.is_without_choices and isinstance(error, Exception):
                raise UnusableReply("holds no choices", capture.body) from error
            if isinstance(error, ForeignExit) or ends_more_than_its_work(error):
                raise self._exit_error(error) from error
            raise
        finally:
            RENAMED_PARAMETERS.reset(renamed)
        completion = self._accept(reply, capture)
        if wrapped is not None and wrapped.after:
            completion = replace(completion, text=await self._parsed_text(reply), raw_of=None)
        return completion

    def _accept(self, reply: BaseMessage, capture: _ReplyCapture) -> Completion:
        text, from_cache = text_of(reply), _is_from_cache(self.model.chat, reply)
        finish, used = finish_of(reply), getattr(reply, "usage_metadata", None)
        if finish == "error" and shows_nothing(text) and not getattr(reply, "tool_calls", None):
            raise UnusableReply("ended with an error of the server", {"usage": used and dict(used)})
        if finish is None and capture.is_streamed and _reports_finish_reason(self.model.chat):
            if not text and not getattr(reply, "tool_calls", None) and not used:
                raise UnusableReply("broke off before its first word")
            finish = "incomplete"
        all_text = f"{text}{capture.other_replies}"
        usage = Usage() if from_cache else usage_of(self.model, self.messages, reply, all_text, capture.streamed)
        raw_of = self.model.name if self.model.wrapped is not None and self.model.wrapped.after else None
        completion = Completion(text, usage, self.seconds, self.attempt - 1, finish, from_cache, raw_of)
        self.booked = True
        if self.account is not None:
            self.account.received(completion)
        return completion

    async def _parsed_text(self, reply: BaseMessage) -> str:
        try:
            return await parsed_text(self.model, reply, self.config)
        except CallFailed as failed:
            failed.retries, failed.seconds = self.attempt - 1, self.seconds
            raise

    def _exit_error(self, error: BaseException) -> RLMError:
        """Return the error for a model, or a callback, that tried to end the process."""
        cause = (error.__cause__ or error) if isinstance(error, ForeignExit) else error
        if _is_from_callback(cause):
            return ForeignExit(cause)
        log_failure(f"{self.model.name} raised an exit", cause, secrets_of(self.model.chat))
        return CallFailed("unknown", f"the model raised {type(cause).__name__}", self.attempt - 1, self.seconds)

    def withdraw(self) -> None:
        """Record that the latest request cost nothing."""
        if self.account is not None and not self.booked:
            self.account.entry.withdraw()

    def _book(self, fault: ProviderError) -> None:
        """Book the cost of a request without a reply, as far as it can be known."""
        if self.booked or self.account is None:
            return
        used = usage_in_error(self.model, fault.usage)
        arrival = "lost" if fault.arrival == "none" and self.capture and self.capture.has_text else fault.arrival
        if used is None and arrival != "none":
            used = worst_case_usage(self.account.entry.wanted)
        if used is None:
            self.withdraw()
            return
        lost = arrival == "lost" and fault.usage is None
        failed: Literal["unread", "lost"] = "lost" if lost else "unread"
        self.account.received(Completion("", used, self.seconds, self.attempt - 1, None, failed=failed))

    def failed(self, error: Exception, retry: RetryPolicy) -> float | None:
        """Return the seconds to wait before the next attempt; None: none. Raises `CallFailed` if there will be no
        further attempt."""
        secrets = secrets_of(self.model.chat)
        log_failure(f"{self.model.name} raised an error", error, secrets)
        fault = classify_error(error, secrets)
        self._book(fault)
        if (parameter := refused_parameter(fault)) is not None:
            if self._rename_or_drop(parameter):
                return None
            fault = replace(fault, message=f"{fault.message}; {self._parameter_advice(parameter)}")
        elif self._lower_cap(fault):
            return None
        self.faults.append(fault)
        if self.chain_index + 1 < len(self.chain) and isinstance(error, self.chain[0].handled):
            self.chain_index += 1
            self.learned.add_note(
                f"{self.chain[self.chain_index - 1].name} failed ({fault.message}): {self.model.name} was asked"
            )
            return None
        return self._wait(retry)

    def _wait(self, retry: RetryPolicy) -> float:
        """Return the seconds to wait before the next pass through the chain. Raises `CallFailed` after the last."""
        fault = next((fault for fault in self.faults if fault.retryable), self.faults[-1])
        wait = retry.wait(self.chain_passes, fault)
        self.waited += wait
        if not fault.retryable or retry.gives_up(self.chain_passes, self.waited):
            several = "; ".join(
                f"{model.name}: {one.message}" for model, one in zip(self.chain, self.faults, strict=False)
            )
            message = several if len(self.faults) > 1 else fault.message
            # Of several errors, the caller can do something about this one: send a shorter prompt.
            fault = next((one for one in self.faults if one.code == "too_long"), fault)
            at = next(index for index, one in enumerate(self.faults) if one is fault)
            fallback = self.chain[at].name if at else None
            # A chained error would print the provider's words unchanged, and they may contain a key.
            raise CallFailed(fault.code, message, self.attempt - 1, self.seconds, fault.words, fallback) from None
        self.chain_passes += 1
        self.chain_index, self.faults = 0, []
        return wait

    def _cap(self) -> dict[str, int]:
        """Return the cap on the output as a keyword argument; empty if the model's own cap applies."""
        name, own = accepts_output_cap(self.model.chat), own_cap(self.model)
        asked = [
            cap for cap in (own, self.output_tokens, self.lowered_caps.get(self.model.name)) if cap is not None
        ]
        facts, self.cap = self.learned.of(self.model.name), None
        if name is None or not asked:
            return {}
        self.cap = facts.most_output(min(asked), self.model.window, self.prompt_tokens)
        return {} if self.output_tokens is None and self.cap == own else {name: self.cap}

    def _lower_cap(self, fault: ProviderError) -> bool:
        """Lower the cap of the next request if the provider has refused it. Return whether it was lowered."""
        if self.cap is None or self.cap_reductions == MAX_CAP_REDUCTIONS:
            return False
        lower = self.learned.cap_refused(self.model.name, fault, self.cap, self.prompt_tokens)
        if lower is None:
            return False
        self.lowered_caps[self.model.name] = lower
        self.cap_reductions += 1
        return True

    def _rename_or_drop(self, parameter: str) -> bool:
        """Rename or leave out a parameter in the next request. False: that is not allowed, or was tried already."""
        name, renamed = self.model.name, self.learned.of(self.model.name).renamed
        if (
            parameter in self.renamed_in_request
            or parameter in NEVER_DROPPED
            or not uses_shared_http(self.model.chat)
        ):
            return False
        if parameter in CAP_NAMES:
            other = OTHER_CAP_NAME.get(parameter)
            if other is None or other in self.renamed_in_request:
                return False
            renamed[parameter] = other
            self.learned.add_note(f"{name} does not accept {parameter!r}: the output limit is sent as {other!r}")
            return True
        if is_set_by_user(self.model, parameter):
            return False
        renamed[parameter] = None
        self.learned.add_note(f"{name} does not accept {parameter!r}: it is left out")
        return True

    def _parameter_advice(self, parameter: str) -> str:
        """Return what the user can do about a parameter that cannot be left out, for an error message."""
        if parameter in CAP_NAMES and is_set_by_user(self.model, parameter):
            return f"you have set {parameter!r} on the model: remove it, or set it under the accepted name"
        if parameter in CAP_NAMES:
            return (
                "it accepts no name for the output limit, and without one the limits on tokens and dollars cannot "
                "be guaranteed: limit `calls` or `seconds` instead, or use another model"
            )
        if is_set_by_user(self.model, parameter):
            return f"you have set {parameter!r} on the model: remove it"
        return f"its class sends {parameter!r}: use another class, or another model"

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
        self.is_streamed = False
        self.has_text = False
        """Whether a part of the reply has arrived."""
        self.is_without_choices = False
        self.body: Any = None
        """The known part of the body of a reply without choices: its `usage`."""
        self._tokens_since_report = 0

    async def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """Keep the usage that a chunk reports."""
        self.is_streamed = True
        self.has_text = self.has_text or bool(token)
        self._tokens_since_report += tokens_in(token) if isinstance(token, str) else 0
        if reported := getattr(getattr(chunk, "message", None), "usage_metadata", None):
            self.streamed.append(StreamedUsage(reported, self._tokens_since_report))
            self._tokens_since_report = 0

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Keep the reply."""
        given = response.generations[0] if response.generations else []
        self.is_without_choices = not given
        self.body = {"usage": (response.llm_output or {}).get("token_usage")}
        messages = [one.message for one in given if isinstance(one, ChatGeneration)]
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


def own_cap(model: Model) -> int | None:
    """Return the lowest cap on the output that a user has set on a model or bound to it, or None."""
    name, bound = accepts_output_cap(model.chat), {} if model.wrapped is None else model.wrapped.bound
    own = [None if name is None else getattr(model.chat, name), *(bound.get(cap) for cap in _CAPS)]
    # LangChain's Ollama class uses -1 for "no cap".
    return min((cap for cap in own if isinstance(cap, int) and cap > 0), default=None)


def is_set_by_user(model: Model, parameter: str) -> bool:
    """Return whether a user has set this parameter of a model, rather than its class or this library."""
    chat, bound = model.chat, {} if model.wrapped is None else model.wrapped.bound
    if parameter == "stream_options":
        return "stream_options" in bound
    more = (getattr(chat, name, None) or {} for name in ("model_kwargs", "extra_body"))
    cap = accepts_output_cap(chat) if parameter in CAP_NAMES else None
    fields = {parameter} if cap is None else {cap}
    return (
        parameter in bound
        or any(isinstance(one, Mapping) and parameter in one for one in more)
        or any(name in chat.model_fields_set and getattr(chat, name, None) is not None for name in fields)
    )


def _reports_finish_reason(chat: BaseChatModel) -> bool:
    return not REPORTS_FINISH_REASON.isdisjoint(kind.__module__.partition(".")[0] for kind in type(chat).__mro__)


def _is_from_callback(error: BaseException) -> bool:
    """Return whether a callback raised the error. LangChain lets it through only if the callback wants to stop."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "langchain_core.callbacks.manager" for frame in frames)
