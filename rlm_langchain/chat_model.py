"""`ChatRLM`: a language model that is an RLM, the paper's own view of it.

Whatever is long in the messages becomes the context, in the REPL; the last short thing that a person said is the
question. So a chain or an agent that takes a chat model can be given contexts of any length, unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool
from pydantic import BaseModel

from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.runnable import RLMRunnable
from rlm_langchain.types import RLMInput, RLMOutput

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool


class Question(NamedTuple):
    """What a conversation asks of an RLM."""

    query: str
    context: Any


class ChatRLM(BaseChatModel):
    """An RLM behind LangChain's chat model interface.

    Tools that are bound become functions of the REPL: the RLM calls them itself, and its reply holds no tool calls.
    """

    rlm: RLMRunnable
    long: int = 4_000
    """Characters from which on a message is context rather than conversation."""

    @property
    def _llm_type(self) -> str:
        return "rlm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "long": self.long}

    @property
    def model_name(self) -> str:
        """That of the root model."""
        model = self.rlm.root_model
        return model if isinstance(model, str) else getattr(model, "model_name", type(model).__name__)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        output = self._with(kwargs).invoke(self._asked(messages), _below(CallbackManager, run_manager))
        return self._result(output, stop)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        output = await self._with(kwargs).ainvoke(self._asked(messages), _below(AsyncCallbackManager, run_manager))
        return self._result(output, stop)

    def bind_tools(
        self, tools: Sequence[Tool], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Make tools functions of the REPL. Raises `ConfigurationError` for a tool that is only a description."""
        for tool in tools:
            if isinstance(tool, dict | type):
                raise ConfigurationError(
                    "an RLM calls its tools itself, so it takes functions and LangChain tools, not schemas of them"
                )
        return self.bind(tools=tuple(tools), **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers that fit a pydantic model or a JSON schema: `output_schema` of the RLM, checked in the host."""
        typed = self.rlm.model_copy(update={"answer_schema": schema})

        def ask(given: LanguageModelInput) -> Any:
            return _structured(typed.invoke(self._asked(self._messages(given))), include_raw)

        async def aask(given: LanguageModelInput) -> Any:
            return _structured(await typed.ainvoke(self._asked(self._messages(given))), include_raw)

        return RunnableLambda(ask, aask)

    def _messages(self, given: LanguageModelInput) -> list[BaseMessage]:
        return self._convert_input(given).to_messages()

    def _with(self, kwargs: dict[str, Any]) -> RLMRunnable:
        tools = kwargs.get("tools", ())
        return self.rlm.model_copy(update={"tools": (*self.rlm.tools, *tools)}) if tools else self.rlm

    def _asked(self, messages: Sequence[BaseMessage]) -> RLMInput:
        query, context = question(messages, self.long)
        return {"query": query, "context": context}

    def _result(self, output: RLMOutput, stop: list[str] | None) -> ChatResult:
        message = AIMessage(
            content=_cut(_as_text(output["answer"]), stop),
            usage_metadata=_usage(output),
            response_metadata={
                "model_name": self.model_name,
                "status": output["status"],
                "stop_reason": output["stop_reason"],
                "cost_usd": output["cost_usd"],
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def question(messages: Sequence[BaseMessage], long: int) -> Question:
    """The question and the context in a conversation. Raises `InputError` when nobody asks anything."""
    asking = next((i for i in reversed(range(len(messages))) if messages[i].type == "human"), None)
    if asking is None or not messages[asking].text.strip():
        raise InputError("there is no human message to answer")
    query, rest = _apart(messages[asking].text, long)
    others = [m for i, m in enumerate(messages) if i != asking and m.text.strip()]
    told = [m.text for m in others if m.type == "system" and len(m.text) < long]
    read = [m for m in others if not (m.type == "system" and len(m.text) < long)]
    context = [{"role": m.type, "content": m.text} for m in read]
    if rest:
        context.append({"role": "human", "content": rest})
    whole: Any = context[0]["content"] if len(context) == 1 else context
    return Question("\n\n".join([*told, query]), whole or None)


def _apart(text: str, long: int) -> tuple[str, str]:
    """A long message is a question and what it is about: the question is its first or its last paragraph."""
    if len(text) < long:
        return text, ""
    head, _, after = text.partition("\n\n")
    before, _, tail = text.rpartition("\n\n")
    if after and len(head) < long and head.rstrip().endswith(("?", ":")):
        return head, after
    if before and len(tail) < long:
        return tail, before
    return "Do what the text in `context` asks for; it begins with its instructions or ends with them.", text


def _below(kind: type[BaseCallbackManager], run: BaseRunManager | None) -> RunnableConfig:
    """The config of a run below a model's own: chat models' run managers, unlike others', make no children."""
    if run is None:
        return {}
    manager = kind(handlers=[], parent_run_id=run.run_id)
    manager.set_handlers(run.inheritable_handlers)
    manager.add_tags(run.inheritable_tags)
    manager.add_metadata(run.inheritable_metadata)
    return {"callbacks": manager}


def _structured(output: RLMOutput, include_raw: bool) -> Any:
    if not include_raw:
        return output["answer"] if output["status"] != "failed" else None
    failed = output["status"] == "failed"
    raw = AIMessage(content=_as_text(output["answer"]), usage_metadata=_usage(output))
    return {"raw": raw, "parsed": None if failed else output["answer"], "parsing_error": None}


def _as_text(answer: Any) -> str:
    if isinstance(answer, BaseModel):
        return answer.model_dump_json()
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _cut(text: str, stop: list[str] | None) -> str:
    ends = [text.find(word) for word in stop or () if word in text]
    return text[: min(ends)] if ends else text


def _usage(output: RLMOutput) -> UsageMetadata:
    both = [output["usage"]["root"], output["usage"]["sub"]]
    read, written = sum(u["input"] for u in both), sum(u["output"] for u in both)
    return UsageMetadata(
        input_tokens=read,
        output_tokens=written,
        total_tokens=read + written,
        input_token_details=InputTokenDetails(cache_read=sum(u["cached"] for u in both)),
    )
