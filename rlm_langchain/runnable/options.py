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
from rlm_langchain.graph.calls.tools import tools_of
from rlm_langchain.models.registry import check_kind
from rlm_langchain.retrieval import option as retriever
from rlm_langchain.sandboxes import choose
from rlm_langchain.validation import check_names

P = ParamSpec("P")
R = TypeVar("R")

FIELD, ALIAS = "answer_schema", "output_schema"
"""The field of `RLMRunnable` whose option has another name, because every Runnable already has that attribute."""


def _checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Return a validator that calls `check`, which may raise, and leaves the value unchanged."""

    def validate(given: Any) -> Any:
        check(given)
        return given

    return AfterValidator(validate)


def _models(given: Any) -> None:
    several = given if isinstance(given, list | tuple) else [] if given is None else [given]
    if given is not None and not several:
        raise ConfigurationError("recursive_model=[] names no model: leave it out for the root model")
    for one in several:
        check_kind(one)


def _schema(given: Any) -> None:
    if given is not None:
        AnswerSchema(given)


AModel = Annotated[Any, AfterValidator(check_kind)]
Models = Annotated[Any, _checked_by(_models)]
SomeTools = Annotated[Sequence[Any], _checked_by(tools_of)]
SomeFunctions = Annotated[Sequence[Any], _checked_by(functions_of)]
ASandbox = Annotated[Any, _checked_by(choose.check)]
ASchema = Annotated[Any, _checked_by(_schema)]
ARetriever = Annotated[Any, _checked_by(retriever.check_option)]
ASaver = Annotated[Any, _checked_by(checkpointer.check_checkpointer)]


def known_options(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function raise `ConfigurationError` for an unknown keyword, suggesting the nearest one."""
    known = inspect.signature(function).parameters.keys() - {"self"}

    @wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        if FIELD in options:  # as LangChain passes it, by the name of the field
            options[ALIAS] = options.pop(FIELD)
        check_names(options, known)
        return function(*args, **options)

    return called


CONFIGURED = "__rlm_configured__"
"""Under `configurable`: the options there have been seen to, by `configurable_fields`."""
OF_A_CALL = frozenset(
    {"stream_mode", "print_mode", "output_keys", "interrupt_before", "interrupt_after", "durability", "control"}
    | {"subgraphs", "debug", "version", "checkpoint_during"}
)
"""The keywords of LangGraph's `stream` and `invoke`, which a call of an RLM takes as well."""
OF_A_MODEL = frozenset(
    {"stop", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "n", "logprobs"}
    | {"tool_choice", "response_format", "reasoning", "reasoning_effort", "timeout", "max_retries", "model"}
    | {"frequency_penalty", "presence_penalty", "extra_body", "model_kwargs", "parallel_tool_calls"}
)
"""Keywords that people bind to chat models, and so perhaps to an RLM."""
_LEFT_TO_CALL = (
    "give it to create_rlm({0}=...), or leave it to the call with rlm.configurable_fields({1}="
    "ConfigurableField(id={0!r})) and a config of {{'configurable': {{{0!r}: ...}}}}"
)


def _left_to_call(option: str) -> str:
    return _LEFT_TO_CALL.format(option, FIELD if option == ALIAS else option)


def check_call(given: Iterable[str], options: Iterable[str]) -> None:
    """Raise `ConfigurationError` for a keyword that no call takes, which LangChain would drop in silence."""
    for name in given:
        if name in OF_A_CALL:
            continue
        if name in options:
            raise ConfigurationError(f"a call takes no {name!r}: {_left_to_call(name)}")
        if name in RunnableConfig.__annotations__:
            raise ConfigurationError(f"a call takes no {name!r} but in its config: config={{{name!r}: ...}}")
        if name in ("context", "query"):
            raise ConfigurationError(
                f'a call takes no {name!r}: give it with the question, {{"query": ..., "context": ...}}'
            )
        if name in OF_A_MODEL:
            raise ConfigurationError(
                f"a call takes no {name!r}, which is for a model: give it to those of the RLM, as in "
                f"create_rlm(model.bind({name}=...))"
            )
        check_names([name], OF_A_CALL | {*options} | {*RunnableConfig.__annotations__})


def check_config(config: object) -> None:
    """Raise `ConfigurationError` for a config that is none, such as the bare name of a thread."""
    if config is not None and not isinstance(config, Mapping):
        raise ConfigurationError(
            f"config={reprlib.repr(config)} cannot be used: give a dict, such as "
            "{'configurable': {'thread_id': 'a name'}}"
        )


def check_batch(inputs: object, config: object) -> None:
    """Raise `ConfigurationError` for a batch that is no list, such as a text, whose letters would be asked."""
    if not isinstance(inputs, list | tuple):
        raise ConfigurationError(f"a batch takes a list of inputs, not a {type(inputs).__name__}")
    if isinstance(config, Sequence) and len(config) != len(inputs):
        raise ConfigurationError(
            f"a batch of {len(inputs)} inputs was given {len(config)} configs: give one for all, or one for each"
        )


def check_configurable(config: RunnableConfig, given: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for an option under `configurable` that is left out, as this RLM does not leave it
    to calls. Within a chain or a graph it may be meant for another step."""
    others = {name: value for name, value in config.items() if name not in RunnableConfig.__annotations__}
    settings = {**others, **(config.get("configurable") or {})}  # LangChain puts the others there too
    callbacks = config.get("callbacks")
    is_within = isinstance(callbacks, BaseCallbackManager) and callbacks.parent_run_id is not None
    if CONFIGURED in settings or is_within:
        return
    for name in settings.keys() & given.keys():
        if settings[name] is not given[name]:
            raise ConfigurationError(
                f"this RLM does not leave {name!r} to its calls, so `configurable` cannot set it: "
                f"{_left_to_call(name)}"
            )


class LeftToCalls(RunnableConfigurableFields):  # type: ignore[type-arg]  # pydantic has no methods for [Any, Any]
    """LangChain's, of an RLM, which is told that the options under `configurable` are not left out."""

    def _prepare(self, config: RunnableConfig | None = None) -> tuple[Any, RunnableConfig]:
        rlm, prepared = super()._prepare(config)
        return rlm, {**prepared, "configurable": {**prepared.get("configurable", {}), CONFIGURED: True}}
