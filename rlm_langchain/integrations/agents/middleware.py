"""`RLMContextMiddleware`: an agent of LangChain whose prompts stay short, however much its tools bring.

Text that is too long is moved out of the conversation (`offload.py`), and the agent gets a tool to ask about it: an
RLM over the moved text. Tool output is moved before it enters the agent's state, so no checkpoint ever holds it.
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
    """Moves long tool outputs, long messages and old ones out of an agent's prompt, and lets it ask about them.

    `long` is in characters of one text, `history` in those of all messages together. Handles are good wherever the
    messages are and `RLM_HOME` is the same. Contexts that were moved are kept there until they are collected.
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
        self._mover = Offloader(ContextStore(rlm.home), tool_name, long, history)
        self.tools: Sequence[BaseTool] = [self._tool()]

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]
    ) -> ToolResult:
        """What the tool gives back, moved when it is long."""
        return self._shorter(handler(request))

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        """The same; the loop does not wait for the disk."""
        return await asyncio.to_thread(self._shorter, await handler(request))

    def before_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """The conversation, without what is too long in it."""
        moved = self._mover.conversation(state["messages"])
        return None if moved is None else {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *moved]}

    async def abefore_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """The same; the loop does not wait for the disk."""
        return await asyncio.to_thread(self.before_model, state, runtime)

    def _shorter(self, result: ToolResult) -> ToolResult:
        if isinstance(result, ToolMessage):
            return self._mover.shorter(result)
        update = result.update
        if not isinstance(update, dict) or not isinstance(update.get("messages"), list):
            return result
        messages = [self._mover.shorter(m) if isinstance(m, BaseMessage) else m for m in update["messages"]]
        return Command(
            graph=result.graph, update={**update, "messages": messages}, resume=result.resume, goto=result.goto
        )

    def _tool(self) -> BaseTool:
        def ask(query: str, contexts: list[str], runtime: ToolRuntime[Any, Any]) -> str:
            found = self._found(runtime, contexts)
            return tool_output(self._rlm.invoke({"query": query, "context": found}, runtime.config))[0]

        async def aask(query: str, contexts: list[str], runtime: ToolRuntime[Any, Any]) -> str:
            found = await asyncio.to_thread(self._found, runtime, contexts)
            return tool_output(await self._rlm.ainvoke({"query": query, "context": found}, runtime.config))[0]

        return StructuredTool.from_function(
            ask,
            aask,
            name=self._mover.tool,
            description=(
                "Answers a question about text that was moved out of this conversation because it is long, by "
                "reading all of it. `contexts` are names like `ctx_0123456789ab`, as this conversation mentions "
                "them; give several to compare them. `query` says all that is needed to answer."
            ),
            handle_tool_error=True,
        )

    def _found(self, runtime: ToolRuntime[Any, Any], contexts: list[str]) -> Any:
        try:
            return self._mover.context(runtime.state["messages"], contexts)
        except InputError as error:
            raise ToolException(str(error)) from error
        except JournalError as error:
            raise ToolException(f"the text of {', '.join(contexts)} is no longer there: {error}") from error
