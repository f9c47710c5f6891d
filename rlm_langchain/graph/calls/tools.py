"""Custom tools: LangChain tools and plain functions, called by code in the REPL and run in the host.

A call of a tool is a task of the graph like a call of a model: journaled, bounded, kept on disk before its result
is used, so that no crash runs it again. What a tool may do is its author's choice: it is not confined.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import wraps
from typing import Any, cast

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, Tool, ToolException
from langgraph.errors import GraphBubbleUp

from rlm_langchain.context.describe import quoted
from rlm_langchain.context.sanitize import clip, quotable
from rlm_langchain.durability.receipts import recorded
from rlm_langchain.errors import ConfigurationError, RLMError
from rlm_langchain.graph.calls.handler import CallHandler, CallSite
from rlm_langchain.graph.calls.host_code import (
    MOST_TOLD,
    definitions,
    exits_as_failures,
    in_own_thread,
    result_of,
    what_failed,
)
from rlm_langchain.graph.calls.tool_names import repl_names
from rlm_langchain.graph.calls.tool_results import Unusable, as_json, of_blocks
from rlm_langchain.graph.calls.tool_schema import (
    aliases,
    arguments,
    check_injected,
    injected,
    needs_call_id,
    signature,
    takes_more,
    unpassable,
)
from rlm_langchain.graph.components import Components, Tools
from rlm_langchain.graph.state import TreeInfo
from rlm_langchain.types import CallResult, ContextRef

_DESCRIBED = 4_000
"""Characters of a description that a prompt holds."""


def tools_of(given: Iterable[BaseTool | Callable[..., Any]], taken: Collection[str] = ()) -> Tools:
    """Return tools by the names that code calls them by: their own, or near ones, see `repl_names`.

    `taken` are names that the strategies bring. Raises `ConfigurationError` for a name or a schema that cannot be
    used, and for an argument that only the graph of an agent could fill in.
    """
    tools = [one if isinstance(one, BaseTool) else _from_function(one) for one in given]
    for tool in tools:
        arguments(tool)
        check_injected(tool)
    return dict(zip(repl_names([tool.name for tool in tools], taken), tools, strict=True))


def guidance(tools: Tools) -> str:
    """Return what the root model reads of tools."""
    if not tools:
        return ""
    lines = [
        f"- `{name}({signature(tool)})`: {_own_name(name, tool)}{described(tool)}" for name, tool in tools.items()
    ]
    return "\n".join(["More functions in the REPL, which are run outside it:", *lines])


def _own_name(name: str, tool: BaseTool) -> str:
    """Return a word on what a tool is called itself, where code has to call it otherwise."""
    return "" if name == tool.name else f"(the tool {quoted(tool.name)}) "


def described(tool: BaseTool) -> str:
    """Return what a tool says of itself, as a prompt may hold it: it may be the text of somebody's server."""
    return quotable(clip(str(tool.description), _DESCRIBED))


class ToolHandler(CallHandler):
    """Handles `tool`: each call is a task of its own, since a tool may pause for a person, as a child run may."""

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines the tools of this run."""
        return definitions("tool", components.tools_of(path))

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return what the root model reads of the tools of this run."""
        return guidance(components.tools_of(path))

    def own_task(self, site: CallSite, tree: TreeInfo) -> dict[str, Any] | None:
        """Return the text of the call, by reference: a tool that has paused goes on without the cell."""
        return {"tool": site.components.store.reference_from_repl(site.asked.call.prompt)}

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Run the tool that the call names, once: its result as JSON, or the sentence of what went wrong."""
        tree, call_path, call = site.tree, site.asked.call_path, site.asked.call
        key = f"{call_path} tool {hashlib.sha256(call.prompt.encode()).hexdigest()}"

        async def run() -> CallResult:
            async with tree.tool_call(call_path) as is_left:
                if not is_left:
                    return CallResult(None, "not run: no tool calls are left", refused="calls")
                return await _run(site, key, config)

        return await recorded(tree.receipts, key, call_path, run)


async def _run(site: CallSite, key: str, config: RunnableConfig) -> CallResult:
    tree = site.tree
    try:
        name, args, kwargs = json.loads(site.asked.call.prompt)
        tool = site.components.tools_of(site.asked.path)[name]
        known = arguments(tool)
        given = [*zip(known, args, strict=False)]
        given += [(aliases(tool).get(argument, argument), value) for argument, value in kwargs.items()]
        named = dict(given)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return CallResult(None, "there is no such tool")
    if len(args) > len(known):
        return CallResult(None, f"{name} takes {len(known)} arguments, not {len(args)}")
    if wrong := _misnamed(tool, [argument for argument, _ in given]):
        return CallResult(None, f"{name} {clip(wrong, MOST_TOLD)}")
    most = site.components.limits.value
    try:
        async with tree.tool_limiter, asyncio.timeout(tree.ledger.seconds_left()):
            return CallResult(await result_of(tree, _result(tool, named, key, config, most)))
    except Unusable as error:
        return CallResult(None, f"{name} ran, but {clip(str(error), MOST_TOLD)}")
    except (RLMError, GraphBubbleUp):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a tool raises
        return CallResult(None, f"{name} {what_failed(error)}")


def _misnamed(tool: BaseTool, given: Sequence[str]) -> str | None:
    """Return what is wrong with the names of arguments, as the end of a sentence about the tool."""
    known = arguments(tool)
    if len(set(given)) < len(given):
        return f"got multiple values for argument {clip(repr(Counter(given).most_common(1)[0][0]), 200)}"
    strange = sorted(set(given) - set(known))
    if strange and (not takes_more(tool) or strange[0] in injected(tool)):  # that is not for code to set
        return f"takes no argument {clip(repr(strange[0]), 200)}; it takes {', '.join(known) or 'none'}"
    return None


async def _result(tool: BaseTool, named: dict[str, Any], key: str, config: RunnableConfig, most: int) -> str:
    """Return the result as JSON. A plain function has a thread of its own: it may use tools, and wait for them."""
    kept: list[Any] = []
    called, given = _keeping(tool, kept), cast(Any, named)
    if tool.response_format == "content_and_artifact" or needs_call_id(tool):
        call_id = f"call_{hashlib.sha256(key.encode()).hexdigest()[:24]}"
        given = ToolCall(name=tool.name, args=named, id=call_id, type="tool_call")

    def told(result: Any) -> str:
        data = _of_message(tool, result, kept)
        is_content = isinstance(result, ToolMessage) and data is result.content
        return as_json(of_blocks(data, is_content=is_content), most)

    if _is_sync(tool):
        return await in_own_thread(lambda: told(called.invoke(given, config)))
    result = await called.ainvoke(given, config)
    return await in_own_thread(lambda: told(result))


def _is_sync(tool: BaseTool) -> bool:
    """Return whether a tool has no async form but a thread."""
    if isinstance(tool, StructuredTool | Tool):
        return tool.coroutine is None
    return type(tool)._arun is BaseTool._arun


def _keeping(tool: BaseTool, kept: list[Any]) -> BaseTool:
    """Return a tool that keeps what its function returns, since the message that LangChain makes of it is text.

    An exit of its function is an error right there: LangChain runs a coroutine as a task of its own, from which an
    exit gets to the event loop.
    """
    if not isinstance(tool, StructuredTool | Tool):
        return tool
    update: dict[str, Any] = {}
    if (function := tool.func) is not None:

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with exits_as_failures():
                kept.append(function(*args, **kwargs))
            return kept[-1]

        update["func"] = called
    if (coroutine := tool.coroutine) is not None:

        @wraps(coroutine)
        async def acalled(*args: Any, **kwargs: Any) -> Any:
            with exits_as_failures():
                kept.append(await coroutine(*args, **kwargs))
            return kept[-1]

        update["coroutine"] = acalled
    return tool.model_copy(update=update)


def _of_message(tool: BaseTool, result: Any, kept: list[Any]) -> Any:
    """Return what a tool has for code: the data that MCP servers send beside the text, else its content."""
    if not isinstance(result, ToolMessage):
        return result
    if result.status == "error":
        raise ToolException(str(result.text))
    data = result.artifact.get("structured_content") if isinstance(result.artifact, dict) else None
    if isinstance(data, dict):
        return data["result"] if data.keys() == {"result"} else data
    if not kept or isinstance(kept[-1], ToolMessage):
        return result.content
    return kept[-1][0] if tool.response_format == "content_and_artifact" else kept[-1]


def _from_function(function: Callable[..., Any]) -> BaseTool:
    if not callable(function):
        raise ConfigurationError(f"a tool is a LangChain tool or a function, not {type(function).__name__}")
    if isinstance(function, type) and issubclass(function, BaseTool):
        raise ConfigurationError(
            f"{function.__name__} is a class of tools: give one of them, {function.__name__}()"
        )
    if not hasattr(function, "__name__"):
        raise ConfigurationError(
            f"a {type(function).__name__} has no name that code could call it by: give a function, or "
            "StructuredTool.from_function(..., name=..., description=...)"
        )
    try:
        if argument := unpassable(function):
            raise ValueError(f"its argument `{argument}` cannot be passed by name; name each of its arguments")
        if asyncio.iscoroutinefunction(function):
            return StructuredTool.from_function(coroutine=function)
        return StructuredTool.from_function(function)
    except Exception as error:
        name = getattr(function, "__name__", type(function).__name__)
        need = "it needs a docstring, which tells the model what it does" if not function.__doc__ else str(error)
        raise ConfigurationError(f"{name!r} cannot be a tool: {need}") from error
