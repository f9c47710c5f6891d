"""Typed answers: what FINAL gives must fit, and the caller gets an instance.

The check is made in the host. What does not fit goes back to the root model as an error of its cell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from rlm_langchain.errors import ConfigurationError

SAMPLE_ANSWERS: tuple[Any, ...] = (None, "", 0, [], {})
"""One answer of each type: a schema that leads to itself or to nowhere shows it with one of them."""
MAX_FAULTS = 5
"""Faults of one answer that a model is told: the first ones, usually, explain the rest."""


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """A pydantic model, or a JSON schema."""

    schema: type[BaseModel] | dict[str, Any]

    def __post_init__(self) -> None:
        if isinstance(self.schema, dict):
            _check_schema(self.schema)
        elif not (isinstance(self.schema, type) and issubclass(self.schema, BaseModel)):
            raise ConfigurationError(f"output_schema is {self.schema!r}; give a pydantic model or a JSON schema")

    @property
    def json(self) -> str:
        """As the root model reads it."""
        schema = self.schema if isinstance(self.schema, dict) else self.schema.model_json_schema()
        return json.dumps(schema, ensure_ascii=False)

    def problem(self, answer: Any) -> str | None:
        """What is wrong with an answer, for the model that gave it; None when it fits."""
        faults = (
            _json_faults(self.schema, answer)
            if isinstance(self.schema, dict)
            else _model_faults(self.schema, answer)
        )
        return "; ".join(faults[:MAX_FAULTS]) or None

    def instance(self, answer: Any) -> Any:
        """The answer as the caller wants it: an instance of the model, or the plain value."""
        return answer if isinstance(self.schema, dict) else self.schema.model_validate(answer)


def _model_faults(model: type[BaseModel], answer: Any) -> list[str]:
    try:
        model.model_validate(answer)
    except ValidationError as error:
        return [f"{_fault_path(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return []


def _json_faults(schema: dict[str, Any], answer: Any) -> list[str]:
    """What of an answer does not fit. Nothing that the schema refers to is fetched. Raises `ConfigurationError`."""
    from jsonschema import Draft202012Validator
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    try:
        faults = Draft202012Validator(schema, registry=REGISTRY).iter_errors(answer)
        return [f"{_fault_path(fault.path)}: {fault.message}" for fault in islice(faults, MAX_FAULTS)]
    except Exception as error:  # of the schema: a $ref to nowhere or to itself, a pattern that is none
        raise ConfigurationError(
            f"a JSON schema cannot be checked against ({type(error).__name__}): write it without a $ref that leads "
            "to itself or out of it, and with patterns that Python's `re` knows"
        ) from error


def _check_schema(schema: dict[str, Any]) -> None:
    """Raise `ConfigurationError` for a schema that is none, or that no answer could be checked against."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        json.dumps(schema)
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigurationError(f"output_schema is no JSON schema: {error.message}") from error
    except Exception as error:
        what = type(error).__name__
        raise ConfigurationError(f"output_schema is no JSON schema that can be read: {what}") from error
    for sample in SAMPLE_ANSWERS:
        _json_faults(schema, sample)


def _fault_path(path: Any) -> str:
    return ".".join(str(step) for step in path) or "the answer"
