"""The arguments of tools: their schemas, their signature for the prompt, and injected arguments.

A schema may come from somebody else's server. So what cannot be read in it is ignored, and long parts are cut.
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

_MAX_LISTED = 50
"""The most arguments of a tool, types of an argument, and values of a type in a prompt."""
_MAX_CHARS = 60
"""The most characters of a name or a type."""
_SHORT_REPR = reprlib.Repr()
"""Shortens default values that are long or deeply nested."""
_SHORT_REPR.maxstring = _SHORT_REPR.maxother = 200
_COMBINERS = ("allOf", "anyOf", "oneOf")
"""Keys of a schema that combines others."""
_KEYS_WITHOUT_ARGUMENTS = frozenset(
    {"type", "properties", "title", "description", "$schema", "$id", "$comment", "$defs", "definitions", "required"}
)
"""A schema that has no properties, and no keys but these, has no arguments."""

VARIADIC = ("args", "kwargs")
"""The only names of variadic parameters (`*args`, `**kwargs`) that LangChain recognises."""


def argument_schemas(tool: BaseTool) -> dict[str, Any]:
    """Return the schemas of a tool's arguments, by name.

    Raises `ConfigurationError` for a schema that is not in the form of JSON Schema.
    """
    schema = _object_schema(tool)
    kind = schema.get("type", "object")
    if "object" not in (kind if isinstance(kind, list) else [kind]):
        raise _unreadable(tool, f"its type is {_SHORT_REPR.repr(kind)}, and arguments are an object")
    properties: dict[str, Any] = {}
    for named in _properties_in(schema, _schema(tool), 5):
        if not (isinstance(named, dict) and all(isinstance(name, str) for name in named)):
            raise _unreadable(tool, "its `properties` are no object")
        properties |= {name: of for name, of in named.items() if name not in properties}
    by_alias = aliases(tool)
    unnamed = _variadic_names(tool)
    return {by_alias.get(name, name): schema for name, schema in properties.items() if name not in unnamed}


def _properties_in(schema: Any, root: dict[str, Any], levels: int) -> Iterator[Any]:
    """Yield the `properties` of a schema, and those of the schemas that it refers to or combines."""
    if not isinstance(schema, dict) or levels == 0:
        return
    if schema.get("properties") is not None:
        yield schema["properties"]
    if isinstance(reference := schema.get("$ref"), str):
        yield from _properties_in(_resolve(root, reference), root, levels - 1)
    for combiner in _COMBINERS:
        choices = schema.get(combiner)
        for choice in choices[:_MAX_LISTED] if isinstance(choices, list) else ():
            yield from _properties_in(choice, root, levels - 1)


def aliases(tool: BaseTool) -> dict[str, str]:
    """Return the aliases of the fields of a tool's pydantic model, by field name. Fields without alias are left
    out."""
    model = _args_model(tool)
    found = {}
    for name, field in model.model_fields.items() if model else ():
        alias = field.validation_alias or field.alias
        alias = alias.choices[0] if isinstance(alias, AliasChoices) else alias
        if isinstance(alias, str):
            found[name] = alias
    return found


def takes_other_arguments(tool: BaseTool) -> bool:
    """Return whether a tool takes arguments that its schema does not name: the schema allows them, or it defines
    its arguments in a form that is not read here."""
    if model := _args_model(tool):
        return model.model_config.get("extra") == "allow"
    schema = _object_schema(tool)
    more = schema.get("additionalProperties")
    if more is True or isinstance(more, dict):
        return True
    is_silent = more is None and not [*_properties_in(schema, _schema(tool), 5)]
    return is_silent and bool(schema.keys() - _KEYS_WITHOUT_ARGUMENTS)


def signature(tool: BaseTool) -> str:
    """Return the arguments of a tool for a prompt: the first `_MAX_LISTED`, and how many more there are."""
    root, properties = _schema(tool), argument_schemas(tool)
    shown = [_describe_argument(name, schema, root) for name, schema in islice(properties.items(), _MAX_LISTED)]
    left_out = len(properties) - len(shown)
    more = ["**others"] if takes_other_arguments(tool) else []
    return ", ".join([*shown, *([f"... {left_out:,} more"] if left_out else []), *more])


def injected_arguments(tool: BaseTool) -> dict[str, Any]:
    """Return the annotations of the arguments that LangChain hides from models, by name."""
    return {name: hint for name, hint in _annotations(tool).items() if _is_injected(hint)}


def needs_call_id(tool: BaseTool) -> bool:
    """Return whether a tool has an argument for the id of its call (`InjectedToolCallId`)."""
    return any(_has_mark(hint, InjectedToolCallId) for hint in injected_arguments(tool).values())


def check_injected(tool: BaseTool) -> None:
    """Raise `ConfigurationError` for an argument without a default that only the graph of an agent fills in."""
    optional = {
        parameter.name
        for function in _functions_of(tool)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty
    }
    for name, hint in injected_arguments(tool).items():
        if name not in optional | _optional_fields(tool) and not _has_mark(hint, InjectedToolCallId):
            raise ConfigurationError(
                f"the tool {tool.name!r} has an argument {name!r} that the graph of an agent fills in "
                f"({_mark_names(hint)}), and here there is none: give it a default, or give a function without it"
            )


def _args_model(tool: BaseTool) -> type[BaseModel] | None:
    schema: Any = tool.args_schema
    return schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None


def _variadic_names(tool: BaseTool) -> set[str]:
    """Return the names of the variadic parameters `*args` and `**kwargs`, which LangChain lists as arguments."""
    if isinstance(tool.args_schema, dict):
        return set()
    parameters = [
        one for function in _functions_of(tool) for one in inspect.signature(function).parameters.values()
    ]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {one.name for one in parameters if one.kind in kinds and one.name in VARIADIC}


def unpassable_argument(function: Any) -> str | None:
    """Return a parameter of a function that LangChain cannot pass, or None.

    LangChain passes arguments by name only. It passes none whose name begins with `_`, and none to `*args` and
    `**kwargs`.
    """
    parameters = inspect.signature(function).parameters.values()
    variadic = [one for one in parameters if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    for one in parameters:
        is_hidden = one.name.startswith("_") and one.default is one.empty and one not in variadic
        if is_hidden or one.kind is one.POSITIONAL_ONLY or (one in variadic and one.name not in VARIADIC):
            return str(one)
    return str(variadic[0]) if variadic and len(variadic) == len(parameters) else None


def _functions_of(tool: BaseTool) -> list[Any]:
    """Return the functions that run when a tool is called."""
    if isinstance(tool, StructuredTool | Tool):
        return [function for function in (tool.func, tool.coroutine) if function is not None]
    return [tool._run, tool._arun]


def _annotations(tool: BaseTool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for function in _functions_of(tool):
        try:
            found |= get_type_hints(function, include_extras=True)
        except Exception:  # noqa: BLE001 - a name cannot be resolved: like LangChain, read annotations unresolved
            found |= {name: one.annotation for name, one in inspect.signature(function).parameters.items()}
    schema = tool.args_schema
    return found if schema is None or isinstance(schema, dict) else found | get_all_basemodel_annotations(schema)


def _is_injected(hint: Any) -> bool:
    """Return whether LangChain hides an argument from models, because of its annotation or its class."""
    kind = get_origin(hint) or hint
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return _has_mark(hint, InjectedToolArg) or any(base.__name__ == "_DirectlyInjectedToolArg" for base in bases)


def _has_mark(hint: Any, mark: type) -> bool:
    marks = getattr(hint, "__metadata__", ())
    return any(isinstance(one, mark) or (isinstance(one, type) and issubclass(one, mark)) for one in marks)


def _mark_names(hint: Any) -> str:
    marks = getattr(hint, "__metadata__", ())
    kinds = [one if isinstance(one, type) else type(one) for one in marks] or [get_origin(hint) or hint]
    return ", ".join(kind.__name__ for kind in kinds)


def _optional_fields(tool: BaseTool) -> set[str]:
    schema = tool.args_schema
    if schema is None or isinstance(schema, dict):
        return set()
    return {name for name, field in get_fields(schema).items() if not _is_required(field)}


def _is_required(field: Any) -> bool:
    return bool(field.is_required() if hasattr(field, "is_required") else field.required)  # the latter: pydantic 1


def _schema(tool: BaseTool) -> dict[str, Any]:
    if isinstance(tool, Tool) and tool.args_schema is None:
        return {"properties": tool.args}
    try:
        schema = tool.args_schema if isinstance(tool.args_schema, dict) else tool.tool_call_schema
        return schema if isinstance(schema, dict) else model_json_schema(schema)
    except Exception as error:
        raise _unreadable(tool, f"{type(error).__name__} when it was asked for") from error


def _object_schema(tool: BaseTool) -> dict[str, Any]:
    """Return the schema that has the `properties`: the tool's schema, or one that it refers to."""
    seen_references: set[str] = set()
    root = schema = _schema(tool)
    while "properties" not in schema and isinstance(reference := schema.get("$ref"), str):
        if reference in seen_references:
            raise _unreadable(tool, f"its $ref {reference[:_MAX_CHARS]!r} leads back to itself")
        seen_references.add(reference)
        found = _resolve(root, reference)
        if found is None:
            raise _unreadable(tool, f"its $ref {reference[:_MAX_CHARS]!r} points to no schema in it")
        schema = found
    return schema


def _resolve(schema: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """Return the schema that a reference inside a schema points to, or None. Nothing is fetched."""
    found: Any = schema if reference.startswith("#") else None
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _unreadable(tool: BaseTool, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the schema of the tool {tool.name!r} cannot be read: {why}. Give it an `args_schema` that can be"
    )


def _describe_argument(name: str, schema: Any, root: dict[str, Any]) -> str:
    """Return the name of an argument for a prompt, with its type and default if the schema has them."""
    fields = schema if isinstance(schema, dict) else {}
    kind = " | ".join(dict.fromkeys(islice(_types(fields, root, 5), _MAX_LISTED)))
    default = f" = {_SHORT_REPR.repr(fields['default'])}" if "default" in fields else ""
    shown = name if name.isidentifier() and len(name) <= _MAX_CHARS else quoted(name)
    return quotable(f"{shown}{f': {kind}' if kind else ''}{default}").replace("\n", "\\n")


def _types(schema: Any, root: dict[str, Any], levels: int) -> Iterator[str]:
    """Yield the types of a schema, or its values if it is an `enum` or `const`."""
    if not isinstance(schema, dict) or levels == 0:
        return
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        yield from (_SHORT_REPR.repr(value) for value in values[:_MAX_LISTED])
        return
    kind = schema.get("type")
    yield from (one[:_MAX_CHARS] for one in (kind if isinstance(kind, list) else [kind]) if isinstance(one, str))
    if isinstance(reference := schema.get("$ref"), str):
        yield from _types(_resolve(root, reference), root, levels - 1)
    for combiner in _COMBINERS:
        choices = schema.get(combiner)
        for choice in choices[:_MAX_LISTED] if isinstance(choices, list) else ():
            yield from _types(choice, root, levels - 1)
