"""Typed replies of a `ChatRLM`: the ways to ask for a schema, and what reads a reply that fits one."""

from __future__ import annotations

from typing import Any

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseOutputParser
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from rlm_langchain.errors import ConfigurationError


def answer_schema(wanted: Any) -> Any:
    """What an answer has to fit, as `output_schema` takes it, from any of the ways to say it; None for nothing.

    A pydantic model stays one, with its validators. Raises `ConfigurationError`.
    """
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object", **rest} if not rest:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case type() if issubclass(wanted, BaseModel):
            return wanted
    try:
        return convert_to_json_schema(wanted)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{wanted!r} is no schema: give a pydantic model, a TypedDict or a JSON schema"
        ) from error


def parser_of(schema: Any) -> BaseOutputParser[Any]:
    """What makes a value of a reply: an instance of a pydantic model, else a dict."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticOutputParser(pydantic_object=schema)
    return JsonOutputParser()
