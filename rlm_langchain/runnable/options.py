"""The options of an RLM that are told to be wrong as soon as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.graph.calls.functions import functions_of
from rlm_langchain.graph.calls.tools import tools_of
from rlm_langchain.models.registry import check_kind


def _models(given: Any) -> Any:
    several = given if isinstance(given, list | tuple) else [given]
    if not several:
        raise ConfigurationError("recursive_model=[] names no model: leave it out for the root model")
    for one in several:
        check_kind(one)
    return given


def _tools(given: Any) -> Any:
    tools_of(given)
    return given


def _functions(given: Any) -> Any:
    functions_of(given)
    return given


AModel = Annotated[Any, AfterValidator(check_kind)]
Models = Annotated[Any, AfterValidator(lambda given: None if given is None else _models(given))]
SomeTools = Annotated[Sequence[Any], AfterValidator(_tools)]
SomeFunctions = Annotated[Sequence[Any], AfterValidator(_functions)]
