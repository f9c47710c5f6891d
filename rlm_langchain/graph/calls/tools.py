"""Custom tools: LangChain tools and plain functions, called by code in the REPL and run in the host.

A call of a tool is a task of the graph like a call of a model: journaled, bounded, kept on disk before its result
is used, so that no crash runs it again. What a tool may do is its author's choice: it is not confined.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import reprlib
from collections.abc import Callable, Iterable
from itertools import islice
from keyword import iskeyword
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langchain_core.utils.pydantic import model_json_schema
from langgraph.errors import GraphBubbleUp
from pydantic import ValidationError

from rlm_langchain.context.describe import quoted
from rlm_langchain.context.sanitize import clip, quotable
from rlm_langchain.durability.receipts import recorded
from rlm_langchain.errors import ConfigurationError, RLMError
from rlm_langchain.graph.calls.handler import CallHandler, CallSite
from rlm_langchain.graph.components import Components, Tools
from rlm_langchain.graph.state import TreeInfo
from rlm_langchain.run.event_loops import run_in_new_thread
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.sandboxes.reserved_names import RESERVED
from rlm_langchain.types import Call, CallResult, ContextRef

_MOST = 50
"""Arguments of a tool, and types of an argument, that a prompt names."""
_LONGEST, _DESCRIBED = 60, 4_000
"""Characters of a name or a type, and of a description."""
_SHORT = reprlib.Repr()
"""What an argument is when it is left out: cut, also where it is deep."""
_SHORT.maxstring = _SHORT.maxother = 200


def tools_of(given: Iterable[BaseTool | Callable[..., Any]]) -> Tools:
    """Return tools by the names that code uses. Raises `ConfigurationError` for a name that cannot be used."""
    tools: Tools = {}
    for one in given:
        tool = one if isinstance(one, BaseTool) else _from_function(one)
        if wrong := _unusable(tool.name, tools):
            raise ConfigurationError(f"a tool cannot be called {tool.name!r}: {wrong}. Rename it")
        arguments(tool)
        tools[tool.name] = tool
    return tools


def _unusable(name: str, tools: Tools) -> str | None:
    """Return why code could not call a tool by this name."""
    if not name.isidentifier() or iskeyword(name):
        return "that is no name in Python"
    if name in RESERVED:
        return "the REPL has a function of that name"
    return "there are two of that name" if name in tools else None


def prelude(tools: Tools) -> str:
    """Return the code that defines tools in the REPL: arguments go out as JSON, the result comes back as JSON."""
    if not tools:
        return ""
    return "import json\n\n\n" + "\n\n\n".join(
        f"def {name}(*args, **kwargs):\n"
        f"    call = json.dumps([{name!r}, list(args), kwargs])\n"
        '    return json.loads(_host_call("tool", call))'
        for name in tools
    )


def guidance(tools: Tools) -> str:
    """Return what the root model reads of tools."""
    if not tools:
        return ""
    lines = [f"- `{name}({signature(arguments(tool))})`: {described(tool)}" for name, tool in tools.items()]
    return "\n".join(["More functions in the REPL, which are run outside it:", *lines])


def arguments(tool: BaseTool) -> dict[str, Any]:
    """Return the schemas of a tool's arguments by their names; of a tool without arguments, none.

    Raises `ConfigurationError` for a schema that names them in no way that JSON Schema has: it may be a server's.
    """
    try:
        given = tool.args_schema if isinstance(tool.args_schema, dict) else tool.tool_call_schema
        schema = given if isinstance(given, dict) else model_json_schema(given)
    except Exception as error:
        raise _unreadable(tool, f"{type(error).__name__} when it was asked for") from error
    followed: set[str] = set()
    whole = schema
    while "properties" not in schema and isinstance(reference := schema.get("$ref"), str):
        if reference in followed:
            raise _unreadable(tool, f"its $ref {reference[:_LONGEST]!r} leads back to itself")
        followed.add(reference)
        schema = _resolved(tool, whole, reference)
    named = schema.get("properties")
    if named is not None and not (isinstance(named, dict) and all(isinstance(name, str) for name in named)):
        raise _unreadable(tool, "its `properties` are no object")
    return named or {}


def _resolved(tool: BaseTool, schema: dict[str, Any], reference: str) -> dict[str, Any]:
    """Return what a reference inside a schema points to. Nothing is fetched."""
    found: Any = schema if reference.startswith("#") else None
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise _unreadable(tool, f"its $ref {reference[:_LONGEST]!r} points to no schema in it")
    return found


def _unreadable(tool: BaseTool, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the schema of the tool {tool.name!r} cannot be read: {why}. Give it an `args_schema` that can be"
    )


def signature(properties: dict[str, Any]) -> str:
    """Return arguments as a line that a model reads: of very many, the first, and how many more there are."""
    shown = [_argument(*argument) for argument in islice(properties.items(), _MOST)]
    left_out = len(properties) - len(shown)
    return ", ".join([*shown, *([f"... {left_out:,} more"] if left_out else [])])


def described(tool: BaseTool) -> str:
    """Return what a tool says of itself, as a prompt may hold it: it may be the text of somebody's server."""
    return quotable(clip(str(tool.description), _DESCRIBED))


def _argument(name: str, schema: Any) -> str:
    """Return an argument with its type and its default, as far as its schema says so."""
    known = schema if isinstance(schema, dict) else {}
    several = known.get("anyOf")
    choices = [known, *(several[:_MOST] if isinstance(several, list) else ())]
    kinds = [choice.get("type") for choice in choices if isinstance(choice, dict)]
    kind = " | ".join(kind[:_LONGEST] for kind in kinds if isinstance(kind, str))
    default = f" = {_SHORT.repr(known['default'])}" if "default" in known else ""
    shown = name if name.isidentifier() and len(name) <= _LONGEST else quoted(name)
    return quotable(f"{shown}{f': {kind}' if kind else ''}{default}").replace("\n", "\\n")


class ToolHandler(CallHandler):
    """Handles `tool`: each call is a task of its own, since a tool may pause for a person, as a child run may."""

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines the tools of this run."""
        return prelude(components.tools_of(path))

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return what the root model reads of the tools of this run."""
        return guidance(components.tools_of(path))

    def own_task(self, site: CallSite, tree: TreeInfo) -> dict[str, Any] | None:
        """Return the text of the call, by reference: a tool that has paused goes on without the cell."""
        return {"tool": site.components.store.reference_from_repl(site.asked.call.prompt)}

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Run the tool that the call names, once: its result as JSON, or the sentence of what went wrong."""
        tree, place, call = site.tree, site.asked.place, site.asked.call
        key = f"{place} tool {hashlib.sha256(call.prompt.encode()).hexdigest()}"

        async def run() -> CallResult:
            async with tree.tool_call(place) as is_left:
                if not is_left:
                    return CallResult(None, "not run: no tool calls are left", refused="calls")
                return await _run(site.components.tools_of(site.asked.path), call, tree, config)

        return await recorded(tree.receipts, key, place, run)


async def _run(tools: Tools, call: Call, tree: RunTree, config: RunnableConfig) -> CallResult:
    try:
        name, args, kwargs = json.loads(call.prompt)
        tool = tools[name]
        known = arguments(tool)
        named = {**dict(zip(known, args, strict=False)), **kwargs}
    except (ValueError, KeyError, TypeError, RecursionError):
        return CallResult(None, "there is no such tool")
    if len(args) > len(known):
        return CallResult(None, f"{name} takes {len(known)} arguments, not {len(args)}")
    if strange := sorted(set(kwargs) - set(known)):  # what the host fills in is not for code to set
        return CallResult(None, f"{name} takes no argument {strange[0]!r}; it takes {', '.join(known) or 'none'}")
    try:
        async with tree.tool_gate, asyncio.timeout(tree.ledger.seconds_left()):
            return CallResult(json.dumps(_value(await _result(tool, named, config))))
    except (RLMError, GraphBubbleUp):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a tool raises
        return CallResult(None, f"{name} {_what_failed(error)}")


def _value(result: Any) -> Any:
    """Return what code gets of a result. Content blocks, as MCP servers give them, are text if that is all."""
    if not _is_plain(result):
        return str(result)
    blocks = result if isinstance(result, list) else []
    if blocks and all(isinstance(block, dict) and block.get("type") == "text" for block in blocks):
        return "\n".join(str(block.get("text", "")) for block in blocks)
    return result


async def _result(tool: BaseTool, named: dict[str, Any], config: RunnableConfig) -> Any:
    """Return the result. A plain function has a thread of its own: it may use tools again, and wait for them."""
    given: Any = named
    if tool.response_format == "content_and_artifact":
        given = ToolCall(name=tool.name, args=named, id="repl", type="tool_call")
    if isinstance(tool, StructuredTool) and tool.coroutine is None:
        result = await run_in_new_thread(lambda: tool.invoke(given, config))
    else:
        result = await tool.ainvoke(given, config)
    return _of_message(result) if isinstance(result, ToolMessage) else result


def _of_message(message: ToolMessage) -> Any:
    """Return what a tool message holds for code: the data that MCP servers send beside the text, else the text."""
    if message.status == "error":
        raise ToolException(str(message.text))
    data = message.artifact.get("structured_content") if isinstance(message.artifact, dict) else None
    if not isinstance(data, dict):
        return message.content
    return data["result"] if data.keys() == {"result"} else data


def _what_failed(error: Exception) -> str:
    """Return what the code may know of a failure: a foreign error's text could hold a key."""
    match error:
        case ToolException():
            return f"says: {error}"
        case ValidationError():
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            return f"was called wrongly: {faults}"
        case TimeoutError():
            return "was not done when the time of the run was over"
        case _:
            return f"failed: {type(error).__name__}"


def _from_function(function: Callable[..., Any]) -> BaseTool:
    if not callable(function):
        raise ConfigurationError(f"a tool is a LangChain tool or a function, not {type(function).__name__}")
    try:
        if asyncio.iscoroutinefunction(function):
            return StructuredTool.from_function(coroutine=function)
        return StructuredTool.from_function(function)
    except Exception as error:
        name = getattr(function, "__name__", type(function).__name__)
        need = "it needs a docstring, which tells the model what it does" if not function.__doc__ else str(error)
        raise ConfigurationError(f"{name!r} cannot be a tool: {need}") from error


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
