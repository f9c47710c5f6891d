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

SAMPLES: tuple[Any, ...] = (None, "", 0, [], {})
"""One answer of each type: a schema that leads to itself or to nowhere shows it with one of them."""
MOST = 5
"""Faults of one answer that a model is told: the first ones, usually, explain the rest."""


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """A pydantic model, or a JSON schema."""

    of: type[BaseModel] | dict[str, Any]

    def __post_init__(self) -> None:
        if isinstance(self.of, dict):
            _check_schema(self.of)
        elif not (isinstance(self.of, type) and issubclass(self.of, BaseModel)):
            raise ConfigurationError(f"output_schema is {self.of!r}; give a pydantic model or a JSON schema")

    @property
    def json(self) -> str:
        """As the root model reads it."""
        schema = self.of if isinstance(self.of, dict) else self.of.model_json_schema()
        return json.dumps(schema, ensure_ascii=False)

    def problem(self, answer: Any) -> str | None:
        """What is wrong with an answer, for the model that gave it; None when it fits."""
        faults = _json_faults(self.of, answer) if isinstance(self.of, dict) else _model_faults(self.of, answer)
        return "; ".join(faults[:MOST]) or None

    def read(self, words: str) -> Any:
        """The answer in a reply without code, when that is JSON which fits, or words that do; else None."""
        try:
            answer = json.loads(words.strip().removeprefix("```json").strip("`\n "))
        except (ValueError, RecursionError):
            answer = words.strip() or None
        return answer if self.problem(answer) is None else None

    def instance(self, answer: Any) -> Any:
        """The answer as the caller wants it: an instance of the model, or the plain value."""
        return answer if isinstance(self.of, dict) else self.of.model_validate(answer)


def _model_faults(model: type[BaseModel], answer: Any) -> list[str]:
    try:
        model.model_validate(answer)
    except ValidationError as error:
        return [f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return []


def _json_faults(schema: dict[str, Any], answer: Any) -> list[str]:
    """What of an answer does not fit. Nothing that the schema refers to is fetched. Raises `ConfigurationError`."""
    from jsonschema import Draft202012Validator
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    try:
        faults = Draft202012Validator(schema, registry=REGISTRY).iter_errors(answer)
        return [f"{_place(fault.path)}: {fault.message}" for fault in islice(faults, MOST)]
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
    for sample in SAMPLES:
        _json_faults(schema, sample)


def _place(path: Any) -> str:
    return ".".join(str(step) for step in path) or "the answer"
