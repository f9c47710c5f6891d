"""Validation of the options of an RLM, at the moment they are set."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.configurable import RunnableConfigurableFields
from pydantic import AfterValidator

from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.durability import checkpointer
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.graph.calls.functions import functions_of
from rlm_langchain.graph.calls.tools import tools_by_name
from rlm_langchain.models.registry import check_kind
from rlm_langchain.retrieval import option as retriever
from rlm_langchain.sandboxes import choose
from rlm_langchain.validation import check_names

P = ParamSpec("P")
R = TypeVar("R")

SCHEMA_FIELD, SCHEMA_ALIAS = "answer_schema", "output_schema"
"""The field of `RLMRunnable` whose option has another name, because every Runnable already has that attribute."""


def _checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Return a validator that calls `check`, which may raise, and leaves the value unchanged."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


def _check_models(value: Any) -> None:
    models = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if value is not None and not models:
        raise ConfigurationError("recursive_model=[] names no model: leave it out for the root model")
    for one in models:
        check_kind(one)


def _check_schema(value: Any) -> None:
    if value is not None:
        AnswerSchema(value)


ModelOption = Annotated[Any, AfterValidator(check_kind)]
SubModelsOption = Annotated[Any, _checked_by(_check_models)]
ToolsOption = Annotated[Sequence[Any], _checked_by(tools_by_name)]
FunctionsOption = Annotated[Sequence[Any], _checked_by(functions_of)]
SandboxOption = Annotated[Any, _checked_by(choose.check)]
SchemaOption = Annotated[Any, _checked_by(_check_schema)]
RetrieverOption = Annotated[Any, _checked_by(retriever.check_option)]
CheckpointerOption = Annotated[Any, _checked_by(checkpointer.check_checkpointer)]


def known_options(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function raise `ConfigurationError` for an unknown keyword, suggesting the nearest one."""
    names = inspect.signature(function).parameters.keys() - {"self"}

    @wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        if SCHEMA_FIELD in options:  # LangChain passes it by the name of the field
            options[SCHEMA_ALIAS] = options.pop(SCHEMA_FIELD)
        check_names(options, names)
        return function(*args, **options)

    return checked


CONFIGURED_KEY = "__rlm_configured__"
"""The key under `configurable` that says that `configurable_fields` has applied the options there."""
CALL_KEYWORDS = frozenset(
    {"stream_mode", "print_mode", "output_keys", "interrupt_before", "interrupt_after", "durability", "control"}
    | {"subgraphs", "debug", "version", "checkpoint_during"}
)
"""The keywords of LangGraph's `stream` and `invoke`, which a call of an RLM accepts, too."""
MODEL_KEYWORDS = frozenset(
    {"stop", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "n", "logprobs"}
    | {"tool_choice", "response_format", "reasoning", "reasoning_effort", "timeout", "max_retries", "model"}
    | {"frequency_penalty", "presence_penalty", "extra_body", "model_kwargs", "parallel_tool_calls"}
)
"""Keywords of chat models, which people may try to bind to an RLM. An error names the right place for them."""
_ADVICE = (
    "give it to create_rlm({0}=...), or leave it to the call with rlm.configurable_fields({1}="
    "ConfigurableField(id={0!r})) and a config of {{'configurable': {{{0!r}: ...}}}}"
)


def _advice(option: str) -> str:
    return _ADVICE.format(option, SCHEMA_FIELD if option == SCHEMA_ALIAS else option)


def check_call(names: Iterable[str], options: Iterable[str]) -> None:
    """Raise `ConfigurationError` for a keyword that no call accepts. LangChain would drop it in silence.

    `options` are the names of the options of an RLM.
    """
    for name in names:
        if name in CALL_KEYWORDS:
            continue
        if name in options:
            raise ConfigurationError(f"a call takes no {name!r}: {_advice(name)}")
        if name in RunnableConfig.__annotations__:
            raise ConfigurationError(f"a call takes no {name!r} but in its config: config={{{name!r}: ...}}")
        if name in ("context", "query"):
            raise ConfigurationError(
                f'a call takes no {name!r}: give it with the question, {{"query": ..., "context": ...}}'
            )
        if name in MODEL_KEYWORDS:
            raise ConfigurationError(
                f"a call takes no {name!r}, which is for a model: give it to those of the RLM, as in "
                f"create_rlm(model.bind({name}=...))"
            )
        check_names([name], CALL_KEYWORDS | {*options} | {*RunnableConfig.__annotations__})


def check_config(config: object) -> None:
    """Raise `ConfigurationError` for a config that is no dict, such as the name of a thread."""
    if config is not None and not isinstance(config, Mapping):
        raise ConfigurationError(
            f"config={reprlib.repr(config)} cannot be used: give a dict, such as "
            "{'configurable': {'thread_id': 'a name'}}"
        )


def check_batch(inputs: object, config: object) -> None:
    """Raise `ConfigurationError` for a batch that is no list, such as a text, whose characters would be the
    questions, and for a list of configs of another length."""
    if not isinstance(inputs, list | tuple):
        raise ConfigurationError(f"a batch takes a list of inputs, not a {type(inputs).__name__}")
    if isinstance(config, Sequence) and len(config) != len(inputs):
        raise ConfigurationError(
            f"a batch of {len(inputs)} inputs was given {len(config)} configs: give one for all, or one for each"
        )


def check_configurable(config: RunnableConfig, options: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for an option under `configurable` that has no effect, because this RLM does not
    leave it to its calls. Within a chain or a graph it is ignored, because it may be for another step."""
    other_keys = {name: value for name, value in config.items() if name not in RunnableConfig.__annotations__}
    settings = {**other_keys, **(config.get("configurable") or {})}  # LangChain moves other keys there, too
    callbacks = config.get("callbacks")
    is_within = isinstance(callbacks, BaseCallbackManager) and callbacks.parent_run_id is not None
    if CONFIGURED_KEY in settings or is_within:
        return
    for name in settings.keys() & options.keys():
        if settings[name] is not options[name]:
            raise ConfigurationError(
                f"this RLM does not leave {name!r} to its calls, so `configurable` cannot set it: {_advice(name)}"
            )


class ConfigurableRLM(RunnableConfigurableFields):  # type: ignore[type-arg]  # pydantic has no methods for [Any, Any]
    """An RLM that leaves options to its calls. It marks its configs, so that `check_configurable` accepts the
    options."""

    def _prepare(self, config: RunnableConfig | None = None) -> tuple[Any, RunnableConfig]:
        rlm, prepared = super()._prepare(config)
        return rlm, {**prepared, "configurable": {**prepared.get("configurable", {}), CONFIGURED_KEY: True}}
