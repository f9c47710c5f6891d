"""Validation of the options of an RLM, at the moment they are set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

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
ARetriever = Annotated[Any, _checked_by(retriever.check)]
ASaver = Annotated[Any, _checked_by(checkpointer.check)]


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
