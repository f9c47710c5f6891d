"""Tools bound to a `ChatRLM`: functions in its REPL, and tools that the caller runs.

Most tools become functions in the REPL: code can call them any number of times, and their results stay out of all
prompts. Calls of the others are returned as `tool_calls` of the reply, as other chat models do: a schema without a
function, a tool with injected arguments, which needs an agent's loop, and one with `return_direct`, which ends that
loop.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.messages import ToolCall
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.json_schema import dereference_refs
from langchain_core.utils.pydantic import get_fields

from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.context.sanitize import quotable
from rlm_langchain.errors import ConfigurationError, RLMError

ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool
MAX_ARGUMENTS = 50
"""The most arguments of a tool that a prompt names."""
CALLS = "tool_calls"
"""The key of an answer that consists of tool calls."""


class BoundTools(NamedTuple):
    """The tools of a call, by where they run."""

    in_repl: tuple[Any, ...] = ()
    """Tools that become functions in the REPL."""
    returned: tuple[dict[str, Any], ...] = ()
    """Name, description and parameters of the tools whose calls are returned to the caller."""
    required: bool = False
    """Whether the reply must be tool calls."""

    def with_tools(self, query: str) -> str:
        """Return a question, followed by the tools whose calls may be its answer."""
        if not self.returned:
            return query
        lines = [
            quotable(f"- `{f['name']}({', '.join(_properties(f))})`: {f['description']}") for f in self.returned
        ]
        example = f'FINAL({{"{CALLS}": [{{"name": "...", "args": {{...}}}}]}})'
        then = "That is what is asked for here." if self.required else "Else give the answer itself, as text."
        intro = "These functions are not in the REPL; whoever asks you calls them, and tells you the results later:"
        return "\n".join([query, "", intro, *lines, f"To have some called, end with `{example}`. {then}"])

    def schema(self, answer: Any) -> Any:
        """Return the schema of the answer: tool calls, or the type or schema `answer` of an answer without them."""
        if not self.returned:
            return answer
        calls = _calls_schema(self.returned)
        return calls if self.required else {"anyOf": [calls, _json_schema(answer)]}

    def calls(self, answer: Any) -> list[ToolCall]:
        """Return the tool calls in an answer."""
        requested = answer.get(CALLS) if self.returned and isinstance(answer, dict) else None
        if not isinstance(requested, list):
            return []
        return [ToolCall(name=c["name"], args=c["args"], id=f"call_{uuid.uuid4().hex[:24]}") for c in requested]


def bound_tools(tools: Sequence[ToolLike], choice: Any, tools_in: Literal["repl", "reply"]) -> BoundTools:
    """Sort tools by where they run. `choice` is a `tool_choice`. Raises `ConfigurationError` if it names no
    tool."""
    choice_name = _parse_choice(choice)
    if choice_name == "none":
        return BoundTools()
    if choice_name != "auto" and not tools:
        raise ConfigurationError(f"tool_choice is {choice!r}, and no tool is bound: bind tools, or leave it out")
    in_repl = [] if tools_in == "reply" else [tool for tool in tools if can_run_in_repl(tool)]
    returned = [tool for tool in tools if tools_in == "reply" or not can_run_in_repl(tool)]
    if choice_name == "auto":
        return BoundTools(tuple(in_repl), tuple(map(_describe, returned)))
    if choice_name == "any":
        return BoundTools(
            tuple(in_repl if returned else ()), tuple(map(_describe, returned or tools)), required=True
        )
    named = [tool for tool in tools if _describe(tool)["name"] == choice_name]
    if not named:
        raise ConfigurationError(f"tool_choice is {choice_name!r}, and no tool of that name is bound")
    other_tools = tuple(tool for tool in in_repl if _describe(tool)["name"] != choice_name)
    return BoundTools(other_tools, (_describe(named[0]),), required=True)


def can_run_in_repl(tool: ToolLike) -> bool:
    """Return whether a tool can be a function in the REPL."""
    if isinstance(tool, dict | type):
        return False
    if not isinstance(tool, BaseTool):
        return callable(tool)
    if isinstance(tool, StructuredTool | Tool) and tool.func is None and tool.coroutine is None:
        return False
    return not tool.return_direct and not _has_injected_arguments(tool)


def _has_injected_arguments(tool: BaseTool) -> bool:
    """Return whether a tool has injected arguments (state, store, `tool_call_id`), which need an agent's loop."""
    if isinstance(tool.args_schema, dict):
        return False
    all_arguments, shown_arguments = tool.get_input_schema(), tool.tool_call_schema
    return isinstance(shown_arguments, type) and set(get_fields(all_arguments)) != set(get_fields(shown_arguments))


def _parse_choice(choice: Any) -> str:
    """Return `auto`, `none`, `any` or the name of a tool, from a `tool_choice` in the form of any provider."""
    match choice:
        case None | False | "auto":
            return "auto"
        case True | "any" | "required":
            return "any"
        case str():
            return choice
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
        case {"type": str(kind)}:
            return _parse_choice(kind)
    raise ConfigurationError(f"tool_choice is {choice!r}; give 'auto', 'any', 'none' or the name of a tool")


def _describe(tool: ToolLike) -> dict[str, Any]:
    """Return name, description and parameters of a tool. Raises `ConfigurationError` for a schema that cannot be
    read."""
    try:
        return _convert(tool)
    except RLMError:
        raise
    except Exception as error:  # the schema may be a server's, and LangChain raises errors of many types for it
        name = tool.get("name") if isinstance(tool, dict) else getattr(tool, "name", None)
        raise ConfigurationError(
            f"the schema of the tool {str(name or type(tool).__name__)[:60]!r} cannot be read "
            f"({type(error).__name__}): give it parameters in JSON Schema, without a $ref that leads to itself"
        ) from error


def _convert(tool: ToolLike) -> dict[str, Any]:
    function = convert_to_openai_tool(tool).get("function")
    if function is None:
        raise ConfigurationError(
            f"{json.dumps(tool, default=str)} is a tool that some provider runs on its servers, not one for an RLM"
        )
    parameters = _inline_refs(function.get("parameters") or {"type": "object", "properties": {}})
    name, properties = str(function["name"]), parameters.get("properties", {})
    if not all(isinstance(one, str) for one in properties):
        raise ConfigurationError(f"the schema of the tool {name!r} cannot be read: its `properties` are no object")
    try:
        AnswerSchema(parameters)  # the arguments of calls are validated against it
    except ConfigurationError as error:
        raise ConfigurationError(f"the schema of the tool {name!r} cannot be read: {error}") from error
    return {"name": name, "description": str(function.get("description", "")), "parameters": parameters}


def _properties(function: dict[str, Any]) -> list[str]:
    """Return the names of a tool's arguments: the first `MAX_ARGUMENTS`, and how many more there are."""
    names = list(function["parameters"].get("properties", {}))
    return (
        names
        if len(names) <= MAX_ARGUMENTS
        else [*names[:MAX_ARGUMENTS], f"... {len(names) - MAX_ARGUMENTS:,} more"]
    )


def _calls_schema(functions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": f["name"]}, "args": f["parameters"]},
            "required": ["name", "args"],
        }
        for f in functions
    ]
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    array = {"type": "array", "minItems": 1, "items": items}
    return {"type": "object", "properties": {CALLS: array}, "required": [CALLS]}


def _json_schema(answer: Any) -> dict[str, Any]:
    """Return the JSON schema of an answer without tool calls. It is text by default."""
    if answer is None:
        return {"type": "string"}
    return _inline_refs(json.loads(AnswerSchema(answer).json))


def _inline_refs(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace the references in a schema by what they refer to, so that it can be a part of another schema."""
    if "$ref" not in json.dumps(schema):
        return schema
    inlined = dereference_refs(schema)
    return {key: value for key, value in inlined.items() if key not in ("$defs", "definitions")}
