"""Typed replies of a `ChatRLM`: the ways to ask for a schema, and what reads a reply that fits one."""

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
    if isinstance(wanted, Mapping) or is_typeddict(wanted) or _is_model(wanted):
        with suppress(TypeError, ValueError):  # it wants a name, which an answer needs not
            return convert_to_json_schema(wanted)
    AnswerSchema(wanted)
    return wanted


def _is_model(wanted: Any) -> bool:
    """Return whether this is a model of pydantic, be it of its first version."""
    return isinstance(wanted, type) and is_basemodel_subclass(wanted)


def traced_schema(schema: Any) -> Any:
    """The schema as LangChain shows it to tracers, which it makes JSON of."""
    if isinstance(schema, Mapping) or _is_model(schema):
        return schema
    with suppress(Exception):  # of what it cannot read, in as many ways as there are
        convert_to_json_schema(schema)
        return schema
    name = getattr(schema, "__name__", None) or "answer"
    return {"title": name, **json.loads(AnswerSchema(schema).json)}


def parser_of(schema: Any) -> BaseOutputParser[Any]:
    """What makes a value of a reply: an instance of a type, or for a TypedDict and a JSON schema what is in it."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticOutputParser(pydantic_object=schema)
    if isinstance(schema, Mapping) or is_typeddict(schema):
        return JsonOutputParser()
    return TypeParser(wanted=schema)


class TypeParser(BaseOutputParser[Any]):
    """Makes an instance of any type out of a reply that holds it as JSON, or is it as a text."""

    wanted: Any

    def parse(self, text: str) -> Any:
        """The instance. Raises `OutputParserException`, as every parser does."""
        schema = AnswerSchema(self.wanted)
        answer = answer_in_words(text, schema, cites=False)
        if answer is None and (problem := problem_in_words(text, schema)):
            raise OutputParserException(f"the reply does not fit: {problem}", llm_output=text)
        return schema.instance(answer)

    @property
    def _type(self) -> str:
        return "rlm_type"
