"""Finds the chat models inside LangChain's wrappers: `.bind()`, `.with_config()`, `.with_retry()`,
`.with_fallbacks()`, `.configurable_fields()`, `.configurable_alternatives()`, `init_chat_model` with configurable
fields, and sequences such as `prompt | model | parser`.

Bound arguments, configs, prompts and text parsers are kept. Each fallback becomes a separate model with its own
price and context window. The retries of `.with_retry()` are replaced by ours, which the ledger counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.output_parsers import BaseOutputParser
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

MAX_WRAPPERS = 20
"""Most wrappers around one model."""


@dataclass(frozen=True, slots=True)
class WrappedChat:
    """A chat model and the wrappers around each of its calls."""

    chat: BaseChatModel
    bound: Mapping[str, Any]
    """Arguments of each call, from `.bind()`."""
    bindings: tuple[RunnableBindingBase[Any, Any], ...] = ()
    """Bindings that add to the config of each call, the outermost first."""
    before: tuple[Runnable[Any, Any], ...] = ()
    """Steps before the model in its chain, such as a prompt. They take our messages and return messages."""
    after: tuple[Runnable[Any, Any], ...] = ()
    """Steps after the model in its chain: parsers that return a text."""

    def config(self, config: RunnableConfig | None) -> RunnableConfig:
        """Return the config of a call, with the configs of all bindings."""
        merged = config or {}
        for binding in self.bindings:
            merged = binding._merge_configs(merged)
        return merged

    async def prepare_messages(
        self, messages: Sequence[BaseMessage], config: RunnableConfig | None
    ) -> Sequence[BaseMessage]:
        """Return the messages after the steps before the model.

        Raises `ConfigurationError` if these return anything else.
        """
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
            f"the steps before the model {type(self.chat).__name__} turn its messages into a "
            f"{type(made).__name__}; they must return messages"
        )

    async def parse_reply(self, reply: BaseMessage, config: RunnableConfig | None) -> BaseMessage:
        """Return the reply with its text replaced by the result of the steps after the model.

        Raises `ConfigurationError` if these return anything but a text or a message.
        """
        made: Any = reply
        for step in self.after:
            made = await step.ainvoke(made, config)
        if isinstance(made, BaseMessage):
            return made
        if isinstance(made, str):
            return reply.model_copy(update={"content": made})
        raise ConfigurationError(_no_text_message(self.after[-1], type(made).__name__))


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """The chat models that were found inside wrappers."""

    chats: tuple[WrappedChat, ...]
    """The model and its fallbacks, in order."""
    handled: tuple[type[BaseException], ...] = (Exception,)
    """Errors after which the next fallback is called."""
    dynamic: bool = False
    """Whether the config of a call may choose other models."""


def unwrap(given: Any, config: RunnableConfig | None = None, depth: int = 0) -> Unwrapped:
    """Find the chat models inside `given`, as chosen by this config.

    Raises `ConfigurationError` if there are none.
    """
    if isinstance(given, BaseChatModel):
        return Unwrapped((WrappedChat(given, {}),))
    if depth > MAX_WRAPPERS:
        raise ConfigurationError(f"a model is wrapped more than {MAX_WRAPPERS} times: give the chat model itself")
    if isinstance(given, RunnableBindingBase):
        return _unwrap_binding(given, unwrap(given.bound, _config_of(given, config), depth + 1))
    if isinstance(given, RunnableWithFallbacks):
        return _unwrap_fallbacks(given, config, depth)
    if isinstance(given, DynamicRunnable):
        chosen, chosen_config = given.prepare(config)
        return replace(unwrap(chosen, chosen_config, depth + 1), dynamic=True)
    if isinstance(given, RunnableSequence):
        return _unwrap_sequence(given, config, depth)
    if type(given).__name__ == "_ConfigurableModel":
        return replace(unwrap(_build_configured(given, config), config, depth + 1), dynamic=True)
    raise ConfigurationError(
        f"a {type(given).__name__} hides which chat model it calls, if any, so its calls could be neither counted "
        "nor capped: give the chat model, or one with .bind(), .with_config(), .with_fallbacks(), a prompt or a "
        "text parser"
    )


def _config_of(given: Any, config: RunnableConfig | None) -> RunnableConfig:
    return given._merge_configs(config or {})  # type: ignore[no-any-return]


def _unwrap_binding(given: Any, inner: Unwrapped) -> Unwrapped:
    chats = [
        replace(one, bound={**one.bound, **given.kwargs}, bindings=(given, *one.bindings)) for one in inner.chats
    ]
    return replace(inner, chats=tuple(chats))


def _unwrap_fallbacks(given: Any, config: RunnableConfig | None, depth: int) -> Unwrapped:
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


def _unwrap_sequence(given: Any, config: RunnableConfig | None, depth: int) -> Unwrapped:
    """Return the model of a sequence with the steps before and after it. Raises `ConfigurationError` unless exactly
    one step is a model."""
    steps: list[Any] = list(given.steps)
    models = [number for number, step in enumerate(steps) if _is_model(step, config, depth)]
    if len(models) != 1:
        names = " | ".join(type(step).__name__ for step in steps)
        raise ConfigurationError(
            f"the chain {names} has {len(models)} chat models; an RLM calls one: give prompt | model | parser, or "
            "the model alone"
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
    """Raise `ConfigurationError` unless the prompt has one variable, which takes messages."""
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
            f"the prompt before the model has the variables {wanted}; an RLM fills in one, a MessagesPlaceholder "
            "that takes the messages: give the others with .partial(...)"
        )


def _check_parser(step: Any) -> None:
    try:
        made = step.OutputType
    except Exception:  # noqa: BLE001 - the type is unknown until the first reply
        return
    is_unknown = made is Any or made is object  # `Any` is a class from Python 3.11 on
    if is_unknown and isinstance(step, BaseOutputParser):
        raise ConfigurationError(_no_text_message(step, "value of any type"))
    if is_unknown:  # of a function without annotations, say
        return
    kinds = get_args(made) or (made,)
    plain = all(isinstance(kind, type) and issubclass(kind, str | BaseMessage) for kind in kinds)
    if isinstance(made, type) and not plain:
        raise ConfigurationError(_no_text_message(step, made.__name__))
    if get_args(made) and not plain:
        raise ConfigurationError(_no_text_message(step, str(made)))


def _no_text_message(step: Any, made: str) -> str:
    return (
        f"the {type(step).__name__} after the model turns its replies into a {made}, and an RLM reads text: "
        "leave it out. For a typed answer, use output_schema="
    )


def _build_configured(given: Any, config: RunnableConfig | None) -> Any:
    """Return the model that an `init_chat_model` with configurable fields builds for a config."""
    try:
        return given._model(config or {})
    except Exception as error:  # noqa: BLE001 - its message could contain a key
        raise ConfigurationError(
            f"a configurable model cannot be built without more of its config ({type(error).__name__}): give it a "
            "default, as in init_chat_model('openai:gpt-4o', configurable_fields='any')"
        ) from None
