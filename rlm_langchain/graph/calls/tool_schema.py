"""What tools take: their arguments as a model reads them, and what whoever runs a tool fills in.

A schema may be the text of somebody's server: it is read as far as it says something, and cut where it is long.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, get_origin, get_type_hints

from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, Tool
from langchain_core.tools.base import get_all_basemodel_annotations
from langchain_core.utils.pydantic import get_fields, model_json_schema
from pydantic import AliasChoices, BaseModel

from rlm_langchain.context.describe import quoted
from rlm_langchain.context.sanitize import quotable
from rlm_langchain.errors import ConfigurationError

_MOST = 50
"""Arguments of a tool, types of an argument, and values of a type, that a prompt names."""
_LONGEST = 60
"""Characters of a name or a type."""
_SHORT = reprlib.Repr()
"""What an argument is when it is left out: cut, also where it is deep."""
_SHORT.maxstring = _SHORT.maxother = 200
_SEVERAL = ("allOf", "anyOf", "oneOf")
"""Keys under which a schema has others."""
_SAYS_NOTHING = frozenset(
    {"type", "properties", "title", "description", "$schema", "$id", "$comment", "$defs", "definitions", "required"}
)
"""Keys of a schema that, with no properties, has no arguments."""

VARIADIC = ("args", "kwargs")
"""What `*` and `**` arguments are called that LangChain leaves alone."""


def arguments(tool: BaseTool) -> dict[str, Any]:
    """Return the schemas of a tool's arguments by their names; of a tool without arguments, none.

    Raises `ConfigurationError` for a schema that names them in no way that JSON Schema has: it may be a server's.
    """
    schema = _object_schema(tool)
    kind = schema.get("type", "object")
    if "object" not in (kind if isinstance(kind, list) else [kind]):
        raise _unreadable(tool, f"its type is {_SHORT.repr(kind)}, and arguments are an object")
    properties: dict[str, Any] = {}
    for named in _named(schema, _schema(tool), 5):
        if not (isinstance(named, dict) and all(isinstance(name, str) for name in named)):
            raise _unreadable(tool, "its `properties` are no object")
        properties |= {name: of for name, of in named.items() if name not in properties}
    known = aliases(tool)
    unnamed = _unnamed(tool)
    return {known.get(name, name): schema for name, schema in properties.items() if name not in unnamed}


def _named(schema: Any, whole: dict[str, Any], levels: int) -> Iterator[Any]:
    """Yield the `properties` of a schema, and of those that it is made of."""
    if not isinstance(schema, dict) or levels == 0:
        return
    if schema.get("properties") is not None:
        yield schema["properties"]
    if isinstance(reference := schema.get("$ref"), str):
        yield from _named(_resolved(whole, reference), whole, levels - 1)
    for several in _SEVERAL:
        choices = schema.get(several)
        for choice in choices[:_MOST] if isinstance(choices, list) else ():
            yield from _named(choice, whole, levels - 1)


def aliases(tool: BaseTool) -> dict[str, str]:
    """Return the names under which a pydantic model takes those of its fields that have another name for that."""
    model = _model(tool)
    found = {}
    for name, field in model.model_fields.items() if model else ():
        given = field.validation_alias or field.alias
        given = given.choices[0] if isinstance(given, AliasChoices) else given
        if isinstance(given, str):
            found[name] = given
    return found


def takes_more(tool: BaseTool) -> bool:
    """Return whether a tool takes arguments that its schema does not name, because that says so, or says it in no
    way that is read here."""
    if model := _model(tool):
        return model.model_config.get("extra") == "allow"
    schema = _object_schema(tool)
    more = schema.get("additionalProperties")
    if more is True or isinstance(more, dict):
        return True
    is_silent = more is None and not [*_named(schema, _schema(tool), 5)]
    return is_silent and bool(schema.keys() - _SAYS_NOTHING)


def signature(tool: BaseTool) -> str:
    """Return arguments as a line that a model reads: of very many, the first, and how many more there are."""
    whole, properties = _schema(tool), arguments(tool)
    shown = [_argument(name, schema, whole) for name, schema in islice(properties.items(), _MOST)]
    left_out = len(properties) - len(shown)
    more = ["**others"] if takes_more(tool) else []
    return ", ".join([*shown, *([f"... {left_out:,} more"] if left_out else []), *more])


def injected(tool: BaseTool) -> dict[str, Any]:
    """Return the arguments that are not for a model to give, with their annotations."""
    return {name: hint for name, hint in _annotations(tool).items() if _is_injected(hint)}


def needs_call_id(tool: BaseTool) -> bool:
    """Return whether a tool takes the number of its call."""
    return any(_marks(hint, InjectedToolCallId) for hint in injected(tool).values())


def check_injected(tool: BaseTool) -> None:
    """Raise `ConfigurationError` for an argument that only the graph of an agent fills in. A default will do."""
    optional = {
        parameter.name
        for function in _functions(tool)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty
    }
    for name, hint in injected(tool).items():
        if name not in optional | _with_default(tool) and not _marks(hint, InjectedToolCallId):
            raise ConfigurationError(
                f"the tool {tool.name!r} has an argument {name!r} that the graph of an agent fills in "
                f"({_kind(hint)}), and here there is none: give it a default, or give a function without it"
            )


def _model(tool: BaseTool) -> type[BaseModel] | None:
    given: Any = tool.args_schema
    return given if isinstance(given, type) and issubclass(given, BaseModel) else None


def _unnamed(tool: BaseTool) -> set[str]:
    """Return `args` and `kwargs`, which LangChain takes for arguments, where they are not: `*args`, `**kwargs`."""
    if isinstance(tool.args_schema, dict):
        return set()
    parameters = [one for function in _functions(tool) for one in inspect.signature(function).parameters.values()]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {one.name for one in parameters if one.kind in kinds and one.name in VARIADIC}


def unpassable(function: Any) -> str | None:
    """Return an argument that LangChain could not pass to a function: it passes all of them by name, those that
    begin with `_` never, and of `*args` and `**kwargs` nothing."""
    parameters = inspect.signature(function).parameters.values()
    variadic = [one for one in parameters if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    for one in parameters:
        is_hidden = one.name.startswith("_") and one.default is one.empty and one not in variadic
        if is_hidden or one.kind is one.POSITIONAL_ONLY or (one in variadic and one.name not in VARIADIC):
            return str(one)
    return str(variadic[0]) if variadic and len(variadic) == len(parameters) else None


def _functions(tool: BaseTool) -> list[Any]:
    """Return what runs when a tool is called."""
    if isinstance(tool, StructuredTool | Tool):
        return [function for function in (tool.func, tool.coroutine) if function is not None]
    return [tool._run, tool._arun]


def _annotations(tool: BaseTool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for function in _functions(tool):
        try:
            found |= get_type_hints(function, include_extras=True)
        except Exception:  # noqa: BLE001 - a name that is not there: LangChain reads the others as they are too
            found |= {name: one.annotation for name, one in inspect.signature(function).parameters.items()}
    given = tool.args_schema
    return found if given is None or isinstance(given, dict) else found | get_all_basemodel_annotations(given)


def _is_injected(hint: Any) -> bool:
    """Return whether LangChain keeps an argument from the model: by a mark, or by the class of what it is."""
    kind = get_origin(hint) or hint
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return _marks(hint, InjectedToolArg) or any(base.__name__ == "_DirectlyInjectedToolArg" for base in bases)


def _marks(hint: Any, mark: type) -> bool:
    marks = getattr(hint, "__metadata__", ())
    return any(isinstance(one, mark) or (isinstance(one, type) and issubclass(one, mark)) for one in marks)


def _kind(hint: Any) -> str:
    marks = getattr(hint, "__metadata__", ())
    kinds = [one if isinstance(one, type) else type(one) for one in marks] or [get_origin(hint) or hint]
    return ", ".join(kind.__name__ for kind in kinds)


def _with_default(tool: BaseTool) -> set[str]:
    given = tool.args_schema
    if given is None or isinstance(given, dict):
        return set()
    return {name for name, field in get_fields(given).items() if not _is_required(field)}


def _is_required(field: Any) -> bool:
    return bool(field.is_required() if hasattr(field, "is_required") else field.required)  # of pydantic 1


def _schema(tool: BaseTool) -> dict[str, Any]:
    if isinstance(tool, Tool) and tool.args_schema is None:
        return {"properties": tool.args}
    try:
        given = tool.args_schema if isinstance(tool.args_schema, dict) else tool.tool_call_schema
        return given if isinstance(given, dict) else model_json_schema(given)
    except Exception as error:
        raise _unreadable(tool, f"{type(error).__name__} when it was asked for") from error


def _object_schema(tool: BaseTool) -> dict[str, Any]:
    """Return the schema that names arguments: the whole one, or what that refers to."""
    followed: set[str] = set()
    whole = schema = _schema(tool)
    while "properties" not in schema and isinstance(reference := schema.get("$ref"), str):
        if reference in followed:
            raise _unreadable(tool, f"its $ref {reference[:_LONGEST]!r} leads back to itself")
        followed.add(reference)
        found = _resolved(whole, reference)
        if found is None:
            raise _unreadable(tool, f"its $ref {reference[:_LONGEST]!r} points to no schema in it")
        schema = found
    return schema


def _resolved(schema: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """Return what a reference inside a schema points to. Nothing is fetched."""
    found: Any = schema if reference.startswith("#") else None
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _unreadable(tool: BaseTool, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the schema of the tool {tool.name!r} cannot be read: {why}. Give it an `args_schema` that can be"
    )


def _argument(name: str, schema: Any, whole: dict[str, Any]) -> str:
    """Return an argument with its type and its default, as far as its schema says so."""
    known = schema if isinstance(schema, dict) else {}
    kind = " | ".join(dict.fromkeys(islice(_kinds(known, whole, 5), _MOST)))
    default = f" = {_SHORT.repr(known['default'])}" if "default" in known else ""
    shown = name if name.isidentifier() and len(name) <= _LONGEST else quoted(name)
    return quotable(f"{shown}{f': {kind}' if kind else ''}{default}").replace("\n", "\\n")


def _kinds(schema: Any, whole: dict[str, Any], levels: int) -> Iterator[str]:
    """Yield the types, or the values, that a schema names."""
    if not isinstance(schema, dict) or levels == 0:
        return
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        yield from (_SHORT.repr(value) for value in values[:_MOST])
        return
    kind = schema.get("type")
    yield from (one[:_LONGEST] for one in (kind if isinstance(kind, list) else [kind]) if isinstance(one, str))
    if isinstance(reference := schema.get("$ref"), str):
        yield from _kinds(_resolved(whole, reference), whole, levels - 1)
    for several in _SEVERAL:
        choices = schema.get(several)
        for choice in choices[:_MOST] if isinstance(choices, list) else ():
            yield from _kinds(choice, whole, levels - 1)
