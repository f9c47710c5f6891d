"""Typed answers: what FINAL gives must fit, and the caller gets an instance.

The check is made in the host. What does not fit goes back to the root model as an error of its cell. Values leave
the sandbox as JSON, so they are read as JSON: `"2024-01-02"` is a date, a list may be a tuple or a set.
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
"""One answer of each type: a schema that leads to itself or to nowhere shows it with one of them."""
MAX_FAULTS = 5
"""Faults of one answer that a model is told: the first ones, usually, explain the rest."""
LONGEST_FAULT = 300
"""Characters of one of them: some quote the answer."""
MAX_FENCES = 100
"""Fences of an answer that are read: the last ones."""
_TELLING = frozenset(
    {"type", "enum", "const", "$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format"}
    | {"minLength", "maxLength", "items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"}
    | {"required", "additionalProperties"}
)
"""Keys of a JSON schema by which some answers do not fit. `properties` are none: a text has no properties."""
_FENCE = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """A type that pydantic knows (a model, `list[int]`, a dataclass, a TypedDict, ...), or a JSON schema.

    Raises `ConfigurationError` for what is neither.
    """

    schema: Any
    adapter: TypeAdapter[Any] | None = field(init=False, repr=False, compare=False)
    """What reads an answer of the type; None for a JSON schema."""
    json: str = field(init=False, repr=False, compare=False)
    """As the root model reads it."""

    def __post_init__(self) -> None:
        if isinstance(self.schema, Mapping):
            adapter: TypeAdapter[Any] | None = None
            told: dict[str, Any] = dict(self.schema)
            object.__setattr__(self, "schema", told)
            _check_schema(told)
        else:
            adapter, told = _adapter(self.schema)
        object.__setattr__(self, "adapter", adapter)
        object.__setattr__(self, "json", json.dumps(told, ensure_ascii=False))

    def problem(self, answer: Any) -> str | None:
        """What is wrong with an answer, for the model that gave it; None when it fits."""
        faults = self._read(answer)[1]
        return "; ".join(fault[:LONGEST_FAULT] for fault in faults[:MAX_FAULTS]) or None

    def instance(self, answer: Any) -> Any:
        """The answer as the caller wants it: an instance of the type, or the plain value."""
        return self._read(answer)[0]

    def _read(self, answer: Any) -> tuple[Any, list[str]]:
        """The answer and what of it does not fit. A text that does not, but holds JSON, is taken for that: for the
        first that fits, the last fence first, else for the first list or dict.
        """
        value, faults = self._checked(answer)
        if not faults or not isinstance(answer, str):
            return value, faults
        likeliest: tuple[Any, list[str]] | None = None
        for read in _json_in(answer):
            value, of_json = self._checked(read)
            if not of_json:
                return value, of_json
            if likeliest is None and isinstance(read, dict | list):
                likeliest = value, of_json
        return likeliest or (answer, faults)

    def _checked(self, answer: Any) -> tuple[Any, list[str]]:
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


def _json_in(words: str) -> Iterator[Any]:
    """The JSON values that a text is, or that stand in its fences, the last one first."""
    for text in (words, *(fence.inside for fence in last_fences(words))):
        try:
            yield json.loads(text.strip().removeprefix("```json").strip("`\n "))
        except (ValueError, RecursionError):
            continue


def last_fences(text: str) -> list[Fence]:
    """Return the last closed fences of a text, `MAX_FENCES` at most, the last one first."""
    return [*fences_in(text)][: -MAX_FENCES - 1 : -1]


class Fence(NamedTuple):
    """What stands between two fences of Markdown, and from where to where they are."""

    inside: str
    start: int
    end: int


def fences_in(text: str) -> Iterator[Fence]:
    """Yield what stands in the closed fences of a text, in order."""
    marks = [*_FENCE.finditer(text)]
    longest, is_closed = {"`": 0, "~": 0}, [False] * len(marks)
    for number in range(len(marks) - 1, -1, -1):
        fence = marks[number]["fence"]
        is_closed[number] = longest[fence[0]] >= len(fence)
        longest[fence[0]] = max(longest[fence[0]], len(fence))
    opening: re.Match[str] | None = None
    for mark, is_one in zip(marks, is_closed, strict=True):
        if opening is None:
            opening = mark if is_one else None
        elif mark["fence"].startswith(opening["fence"]):
            yield Fence(text[opening.end() + 1 : mark.start()], opening.start(), mark.end("fence"))
            opening = None


def _adapter(wanted: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Return the adapter and the JSON schema of a type. Raises `ConfigurationError` for anything else."""
    is_type = isinstance(wanted, type) or get_origin(wanted) is not None or wanted is Any
    is_type = is_type or isinstance(wanted, NewType | typing_extensions.TypeAliasType)
    if not is_type or inspect.isroutine(wanted) or isinstance(wanted, partial):
        raise ConfigurationError(
            f"output_schema is {wanted!r}, which is not a type; give a pydantic model, another type such as "
            "list[int], or a JSON schema"
        )
    try:
        adapter = TypeAdapter[Any](readable_type(wanted))
        return adapter, adapter.json_schema()
    except Exception as error:
        raise ConfigurationError(
            f"output_schema is {wanted!r}, which pydantic cannot validate or convert to a JSON schema "
            f"({type(error).__name__}): give a pydantic model, another type such as list[int], or a JSON schema"
        ) from error


def readable_type(wanted: Any) -> Any:
    """The type with each TypedDict as one of `typing_extensions`: before Python 3.12, pydantic takes no other."""
    if typing_extensions.is_typeddict(wanted):
        hints = typing_extensions.get_type_hints(wanted, include_extras=True)
        marks: tuple[Any, ...] = (typing_extensions.Required, typing_extensions.NotRequired)
        fields: dict[str, Any] = {}
        for name, hint in hints.items():
            known_hint = readable_type(get_args(hint)[0] if get_origin(hint) in marks else hint)
            mark = get_origin(hint)
            is_needed = mark is not marks[1] and (mark is marks[0] or name in wanted.__required_keys__)
            fields[name] = known_hint if is_needed else typing_extensions.NotRequired[known_hint]
        make: Any = typing_extensions.TypedDict
        made: Any = make(wanted.__name__, fields)
        made.__doc__ = wanted.__doc__
        return made
    arguments = get_args(wanted)
    if not arguments or not any(typing_extensions.is_typeddict(one) or get_args(one) for one in arguments):
        return wanted
    known = tuple(readable_type(one) for one in arguments)
    if known == arguments:
        return wanted
    origin: Any = get_origin(wanted)
    if origin is typing_extensions.Annotated:
        return typing_extensions.Annotated[known]
    if repr(origin) in ("typing.Union", "<class 'types.UnionType'>"):
        return Union[known]  # noqa: UP007 - of types that are known at run time
    return origin[known]


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

    for key in ("json_schema", "schema", "input_schema", "parameters"):
        is_around = schema.get("type") == key or not schema.keys() & _TELLING
        if isinstance(schema.get(key), Mapping) and is_around:
            raise ConfigurationError(f"output_schema holds a JSON schema under {key!r}: give that one alone")
    if any(isinstance(value, type) for value in schema.values()):
        raise ConfigurationError(
            f"output_schema={reprlib.repr(schema)} is a dict of types, which is no JSON schema: "
            "give a TypedDict or a pydantic model with these fields"
        )
    try:
        json.dumps(schema)
        Draft202012Validator.check_schema(schema)
        if schema and not schema.keys() & _TELLING:
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
