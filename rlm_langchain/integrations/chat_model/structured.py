"""Typed replies of a `ChatRLM`: reads the requested schema, and parses replies that fit it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import BaseOutputParser
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel
from typing_extensions import is_typeddict

from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.answers.words import answer_in_words, problem_in_words


def answer_schema(requested: Any) -> Any:
    """Return a type or schema in the form of the option `output_schema`. None if answers may be any text.

    `requested` is a type, a JSON schema, or a `response_format` of OpenAI. A pydantic model is returned as it is,
    to keep its validators. Raises `ConfigurationError`.
    """
    match requested:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object", **rest} if not rest:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case type() if issubclass(requested, BaseModel):
            return requested
    if isinstance(requested, Mapping) or is_typeddict(requested) or _is_model(requested):
        with suppress(TypeError, ValueError):  # LangChain requires a title, and an answer needs none
            return convert_to_json_schema(requested)
    AnswerSchema(requested)
    return requested


def _is_model(value: Any) -> bool:
    """Return whether this is a pydantic model, of version 1 or 2."""
    return isinstance(value, type) and is_basemodel_subclass(value)


def traced_schema(schema: Any) -> Any:
    """Return a schema in a form that LangChain can convert to JSON, for tracers."""
    if isinstance(schema, Mapping) or _is_model(schema):
        return schema
    with suppress(Exception):  # LangChain raises errors of many types for a schema that it cannot convert
        convert_to_json_schema(schema)
        return schema
    name = getattr(schema, "__name__", None) or "answer"
    return {"title": name, **json.loads(AnswerSchema(schema).json)}


def parser_of(schema: Any) -> BaseOutputParser[Any]:
    """Return the parser that turns a reply into an instance of a type. For a TypedDict or a JSON schema, that is a
    plain dict or list."""
    if _is_model(schema):
        return PydanticOutputParser(pydantic_object=schema)
    if isinstance(schema, Mapping) or is_typeddict(schema):
        return JsonOutputParser()
    return TypeParser(target_type=schema)


class TypeParser(BaseOutputParser[Any]):
    """Parses a reply into an instance of any type that pydantic can validate. The reply is JSON, or plain text."""

    target_type: Any

    def parse(self, text: str) -> Any:
        """Return the instance. Raises `OutputParserException` if the reply does not fit the type."""
        schema = AnswerSchema(self.target_type)
        answer = answer_in_words(text, schema, cites=False)
        if answer is None and (problem := problem_in_words(text, schema)):
            raise OutputParserException(f"the reply does not fit: {problem}", llm_output=text)
        return schema.instance(answer)

    @property
    def _type(self) -> str:
        return "rlm_type"
