"""Custom tools: LangChain tools and plain functions, called by code in the REPL and run in the host.

A tool call is a task of the graph like a call to a model. It is recorded in the journal, counts towards the budget,
and its result is written to disk before it is used, so that no crash repeats the call. A tool is not sandboxed: it
may do whatever its author wrote.
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
    MAX_ERROR_CHARS,
    definitions,
    exits_as_failures,
    failure_message,
    in_own_thread,
    result_of,
)
from rlm_langchain.graph.calls.tool_names import repl_names
from rlm_langchain.graph.calls.tool_results import UnusableResult, as_json, text_of_blocks
from rlm_langchain.graph.calls.tool_schema import (
    aliases,
    argument_schemas,
    check_injected,
    injected_arguments,
    needs_call_id,
    signature,
    takes_other_arguments,
    unpassable_argument,
)
from rlm_langchain.graph.components import Components, Tools
from rlm_langchain.graph.state import TreeInfo
from rlm_langchain.types import CallResult, ContextRef

_MAX_DESCRIPTION_CHARS = 4_000
"""The most characters of a tool's description in a prompt."""


def tools_by_name(options: Iterable[BaseTool | Callable[..., Any]], in_use: Collection[str] = ()) -> Tools:
    """Return tools by their names in the REPL: their own names, or similar ones (`repl_names`).

    `in_use` are names that strategies define. Raises `ConfigurationError` for a name or a schema that cannot be
    used, and for an argument that only the graph of an agent could fill in.
    """
    tools = [one if isinstance(one, BaseTool) else _from_function(one) for one in options]
    for tool in tools:
        argument_schemas(tool)
        check_injected(tool)
    return dict(zip(repl_names([tool.name for tool in tools], in_use), tools, strict=True))


def guidance(tools: Tools) -> str:
    """Return the description of tools for the root model's prompt."""
    if not tools:
        return ""
    lines = [
        f"- `{name}({signature(tool)})`: {_original_name(name, tool)}{description_of(tool)}"
        for name, tool in tools.items()
    ]
    return "\n".join(["More functions in the REPL, which are run outside it:", *lines])


def _original_name(name: str, tool: BaseTool) -> str:
    """Return a note with the tool's own name, if its name in the REPL is another one."""
    return "" if name == tool.name else f"(the tool {quoted(tool.name)}) "


def description_of(tool: BaseTool) -> str:
    """Return a tool's description, clipped and escaped for a prompt: it may come from somebody else's server."""
    return quotable(clip(str(tool.description), _MAX_DESCRIPTION_CHARS))


class ToolHandler(CallHandler):
    """Handles `tool`. Each call is a separate task, because a tool may pause for a person, like a child run."""

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines the tools of this run in the REPL."""
        return definitions("tool", components.tools_of(path))

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return the description of this run's tools for the root model's prompt."""
        return guidance(components.tools_of(path))

    def own_task(self, site: CallSite, tree: TreeInfo) -> dict[str, Any] | None:
        """Return a reference to the text of the call. With it, a paused tool can be resumed without the REPL."""
        return {"tool": site.components.store.reference_from_repl(site.numbered.call.prompt)}

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Run the tool that the call names, once. Return its result as JSON, or an error message."""
        tree, call_path, call = site.tree, site.numbered.call_path, site.numbered.call
        key = f"{call_path} tool {hashlib.sha256(call.prompt.encode()).hexdigest()}"

        async def run() -> CallResult:
            async with tree.tool_call(call_path) as is_left:
                if not is_left:
                    return CallResult(None, "not run: no tool calls are left", refused="tool_calls")
                return await _run(site, key, config)

        return await recorded(tree.receipts, key, call_path, run)


async def _run(site: CallSite, key: str, config: RunnableConfig) -> CallResult:
    """Check the arguments of a call, and run its tool. `key` identifies the call."""
    tree = site.tree
    try:
        name, args, kwargs = json.loads(site.numbered.call.prompt)
        tool = site.components.tools_of(site.numbered.path)[name]
        names = [*argument_schemas(tool)]
        pairs = [*zip(names, args, strict=False)]
        pairs += [(aliases(tool).get(argument, argument), value) for argument, value in kwargs.items()]
        arguments = dict(pairs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return CallResult(None, "there is no such tool")
    if len(args) > len(names):
        return CallResult(None, f"{name} takes {len(names)} arguments, not {len(args)}")
    if problem := _argument_problem(tool, [argument for argument, _ in pairs]):
        return CallResult(None, f"{name} {clip(problem, MAX_ERROR_CHARS)}")
    most = site.components.limits.value
    try:
        async with tree.tool_limiter, asyncio.timeout(tree.ledger.seconds_left()):
            return CallResult(await result_of(tree, _result(tool, arguments, key, config, most)))
    except UnusableResult as error:
        return CallResult(None, f"{name} ran, but {clip(str(error), MAX_ERROR_CHARS)}")
    except (RLMError, GraphBubbleUp):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a tool raises
        return CallResult(None, f"{name} {failure_message(error)}")


def _argument_problem(tool: BaseTool, names: Sequence[str]) -> str | None:
    """Return why a tool cannot be called with arguments of these names, as the end of a sentence about the tool.
    None if it can."""
    if len(set(names)) < len(names):
        return f"got multiple values for argument {clip(repr(Counter(names).most_common(1)[0][0]), 200)}"
    accepted = argument_schemas(tool)
    unknown = sorted(set(names) - set(accepted))
    # Code must not set injected arguments.
    if unknown and (not takes_other_arguments(tool) or unknown[0] in injected_arguments(tool)):
        return f"takes no argument {clip(repr(unknown[0]), 200)}; it takes {', '.join(accepted) or 'none'}"
    return None


async def _result(tool: BaseTool, arguments: dict[str, Any], key: str, config: RunnableConfig, most: int) -> str:
    """Call a tool, and return its result as JSON of at most `most` bytes.

    A plain function runs in a new thread: it may call tools and wait for them. Raises `UnusableResult`, and the
    errors of the tool.
    """
    results: list[Any] = []
    capturing, tool_input = _capturing(tool, results), cast(Any, arguments)
    if tool.response_format == "content_and_artifact" or needs_call_id(tool):
        call_id = f"call_{hashlib.sha256(key.encode()).hexdigest()[:24]}"
        tool_input = ToolCall(name=tool.name, args=arguments, id=call_id, type="tool_call")

    def to_json(result: Any) -> str:
        data = _data_of(tool, result, results)
        is_content = isinstance(result, ToolMessage) and data is result.content
        return as_json(text_of_blocks(data, is_content=is_content), most)

    if _is_sync(tool):
        return await in_own_thread(lambda: to_json(capturing.invoke(tool_input, config)))
    result = await capturing.ainvoke(tool_input, config)
    return await in_own_thread(lambda: to_json(result))


def _is_sync(tool: BaseTool) -> bool:
    """Return whether a tool has only a synchronous function."""
    if isinstance(tool, StructuredTool | Tool):
        return tool.coroutine is None
    return type(tool)._arun is BaseTool._arun


def _capturing(tool: BaseTool, results: list[Any]) -> BaseTool:
    """Return a copy of a tool that appends what its function returns to `results`. LangChain's message has only
    text.

    The copy raises `Failed` for an exit of its function, because LangChain runs a coroutine as a separate task, and
    an exit of that task would end the event loop.
    """
    if not isinstance(tool, StructuredTool | Tool):
        return tool
    update: dict[str, Any] = {}
    if (function := tool.func) is not None:

        @wraps(function)
        def captured(*args: Any, **kwargs: Any) -> Any:
            with exits_as_failures():
                results.append(function(*args, **kwargs))
            return results[-1]

        update["func"] = captured
    if (coroutine := tool.coroutine) is not None:

        @wraps(coroutine)
        async def acaptured(*args: Any, **kwargs: Any) -> Any:
            with exits_as_failures():
                results.append(await coroutine(*args, **kwargs))
            return results[-1]

        update["coroutine"] = acaptured
    return tool.model_copy(update=update)


def _data_of(tool: BaseTool, result: Any, results: list[Any]) -> Any:
    """Return a tool's result as data: the structured content of an MCP server, or what the function returned, or
    the content of the message. Raises `ToolException` for a message with an error."""
    if not isinstance(result, ToolMessage):
        return result
    if result.status == "error":
        raise ToolException(str(result.text))
    data = result.artifact.get("structured_content") if isinstance(result.artifact, dict) else None
    if isinstance(data, dict):
        return data["result"] if data.keys() == {"result"} else data
    if not results or isinstance(results[-1], ToolMessage):
        return result.content
    return results[-1][0] if tool.response_format == "content_and_artifact" else results[-1]


def _from_function(function: Callable[..., Any]) -> BaseTool:
    """Make a tool from a function. Raises `ConfigurationError`."""
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
        if argument := unpassable_argument(function):
            raise ValueError(f"its argument `{argument}` cannot be passed by name; name each of its arguments")
        if asyncio.iscoroutinefunction(function):
            return StructuredTool.from_function(coroutine=function)
        return StructuredTool.from_function(function)
    except Exception as error:
        name = getattr(function, "__name__", type(function).__name__)
        need = "it needs a docstring, which tells the model what it does" if not function.__doc__ else str(error)
        raise ConfigurationError(f"{name!r} cannot be a tool: {need}") from error
