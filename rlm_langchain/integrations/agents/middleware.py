"""`RLMContextMiddleware`: keeps the prompts of a LangChain agent short, however long the outputs of its tools are.

Long text is offloaded from the conversation (see `offload.py`), and the agent gets a tool to ask an RLM about it.
Tool output is offloaded before it enters the agent's state, so no checkpoint contains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, RemoveMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command

from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import (
    ConfigurationError,
    InputError,
    JournalError,
    MissingDependency,
)
from rlm_langchain.integrations.agents.offload import Offloader
from rlm_langchain.integrations.agents.tool import tool_output
from rlm_langchain.runnable.options import known_options
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.validation import check_types

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ToolCallRequest
    from langchain.tools import ToolRuntime
except ImportError as error:
    raise MissingDependency(
        'RLMContextMiddleware needs langchain, which is not installed: pip install "rlm-langchain[agents]"'
    ) from error

ToolResult = ToolMessage | Command[Any]


class RLMContextMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Offloads long tool outputs, long messages and old messages of an agent, and lets the agent ask about them.

    Args:
    rlm: The RLM that answers questions about offloaded text. Its checkpointer is not used.
    long: Length from which a text is offloaded, in characters.
    history: Length of all messages together from which older ones are offloaded, in characters.
    tool_name: The name of the tool by which the agent asks.

    The name of an offloaded context is valid wherever the messages are, with the same `RLM_HOME`. Its text is
    stored there until it is garbage-collected.
    """

    @known_options
    def __init__(
        self, rlm: RLMRunnable, *, long: int = 20_000, history: int = 200_000, tool_name: str = "ask_context"
    ) -> None:
        super().__init__()
        checked_rlm(rlm)
        check_types("RLMContextMiddleware", str, tool_name=tool_name)
        if any(type(size) is not int for size in (long, history)) or not 0 < long <= history:
            raise ConfigurationError(
                f"long={long}, history={history}: both are whole numbers above 0, and long is not more"
            )
        self._rlm = rlm.model_copy(update={"checkpointer": None})
        self._offloader = Offloader(ContextStore(rlm.home), tool_name, long, history)
        self.tools: Sequence[BaseTool] = [self._tool()]

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]
    ) -> ToolResult:
        """Call the tool, and offload a long result."""
        return self._shorten(handler(request))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Call the tool, and offload a long result in a thread."""
        return await asyncio.to_thread(self._shorten, await handler(request))

    def before_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Return the conversation with long and old messages offloaded, or None if nothing changes."""
        messages = self._offloader.conversation(state["messages"])
        return None if messages is None else {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *messages]}

    async def abefore_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Do what `before_model` does, in a thread."""
        return await asyncio.to_thread(self.before_model, state, runtime)

    def _shorten(self, result: ToolResult) -> ToolResult:
        if isinstance(result, ToolMessage):
            return self._offloader.shorten(result)
        update = result.update
        if not isinstance(update, dict) or not isinstance(update.get("messages"), list):
            return result
        messages = [self._offloader.shorten(m) if isinstance(m, BaseMessage) else m for m in update["messages"]]
        return Command(
            graph=result.graph, update={**update, "messages": messages}, resume=result.resume, goto=result.goto
        )

    def _tool(self) -> BaseTool:
        def ask(query: str, contexts: list[str], runtime: ToolRuntime[Any, Any]) -> str:
            context = self._contexts(runtime, contexts)
            return tool_output(self._rlm.invoke({"query": query, "context": context}, runtime.config))[0]

        async def aask(query: str, contexts: list[str], runtime: ToolRuntime[Any, Any]) -> str:
            context = await asyncio.to_thread(self._contexts, runtime, contexts)
            return tool_output(await self._rlm.ainvoke({"query": query, "context": context}, runtime.config))[0]

        return StructuredTool.from_function(
            ask,
            aask,
            name=self._offloader.tool,
            description=(
                "Answers a question about text that was moved out of this conversation because it is long, by "
                "reading all of it. `contexts` are names like `ctx_0123456789ab`, as this conversation mentions "
                "them; give several to compare them. `query` says all that is needed to answer."
            ),
            handle_tool_error=True,
        )

    def _contexts(self, runtime: ToolRuntime[Any, Any], names: list[str]) -> Any:
        """Return the contexts with these names. Raises `ToolException`, which the agent reads."""
        try:
            return self._offloader.context(runtime.state["messages"], names)
        except InputError as error:
            raise ToolException(str(error)) from error
        except JournalError as error:
            raise ToolException(f"the text of {', '.join(names)} is no longer there: {error}") from error
