"""Custom tools: LangChain tools and plain functions, called by code in the REPL and run in the host.

A call of a tool is a task of the graph like a call of a model: journaled, bounded, kept on disk before its result
is used, so that no crash runs it again. What a tool may do is its author's choice: it is not confined.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.errors import GraphBubbleUp
from pydantic import ValidationError

from rlm_langchain.errors import ConfigurationError, RLMError
from rlm_langchain.portal import in_own_thread
from rlm_langchain.receipts import TOOL
from rlm_langchain.sandboxes.reserved import RESERVED
from rlm_langchain.types import Call, LeafReply, Usage

if TYPE_CHECKING:
    from rlm_langchain.tree import Tree

Tools = dict[str, BaseTool]


def tools_of(given: Iterable[BaseTool | Callable[..., Any]]) -> Tools:
    """Tools by the names that code calls them by. Raises `ConfigurationError` for a name that cannot be used."""
    tools: Tools = {}
    for one in given:
        tool = one if isinstance(one, BaseTool) else _from_function(one)
        if wrong := _unusable(tool.name, tools):
            raise ConfigurationError(f"a tool cannot be called {tool.name!r}: {wrong}. Rename it")
        tools[tool.name] = tool
    return tools


def _unusable(name: str, tools: Tools) -> str | None:
    """Why code could not call a tool by this name."""
    if not name.isidentifier() or iskeyword(name):
        return "that is no name in Python"
    if name in RESERVED:
        return "the REPL has a function of that name"
    return "there are two of that name" if name in tools else None


def prelude(tools: Tools) -> str:
    """What defines the tools in the REPL: the arguments go out as JSON, the result comes back as JSON."""
    if not tools:
        return ""
    return "import json\n\n\n" + "\n\n\n".join(
        f"def {name}(*args, **kwargs):\n"
        f"    call = json.dumps([{name!r}, list(args), kwargs])\n"
        '    return json.loads(_host_call("tool", call))'
        for name in tools
    )


def guidance(tools: Tools) -> str:
    """What the root model reads of them."""
    if not tools:
        return ""
    lines = [
        f"- `{name}({', '.join(_told(*argument) for argument in tool.args.items())})`: {tool.description}"
        for name, tool in tools.items()
    ]
    return "\n".join(["More functions in the REPL, which are run outside it:", *lines])


def _told(name: str, schema: Any) -> str:
    """An argument with its type and what it is when it is left out, as far as its schema says so."""
    told = schema if isinstance(schema, dict) else {}
    kinds = [kind.get("type") for kind in (told, *told.get("anyOf", ()))]
    kind = " | ".join(str(kind) for kind in kinds if isinstance(kind, str))
    default = f" = {told['default']!r}" if "default" in told else ""
    return f"{name}{f': {kind}' if kind else ''}{default}"


async def use(tools: Tools, tree: Tree, call: Call, place: str, config: RunnableConfig) -> LeafReply:
    """Run the tool that a call names, once: its result as JSON, or the sentence of what went wrong."""
    key = f"{place}{TOOL}{hashlib.sha256(call.prompt.encode()).hexdigest()}"
    known = tree.receipts.find(key) if tree.receipts else None
    if known is not None:
        return LeafReply(known["text"])
    if not tree.take_tool(place):
        return LeafReply(None, "not run: no tool calls are left", refused="calls")
    reply = await _run(tools, call, tree, config)
    if tree.receipts and reply.text is not None:
        await tree.receipts.ready()
        tree.receipts.write(key, {"place": place, "text": reply.text, "usage": Usage().record()})
    return reply


async def _run(tools: Tools, call: Call, tree: Tree, config: RunnableConfig) -> LeafReply:
    try:
        name, args, kwargs = json.loads(call.prompt)
        tool = tools[name]
        named = {**dict(zip(tool.args, args, strict=False)), **kwargs}
    except (ValueError, KeyError, TypeError, RecursionError):
        return LeafReply(None, "there is no such tool")
    if len(args) > len(tool.args):
        return LeafReply(None, f"{name} takes {len(tool.args)} arguments, not {len(args)}")
    if strange := sorted(set(kwargs) - set(tool.args)):  # what the host fills in is not for code to set
        return LeafReply(
            None, f"{name} takes no argument {strange[0]!r}; it takes {', '.join(tool.args) or 'none'}"
        )
    try:
        async with tree.tool_gate, asyncio.timeout(tree.ledger.seconds_left()):
            result = await _result(tool, named, config)
    except (RLMError, GraphBubbleUp):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a tool raises
        return LeafReply(None, f"{name} {_what_failed(error)}")
    return LeafReply(json.dumps(_value(result)))


def _value(result: Any) -> Any:
    """What code gets of a result. Content blocks, as tools of MCP servers give them, are text if that is all."""
    if not _is_plain(result):
        return str(result)
    blocks = result if isinstance(result, list) else []
    if blocks and all(isinstance(block, dict) and block.get("type") == "text" for block in blocks):
        return "\n".join(str(block.get("text", "")) for block in blocks)
    return result


async def _result(tool: BaseTool, named: dict[str, Any], config: RunnableConfig) -> Any:
    """A plain function has a thread of its own: what it does may use tools again, and wait for them."""
    given: Any = named
    if tool.response_format == "content_and_artifact":
        given = ToolCall(name=tool.name, args=named, id="repl", type="tool_call")
    if isinstance(tool, StructuredTool) and tool.coroutine is None:
        result = await in_own_thread(lambda: tool.invoke(given, config))
    else:
        result = await tool.ainvoke(given, config)
    return _of_message(result) if isinstance(result, ToolMessage) else result


def _of_message(message: ToolMessage) -> Any:
    """What a message of a tool holds for code: the data that MCP servers send beside the text, else the text."""
    if message.status == "error":
        raise ToolException(str(message.text))
    data = message.artifact.get("structured_content") if isinstance(message.artifact, dict) else None
    if not isinstance(data, dict):
        return message.content
    return data["result"] if data.keys() == {"result"} else data


def _what_failed(error: Exception) -> str:
    """What the code may know of it: a foreign error's text could hold a key."""
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
