"""`ChatRLM`: an RLM with the interface of a LangChain chat model, as the RLM paper describes it.

The last human message is the question. The other messages, and the rest of a long question, become the context in
the REPL. So any chain or agent that takes a chat model can work on contexts of any length, without changes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from operator import itemgetter
from typing import Any, Literal, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableMap, RunnablePassthrough
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.integrations.chat_model.per_call import RLMCache, RLMCall, model_name
from rlm_langchain.integrations.chat_model.reply import (
    checked_stop,
    reasoning_chunk,
    reasoning_of,
    reasoning_of_run,
)
from rlm_langchain.integrations.chat_model.structured import answer_schema, parser_of, traced_schema
from rlm_langchain.integrations.chat_model.tools import ToolLike, bound_tools
from rlm_langchain.records import RLMOutput
from rlm_langchain.runnable.options import MODEL_KEYWORDS
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.validation import option_errors

PROVIDER_OPTIONS = frozenset(
    {"temperature", "max_tokens", "timeout", "max_retries", "api_key", "base_url", "streaming"}
)
"""LangChain's standard parameters of providers. A `ChatRLM` has no provider, so they change nothing. They are
accepted because LangChain's standard tests pass them to every chat model."""
STREAM_OPTIONS: dict[str, Any] = {"stream_mode": ["custom", "values"]}


class ChatRLM(BaseChatModel):
    """An RLM behind LangChain's chat model interface. Each call is a new question.

    A call is durable if it is made inside a graph with a checkpointer. A checkpointer of the RLM is not used.
    Raises what its RLM raises, and `InputError` for messages without a question or with pictures.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    rlm: RLMRunnable
    """The RLM that answers, from `create_rlm`. Raises `ConfigurationError` for anything else."""
    long: int = Field(default=4_000, ge=1)
    """Characters from which a message becomes context and is no longer part of the question."""
    tools_in: Literal["repl", "reply"] = "repl"
    """Where bound tools are called. `repl`: by code in the REPL, which keeps their results out of prompts. Calls of
    tools that only the caller can run are returned in the reply. `reply`: all calls are returned in the reply, for
    an agent's own loop with its approvals and hooks."""
    reasoning: bool = True
    """Whether replies contain the turns of the RLM as reasoning. A stream yields them while they happen."""
    stop: list[str] | None = None
    """Words that end a reply. The `stop` of a call replaces them."""

    _check_stop = field_validator("stop", mode="before")(checked_stop)
    _check_rlm = field_validator("rlm", mode="before")(checked_rlm)

    def __init__(
        self,
        rlm: RLMRunnable,
        *,
        long: int = 4_000,
        tools_in: Literal["repl", "reply"] = "repl",
        reasoning: bool = True,
        stop: list[str] | None = None,
        **options: Any,
    ) -> None:
        """Make a chat model of an RLM.

        Args:
            rlm: The RLM that answers, from `create_rlm`.
            long: Characters from which a message becomes context and is no longer part of the question.
            tools_in: Where bound tools are called: "repl", by code in the REPL; "reply", by the caller.
            reasoning: Whether replies contain the turns of the RLM as reasoning.
            stop: Words that end a reply. The `stop` of a call replaces them.
            options: Options of every LangChain chat model, such as `tags` and `rate_limiter`. The standard
            parameters
                of providers (`temperature`, `max_tokens`, `timeout`, `max_retries`, `api_key`, `base_url`,
                `streaming`) change nothing, and a warning is logged: set them on the models of the RLM.

        Raises:
            ConfigurationError: For an unknown option, or a value of the wrong type.
        """
        if ignored := sorted(PROVIDER_OPTIONS & options.keys()):
            logging.getLogger(__name__).warning(
                "%s of a ChatRLM: it changes nothing; set it on the models of the RLM, as in "
                "create_rlm(init_chat_model(..., %s=...))",
                ", ".join(ignored),
                ignored[0],
            )
        options = {name: value for name, value in options.items() if name not in PROVIDER_OPTIONS}
        if misplaced := sorted(MODEL_KEYWORDS & options.keys()):
            raise ConfigurationError(
                f"a ChatRLM does not take {', '.join(misplaced)}: set that on the models of its RLM"
            )
        options |= {"rlm": rlm, "long": long, "tools_in": tools_in, "reasoning": reasoning, "stop": stop}
        with option_errors(type(self)):
            super().__init__(**options)

    _rlms: RLMCache = PrivateAttr(default_factory=RLMCache)

    @property
    def _llm_type(self) -> str:
        return "rlm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "long": self.long, "tools_in": self.tools_in}

    @property
    def model_name(self) -> str:
        """The name of the root model, after "rlm:"."""
        return model_name(self.rlm.root_model)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        name = kwargs.get("model") or self.model_name
        params = LangSmithParams(ls_provider="rlm", ls_model_name=name, ls_model_type="chat")
        return {**params, "ls_stop": stop} if stop else params

    def _resolve_model_profile(self) -> ModelProfile:
        abilities = ("text_inputs", "text_outputs", "tool_calling", "tool_choice", "structured_output")
        return cast(ModelProfile, {**dict.fromkeys(abilities, True), "reasoning_output": self.reasoning})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._rlm_call(kwargs, stop)
        output = call.rlm.invoke(call.input(messages, self.long), _child_config(CallbackManager, run_manager))
        return self._result(call, output, stop)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._rlm_call(kwargs, stop)
        config = _child_config(AsyncCallbackManager, run_manager)
        return self._result(call, await call.rlm.ainvoke(call.input(messages, self.long), config), stop)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call, state = self._rlm_call(kwargs, stop), dict[str, Any]()
        config = _child_config(CallbackManager, run_manager)
        stream = call.rlm.stream(call.input(messages, self.long), config, **STREAM_OPTIONS)
        with closing(cast(Generator[Any], stream)) as parts:
            for part in parts:
                for chunk in self._chunks(part, state):
                    if run_manager:
                        run_manager.on_llm_new_token("", chunk=chunk)
                    yield chunk
        for chunk in call.final_chunks(state, stop or self.stop):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call, state = self._rlm_call(kwargs, stop), dict[str, Any]()
        config = _child_config(AsyncCallbackManager, run_manager)
        stream = call.rlm.astream(call.input(messages, self.long), config, **STREAM_OPTIONS)
        async with aclosing(cast(AsyncGenerator[Any], stream)) as parts:
            async for part in parts:
                for chunk in self._chunks(part, state):
                    if run_manager:
                        await run_manager.on_llm_new_token("", chunk=chunk)
                    yield chunk
        for chunk in call.final_chunks(state, stop or self.stop):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def bind_tools(
        self, tools: Sequence[ToolLike], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools, which are called where `tools_in` says.

        With a `tool_choice` of `any`, or of the name of a tool, the reply is a tool call. Raises
        `ConfigurationError` for a name that no tool has.
        """
        bound_tools(tools, tool_choice, self.tools_in)
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=list(tools), **choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return this model with answers of a type that pydantic can validate, or that fit a JSON schema.

        The host validates them, and the root model gets the faults. If no answer fits, `NoAnswer` is raised, or
        with `include_raw` returned as `parsing_error`. `method` and `strict`, which other models need, change
        nothing.
        """
        if unknown := set(kwargs) - {"method", "strict", "tools"}:
            raise ConfigurationError(f"with_structured_output does not take {', '.join(sorted(unknown))}")
        format_ = {"kwargs": {"method": kwargs.get("method", "json_schema")}, "schema": traced_schema(schema)}
        more: dict[str, Any] = {"tools": list(kwargs["tools"])} if kwargs.get("tools") else {}
        more |= {"include_raw": True} if include_raw else {}
        model = self.bind(response_format=answer_schema(schema), ls_structured_output_format=format_, **more)
        parse = parser_of(schema)
        if not include_raw:
            return model | parse
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parse, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        with_error = parsed.with_fallbacks([failed], exception_key="parsing_error")
        return cast(Runnable[LanguageModelInput, Any], RunnableMap(raw=model) | with_error)

    def _rlm_call(self, kwargs: dict[str, Any], stop: Any) -> RLMCall:
        checked_stop(stop)
        return self._rlms.call_for(self.rlm, kwargs, self.tools_in)

    def _result(self, call: RLMCall, output: RLMOutput, stop: list[str] | None) -> ChatResult:
        reasoning = reasoning_of_run(output["trajectory"]) if self.reasoning else ""
        message = call.reply(output, stop or self.stop).message(reasoning)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, part: Any, state: dict[str, Any]) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of reasoning in a part of the graph's stream. A part with values updates `state`."""
        mode, event = part
        if mode == "values":
            state.update(event)
        elif self.reasoning and (text := reasoning_of(event)):
            yield ChatGenerationChunk(message=reasoning_chunk(text))


def _child_config(kind: type[BaseCallbackManager], run: BaseRunManager | None) -> RunnableConfig:
    """Return the config of a run below the model's own. Run managers of chat models have no `get_child`."""
    if run is None:
        return {}
    manager = kind(handlers=[], parent_run_id=run.run_id)
    manager.set_handlers(run.inheritable_handlers)
    manager.add_tags(run.inheritable_tags)
    manager.add_metadata(run.inheritable_metadata)
    return {"callbacks": manager}
