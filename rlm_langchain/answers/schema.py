"""Typed answers: an answer must fit its type or JSON schema, and the caller gets an instance of the type.

The answer is validated in the host. The root model gets the faults of one that does not fit as an error of its
cell. Values leave the sandbox as JSON and are validated as JSON: `"2024-01-02"` is a date, a list may be a tuple or
a set.
"""

from __future__ import annotations

import inspect
import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, NewType, Union, get_args, get_origin

import typing_extensions
from pydantic import TypeAdapter, ValidationError

from rlm_langchain.errors import ConfigurationError

SAMPLE_ANSWERS: tuple[Any, ...] = (None, "", 0, [], {})
"""One answer of each JSON type. Validating them shows whether a `$ref` of the schema is circular or
unresolvable."""
MAX_FAULTS = 5
"""The most faults of one answer in a message to the model. The first ones usually explain the rest."""
LONGEST_FAULT = 300
"""The most characters of one fault, which may quote the answer."""
MAX_FENCES = 100
"""The most fenced blocks of a reply that are read, the last ones."""
_RESTRICTING_KEYS = frozenset(
    {"type", "enum", "const", "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format"}
    | {"minLength", "maxLength", "items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"}
    | {"required", "additionalProperties"}
)
"""Keys of a JSON schema that exclude some answers. `properties` alone does not: it allows any text or number."""
_FENCE = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The type of an answer: one that pydantic can validate (a model, `list[int]`, a TypedDict), or a JSON schema.

    Raises `ConfigurationError` for anything else.
    """

    schema: Any
    adapter: TypeAdapter[Any] | None = field(init=False, repr=False, compare=False)
    """Pydantic's adapter of the type. None for a JSON schema."""
    json: str = field(init=False, repr=False, compare=False)
    """The JSON schema, for the prompt of the root model."""

    def __post_init__(self) -> None:
        if isinstance(self.schema, Mapping):
            adapter: TypeAdapter[Any] | None = None
            json_schema: dict[str, Any] = dict(self.schema)
            object.__setattr__(self, "schema", json_schema)
            _check_schema(json_schema)
        else:
            adapter, json_schema = _adapter(self.schema)
        object.__setattr__(self, "adapter", adapter)
        object.__setattr__(self, "json", json.dumps(json_schema, ensure_ascii=False))

    def problem(self, answer: Any) -> str | None:
        """Return the faults of an answer in a sentence for the model, or None if it fits."""
        faults = self._read(answer)[1]
        return "; ".join(fault[:LONGEST_FAULT] for fault in faults[:MAX_FAULTS]) or None

    def instance(self, answer: Any) -> Any:
        """Return the answer as an instance of the type. For a JSON schema, return the plain value."""
        return self._read(answer)[0]

    def _read(self, answer: Any) -> tuple[Any, list[str]]:
        """Return the answer and its faults.

        If a text does not fit, the JSON in it is read instead: the first value that fits, with the last fenced
        block first. If none fits, it is the first list or dict.
        """
        value, faults = self._validate(answer)
        if not faults or not isinstance(answer, str):
            return value, faults
        likeliest: tuple[Any, list[str]] | None = None
        for candidate in _json_values_in(answer):
            value, faults_of_json = self._validate(candidate)
            if not faults_of_json:
                return value, faults_of_json
            if likeliest is None and isinstance(candidate, dict | list):
                likeliest = value, faults_of_json
        return likeliest or (answer, faults)

    def _validate(self, answer: Any) -> tuple[Any, list[str]]:
        """Return the answer, as an instance if it has a type, and its faults."""
        if self.adapter is None:
            return answer, _json_faults(self.schema, answer)
        try:
            return self.adapter.validate_json(json.dumps(answer)), []
        except ValidationError as error:
            return answer, [f"{_fault_path(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        except Exception as error:
            raise ConfigurationError(
                f"a validator of output_schema={self.schema!r} raised {type(error).__name__} at an answer: let it "
                "raise ValueError for one that does not fit"
            ) from error


def _json_values_in(reply: str) -> Iterator[Any]:
    """Yield the JSON values of a reply: the whole reply, then its fenced blocks, the last one first."""
    for text in (reply, *(fence.inside for fence in last_fences(reply))):
        try:
            yield json.loads(text.strip().removeprefix("```json").strip("`\n "))
        except (ValueError, RecursionError):
            continue


def last_fences(text: str) -> list[Fence]:
    """Return the last closed fenced blocks of a text, `MAX_FENCES` at most, the last one first."""
    return [*fences_in(text)][: -MAX_FENCES - 1 : -1]


class Fence(NamedTuple):
    """A fenced block of Markdown."""

    inside: str
    start: int
    """Position of the opening fence."""
    end: int
    """Position after the closing fence."""


def fences_in(text: str) -> Iterator[Fence]:
    """Yield the closed fenced blocks of a text, in order."""
    marks = [*_FENCE.finditer(text)]
    longest, is_closed = {"`": 0, "~": 0}, [False] * len(marks)
    for number in range(len(marks) - 1, -1, -1):
        fence = marks[number]["fence"]
        is_closed[number] = longest[fence[0]] >= len(fence)
        longest[fence[0]] = max(longest[fence[0]], len(fence))
    opening: re.Match[str] | None = None
    for mark, can_open in zip(marks, is_closed, strict=True):
        if opening is None:
            opening = mark if can_open else None
        elif mark["fence"].startswith(opening["fence"]):
            yield Fence(text[opening.end() + 1 : mark.start()], opening.start(), mark.end("fence"))
            opening = None


def _adapter(type_: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Return the adapter and the JSON schema of a type. Raises `ConfigurationError` for anything else."""
    is_type = isinstance(type_, type) or get_origin(type_) is not None or type_ is Any
    is_type = is_type or isinstance(type_, NewType | typing_extensions.TypeAliasType)
    if not is_type or inspect.isroutine(type_) or isinstance(type_, partial):
        raise ConfigurationError(
            f"output_schema is {type_!r}, which is not a type; give a pydantic model, another type such as "
            "list[int], or a JSON schema"
        )
    try:
        adapter = TypeAdapter[Any](with_typing_extensions(type_))
        return adapter, adapter.json_schema()
    except Exception as error:
        raise ConfigurationError(
            f"output_schema is {type_!r}, which pydantic cannot validate or convert to a JSON schema "
            f"({type(error).__name__}): give a pydantic model, another type such as list[int], or a JSON schema"
        ) from error


def with_typing_extensions(type_: Any) -> Any:
    """Return a type with each TypedDict replaced by one of `typing_extensions`: pydantic accepts no other before
    Python 3.12."""
    if typing_extensions.is_typeddict(type_):
        hints = typing_extensions.get_type_hints(type_, include_extras=True)
        marks: tuple[Any, ...] = (typing_extensions.Required, typing_extensions.NotRequired)
        fields: dict[str, Any] = {}
        for name, hint in hints.items():
            mark = get_origin(hint)
            inner = with_typing_extensions(get_args(hint)[0] if mark in marks else hint)
            is_required = mark is not marks[1] and (mark is marks[0] or name in type_.__required_keys__)
            fields[name] = inner if is_required else typing_extensions.NotRequired[inner]
        make: Any = typing_extensions.TypedDict
        replacement: Any = make(type_.__name__, fields)
        replacement.__doc__ = type_.__doc__
        return replacement
    arguments = get_args(type_)
    if not arguments or not any(typing_extensions.is_typeddict(one) or get_args(one) for one in arguments):
        return type_
    replaced = tuple(with_typing_extensions(one) for one in arguments)
    if replaced == arguments:
        return type_
    origin: Any = get_origin(type_)
    if origin is typing_extensions.Annotated:
        return typing_extensions.Annotated[replaced]
    if repr(origin) in ("typing.Union", "<class 'types.UnionType'>"):
        return Union[replaced]  # noqa: UP007 - the types are known only at run time
    return origin[replaced]


def _json_faults(schema: dict[str, Any], answer: Any) -> list[str]:
    """Return the faults of an answer by a JSON schema. No `$ref` is fetched. Raises `ConfigurationError` for a
    schema that cannot be used."""
    from jsonschema import Draft202012Validator
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    try:
        faults = Draft202012Validator(schema, registry=REGISTRY).iter_errors(answer)
        return [f"{_fault_path(fault.path)}: {fault.message}" for fault in islice(faults, MAX_FAULTS)]
    except Exception as error:  # the schema is at fault: an unresolvable or circular $ref, an invalid pattern
        raise ConfigurationError(
            f"a JSON schema cannot be checked against ({type(error).__name__}): write it without a $ref that leads "
            "to itself or out of it, and with patterns that Python's `re` knows"
        ) from error


def _check_schema(schema: dict[str, Any]) -> None:
    """Raise `ConfigurationError` for an invalid schema, or one that no answer can be validated against."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    for key in ("json_schema", "schema", "input_schema", "parameters"):
        is_wrapper = schema.get("type") == key or not schema.keys() & _RESTRICTING_KEYS
        if isinstance(schema.get(key), Mapping) and is_wrapper:
            raise ConfigurationError(f"output_schema holds a JSON schema under {key!r}: give that one alone")
    if any(isinstance(value, type) for value in schema.values()):
        raise ConfigurationError(
            f"output_schema={reprlib.repr(schema)} is a dict of types, which is no JSON schema: "
            "give a TypedDict or a pydantic model with these fields"
        )
    try:
        json.dumps(schema)
        Draft202012Validator.check_schema(schema)
        if schema and not schema.keys() & _RESTRICTING_KEYS:
            raise ConfigurationError(
                f"output_schema={reprlib.repr(schema)} names no type, so that any answer would fit: give a JSON "
                'schema, {"type": "object", "properties": ...}, or a type such as a TypedDict or a pydantic model'
            )
    except ConfigurationError:
        raise
    except SchemaError as error:
        raise ConfigurationError(f"output_schema is not a JSON schema: {error.message}") from error
    except Exception as error:
        what = type(error).__name__
        raise ConfigurationError(f"output_schema is not a readable JSON schema: {what}") from error
    for sample in SAMPLE_ANSWERS:
        _json_faults(schema, sample)


def _fault_path(path: Any) -> str:
    return ".".join(str(step) for step in path) or "the answer"
