"""Finds the chat models in what LangChain wraps around them: `.bind()`, `.with_config()`, `.with_retry()`,
`.with_fallbacks()`, `.configurable_fields()`, `.configurable_alternatives()`, `init_chat_model` with fields to be
set later, and sequences such as `prompt | model | parser`.

What is bound is kept, and so are configs, prompts and parsers of text. Fallbacks become models of their own, so
that each has its price and its window. The retries of `.with_retry()` are replaced by ours, which the ledger sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable

from rlm_langchain.errors import ConfigurationError

DEEPEST = 20
"""Wrappers around one model."""


@dataclass(frozen=True, slots=True)
class WrappedChat:
    """A chat model, and what is done around each of its calls."""

    chat: BaseChatModel
    bound: Mapping[str, Any]
    """Arguments of each call, from `.bind()`."""
    bindings: tuple[RunnableBindingBase[Any, Any], ...] = ()
    """What adds its config to each call's, the outermost first."""
    before: tuple[Runnable[Any, Any], ...] = ()
    """What makes the messages that the model gets out of ours."""
    after: tuple[Runnable[Any, Any], ...] = ()
    """What makes text out of its reply."""

    def config(self, config: RunnableConfig | None) -> RunnableConfig:
        """The config of a call."""
        merged = config or {}
        for binding in self.bindings:
            merged = binding._merge_configs(merged)
        return merged

    async def prepared(
        self, messages: Sequence[BaseMessage], config: RunnableConfig | None
    ) -> Sequence[BaseMessage]:
        """The messages as the model gets them. Raises `ConfigurationError` when a step makes something else."""
        made: Any = messages
        for step in self.before:
            made = await step.ainvoke(made, config)
        if not self.before:
            return messages
        if isinstance(made, PromptValue):
            return made.to_messages()
        if isinstance(made, str):
            return [HumanMessage(made)]
        if isinstance(made, list) and all(isinstance(one, BaseMessage) for one in made):
            return made
        raise ConfigurationError(
            f"what stands before the model {type(self.chat).__name__} makes a {type(made).__name__} of the "
            f"messages "
            "that it is given; it must make messages"
        )

    async def text_after(self, reply: BaseMessage, config: RunnableConfig | None) -> BaseMessage:
        """The reply with the text that the steps behind the model make of it."""
        made: Any = reply
        for step in self.after:
            made = await step.ainvoke(made, config)
        if isinstance(made, BaseMessage):
            return made
        if isinstance(made, str):
            return reply.model_copy(update={"content": made})
        raise ConfigurationError(_no_text(self.after[-1], type(made).__name__))


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """What was found."""

    chats: tuple[WrappedChat, ...]
    """The model, and those that are asked when it fails, in order."""
    handled: tuple[type[BaseException], ...] = (Exception,)
    """Errors after which the next one is asked."""
    dynamic: bool = False
    """Whether the config of a call may choose others."""


def unwrap(given: Any, config: RunnableConfig | None = None, depth: int = 0) -> Unwrapped:
    """Find the chat models in `given`, as this config chooses them. Raises `ConfigurationError` if there are
    none."""
    if isinstance(given, BaseChatModel):
        return Unwrapped((WrappedChat(given, {}),))
    if depth > DEEPEST:
        raise ConfigurationError(f"a model is wrapped more than {DEEPEST} times: give the chat model itself")
    if isinstance(given, RunnableBindingBase):
        return _of_binding(given, unwrap(given.bound, _config_of(given, config), depth + 1))
    if isinstance(given, RunnableWithFallbacks):
        return _of_fallbacks(given, config, depth)
    if isinstance(given, DynamicRunnable):
        chosen, chosen_config = given.prepare(config)
        return replace(unwrap(chosen, chosen_config, depth + 1), dynamic=True)
    if isinstance(given, RunnableSequence):
        return _of_sequence(given, config, depth)
    if type(given).__name__ == "_ConfigurableModel":
        return replace(unwrap(_configured(given, config), config, depth + 1), dynamic=True)
    raise ConfigurationError(
        f"a {type(given).__name__} hides which chat model it calls, if any, so its calls could be neither "
        f"counted nor "
        "capped: give the chat model, or one with .bind(), .with_config(), .with_fallbacks(), a prompt or a "
        "text parser"
    )


def _config_of(given: Any, config: RunnableConfig | None) -> RunnableConfig:
    return given._merge_configs(config or {})  # type: ignore[no-any-return]


def _of_binding(given: Any, inner: Unwrapped) -> Unwrapped:
    chats = [
        replace(one, bound={**one.bound, **given.kwargs}, bindings=(given, *one.bindings)) for one in inner.chats
    ]
    return replace(inner, chats=tuple(chats))


def _of_fallbacks(given: Any, config: RunnableConfig | None, depth: int) -> Unwrapped:
    if given.exception_key is not None:
        raise ConfigurationError(
            "a model with_fallbacks(exception_key=...) takes dicts, and an RLM gives messages: leave out the key"
        )
    each = [unwrap(one, config, depth + 1) for one in given.runnables]
    return Unwrapped(
        tuple(chat for one in each for chat in one.chats),
        tuple(given.exceptions_to_handle),
        any(one.dynamic for one in each),
    )


def _of_sequence(given: Any, config: RunnableConfig | None, depth: int) -> Unwrapped:
    """The one step that is a model, with what stands before and behind it."""
    steps: list[Any] = list(given.steps)
    models = [number for number, step in enumerate(steps) if _is_model(step, config, depth)]
    if len(models) != 1:
        names = " | ".join(type(step).__name__ for step in steps)
        raise ConfigurationError(
            f"the chain {names} has {len(models)} chat models; an RLM asks one: give prompt | model | parser, "
            f"or the "
            "model alone"
        )
    before, after = steps[: models[0]], steps[models[0] + 1 :]
    for step in before:
        _check_prompt(step)
    if after:
        _check_parser(after[-1])
    inner = unwrap(steps[models[0]], config, depth + 1)
    chats = [replace(one, before=(*before, *one.before), after=(*one.after, *after)) for one in inner.chats]
    return replace(inner, chats=tuple(chats))


def _is_model(step: Any, config: RunnableConfig | None, depth: int) -> bool:
    try:
        unwrap(step, config, depth + 1)
    except ConfigurationError:
        return False
    return True


def _check_prompt(step: Any) -> None:
    """Raise `ConfigurationError` for a prompt that has no place for messages, or more than one to be filled in."""
    if not isinstance(step, BasePromptTemplate):
        return
    wanted = list(step.input_variables)
    places = [
        message.variable_name
        for message in (step.messages if isinstance(step, ChatPromptTemplate) else ())
        if isinstance(message, MessagesPlaceholder)
    ]
    if len(wanted) != 1 or wanted[0] not in places:
        raise ConfigurationError(
            f"the prompt before the model has the variables {wanted}; an RLM fills in one, a "
            f"MessagesPlaceholder that "
            "takes the messages: give the others with .partial(...)"
        )


def _check_parser(step: Any) -> None:
    try:
        made = step.OutputType
    except Exception:  # noqa: BLE001 - it does not say: the first reply will show
        return
    if made is Any or made is object:  # a function without annotations, say; `Any` is a class from Python 3.11 on
        return
    kinds = get_args(made) or (made,)
    plain = all(isinstance(kind, type) and issubclass(kind, str | BaseMessage) for kind in kinds)
    if isinstance(made, type) and not plain:
        raise ConfigurationError(_no_text(step, made.__name__))
    if get_args(made) and not plain:
        raise ConfigurationError(_no_text(step, str(made)))


def _no_text(step: Any, made: str) -> str:
    return (
        f"the {type(step).__name__} behind the model makes a {made} of its replies, and an RLM reads text: "
        f"leave it "
        "out. For an answer of a type, there is output_schema="
    )


def _configured(given: Any, config: RunnableConfig | None) -> Any:
    """What `init_chat_model` makes by a config."""
    try:
        return given._model(config or {})
    except Exception as error:  # noqa: BLE001 - whose words could hold a key
        raise ConfigurationError(
            f"a configurable model cannot be built without more of its config ({type(error).__name__}): give it a "
            "default, as in init_chat_model('openai:gpt-4o', configurable_fields='any')"
        ) from None
