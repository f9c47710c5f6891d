"""What is bound to a `ChatRLM`: functions of its REPL, and functions that whoever asks has to call.

A tool becomes a function of the REPL: code can call it a thousand times, and what it gives back stays out of every
prompt. Some cannot: a schema has no code behind it, a tool with injected arguments needs the agent's own loop, and
`return_direct` speaks to that loop. Those are handed back as `tool_calls` of the reply, as other chat models do.
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

Given = dict[str, Any] | type | Callable[..., Any] | BaseTool
MOST = 50
"""Arguments of a tool that a model is told."""
CALLS = "tool_calls"
"""The key under which an answer asks for calls."""


class BoundTools(NamedTuple):
    """The tools that a reply may use, each in its way."""

    in_repl: tuple[Any, ...] = ()
    """Functions of the REPL."""
    returned: tuple[dict[str, Any], ...] = ()
    """Handed back: name, description and parameters of each."""
    required: bool = False
    """Whether the reply has to be such calls."""

    def told(self, query: str) -> str:
        """The question, and what its answer may be besides words."""
        if not self.returned:
            return query
        lines = [
            quotable(f"- `{f['name']}({', '.join(_properties(f))})`: {f['description']}") for f in self.returned
        ]
        how = f'FINAL({{"{CALLS}": [{{"name": "...", "args": {{...}}}}]}})'
        then = "That is what is asked for here." if self.required else "Else give the answer itself, as text."
        about = "These functions are not in the REPL; whoever asks you calls them, and tells you the results later:"
        return "\n".join([query, "", about, *lines, f"To have some called, end with `{how}`. {then}"])

    def schema(self, answer: Any) -> Any:
        """What the answer has to fit; `answer` is what it would have to fit without these."""
        if not self.returned:
            return answer
        calls = _calls_schema(self.returned)
        return calls if self.required else {"anyOf": [calls, _json_schema(answer)]}

    def calls(self, answer: Any) -> list[ToolCall]:
        """The calls that an answer asks for."""
        asked = answer.get(CALLS) if self.returned and isinstance(answer, dict) else None
        if not isinstance(asked, list):
            return []
        return [ToolCall(name=c["name"], args=c["args"], id=f"call_{uuid.uuid4().hex[:24]}") for c in asked]


def bound_tools(tools: Sequence[Given], choice: Any, where: Literal["repl", "reply"]) -> BoundTools:
    """What to do with bound tools. Raises `ConfigurationError` for a choice that names none of them."""
    wanted = _choice(choice)
    if wanted == "none":
        return BoundTools()
    if wanted != "auto" and not tools:
        raise ConfigurationError(f"tool_choice is {choice!r}, and no tool is bound: bind tools, or leave it out")
    runs = [] if where == "reply" else [tool for tool in tools if runs_here(tool)]
    rest = [tool for tool in tools if where == "reply" or not runs_here(tool)]
    if wanted == "auto":
        return BoundTools(tuple(runs), tuple(map(_described, rest)))
    if wanted == "any":
        return BoundTools(tuple(runs if rest else ()), tuple(map(_described, rest or tools)), required=True)
    named = [tool for tool in tools if _described(tool)["name"] == wanted]
    if not named:
        raise ConfigurationError(f"tool_choice is {wanted!r}, and no tool of that name is bound")
    others = tuple(tool for tool in runs if _described(tool)["name"] != wanted)
    return BoundTools(others, (_described(named[0]),), required=True)


def runs_here(tool: Given) -> bool:
    """Whether the REPL can have this tool as a function."""
    if isinstance(tool, dict | type):
        return False
    if not isinstance(tool, BaseTool):
        return callable(tool)
    if isinstance(tool, StructuredTool | Tool) and tool.func is None and tool.coroutine is None:
        return False
    return not tool.return_direct and not _injected(tool)


def _injected(tool: BaseTool) -> bool:
    """Whether it wants what only an agent's loop has: its state, its store, the number of the call."""
    if isinstance(tool.args_schema, dict):
        return False
    whole, called = tool.get_input_schema(), tool.tool_call_schema
    return isinstance(called, type) and set(get_fields(whole)) != set(get_fields(called))


def _choice(choice: Any) -> str:
    """`auto`, `none`, `any`, or the name of a tool, from the ways in which providers say it."""
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
            return _choice(kind)
    raise ConfigurationError(f"tool_choice is {choice!r}; give 'auto', 'any', 'none' or the name of a tool")


def _described(tool: Given) -> dict[str, Any]:
    """Name, description and parameters of a tool. Raises `ConfigurationError` where its schema cannot be read."""
    try:
        return _read(tool)
    except RLMError:
        raise
    except Exception as error:  # whatever LangChain makes of a schema that may be a server's
        name = tool.get("name") if isinstance(tool, dict) else getattr(tool, "name", None)
        raise ConfigurationError(
            f"the schema of the tool {str(name or type(tool).__name__)[:60]!r} cannot be read "
            f"({type(error).__name__}): give it parameters in JSON Schema, without a $ref that leads to itself"
        ) from error


def _read(tool: Given) -> dict[str, Any]:
    function = convert_to_openai_tool(tool).get("function")
    if function is None:
        raise ConfigurationError(
            f"{json.dumps(tool, default=str)} is a tool that some provider runs on its servers, not one for an RLM"
        )
    parameters = _flat(function.get("parameters") or {"type": "object", "properties": {}})
    name, properties = str(function["name"]), parameters.get("properties", {})
    if not all(isinstance(one, str) for one in properties):
        raise ConfigurationError(f"the schema of the tool {name!r} cannot be read: its `properties` are no object")
    try:
        AnswerSchema(parameters)  # what it calls for is checked against it
    except ConfigurationError as error:
        raise ConfigurationError(f"the schema of the tool {name!r} cannot be read: {error}") from error
    return {"name": name, "description": str(function.get("description", "")), "parameters": parameters}


def _properties(function: dict[str, Any]) -> list[str]:
    """The names of its arguments: of very many, the first, and how many more there are."""
    names = list(function["parameters"].get("properties", {}))
    return names if len(names) <= MOST else [*names[:MOST], f"... {len(names) - MOST:,} more"]


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
    listed = {"type": "array", "minItems": 1, "items": items}
    return {"type": "object", "properties": {CALLS: listed}, "required": [CALLS]}


def _json_schema(answer: Any) -> dict[str, Any]:
    """The schema of an answer that is no call: text, unless something else was asked for."""
    if answer is None:
        return {"type": "string"}
    return _flat(json.loads(AnswerSchema(answer).json))


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """Without references: they would point nowhere from inside another schema."""
    if "$ref" not in json.dumps(schema):
        return schema
    whole = dereference_refs(schema)
    return {key: value for key, value in whole.items() if key not in ("$defs", "definitions")}
