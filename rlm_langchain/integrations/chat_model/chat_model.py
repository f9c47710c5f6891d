"""`ChatRLM`: a language model that is an RLM, the paper's own view of it.

Whatever is long in the messages becomes the context, in the REPL; the last short thing that a person said is the
question. So a chain or an agent that takes a chat model can be given contexts of any length, unchanged.
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
from rlm_langchain.integrations.chat_model.reply import checked_stop, thinking, thought, thoughts
from rlm_langchain.integrations.chat_model.structured import answer_schema, parser_of, traced_schema
from rlm_langchain.integrations.chat_model.tools import Given, bound_tools
from rlm_langchain.records import RLMOutput
from rlm_langchain.runnable.options import OF_A_MODEL
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.validation import option_errors

PROVIDERS_OPTIONS = frozenset(
    {"temperature", "max_tokens", "timeout", "max_retries", "api_key", "base_url", "streaming"}
)
"""Standard parameters of LangChain that its own tests give to every chat model. Ours has no provider."""
EVENTS: dict[str, Any] = {"stream_mode": ["custom", "values"]}


class ChatRLM(BaseChatModel):
    """An RLM behind LangChain's chat model interface. Each call is a question of its own, durable where it is asked
    within a graph that is: a checkpointer of the RLM is not used.

    Raises what its RLM raises, and `InputError` for messages that ask nothing or hold pictures.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    rlm: RLMRunnable
    """What answers, as `create_rlm` makes it. Anything else is a `ConfigurationError`."""
    long: int = Field(default=4_000, ge=1)
    """Characters from which on a message is context rather than conversation."""
    tools_in: Literal["repl", "reply"] = "repl"
    """Where bound tools are called. `repl`: by code, which keeps their results out of prompts; what only the caller
    can run is handed back. `reply`: all are handed back, for an agent's own loop with its approvals and hooks."""
    reasoning: bool = True
    """Whether replies hold what the RLM did, as reasoning. A stream shows it while it happens."""
    stop: list[str] | None = None
    """Words that end a reply, unless a call brings its own."""

    _are_words = field_validator("stop", mode="before")(checked_stop)
    _is_rlm = field_validator("rlm", mode="before")(checked_rlm)

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
            rlm: What answers, as `create_rlm` makes it.
            long: Characters from which on a message is context rather than conversation.
            tools_in: Where bound tools are called: "repl", by code; "reply", by the caller.
            reasoning: Whether replies hold what the RLM did, as reasoning.
            stop: Words that end a reply, unless a call brings its own.
            options: Those that every chat model of LangChain has, such as `tags` and `rate_limiter`. LangChain's
                standard parameters of providers (`temperature`, `max_tokens`, `timeout`, `max_retries`, `api_key`,
                `base_url`, `streaming`) are taken, logged, and change nothing: set them on its RLM's models.

        Raises:
            ConfigurationError: For an option that there is not, or whose value is of another kind.
        """
        if useless := sorted(PROVIDERS_OPTIONS & options.keys()):
            logging.getLogger(__name__).warning(
                "%s of a ChatRLM: it changes nothing; set it on the models of the RLM, as in "
                "create_rlm(init_chat_model(..., %s=...))",
                ", ".join(useless),
                useless[0],
            )
        options = {name: value for name, value in options.items() if name not in PROVIDERS_OPTIONS}
        if theirs := sorted(OF_A_MODEL & options.keys()):
            raise ConfigurationError(
                f"a ChatRLM does not take {', '.join(theirs)}: set that on the models of its RLM"
            )
        options |= {"rlm": rlm, "long": long, "tools_in": tools_in, "reasoning": reasoning, "stop": stop}
        with option_errors(type(self)):
            super().__init__(**options)

    _memory: RLMCache = PrivateAttr(default_factory=RLMCache)

    @property
    def _llm_type(self) -> str:
        return "rlm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "long": self.long, "tools_in": self.tools_in}

    @property
    def model_name(self) -> str:
        """The name of the root model, with "rlm" and a colon before it."""
        return model_name(self.rlm.root_model)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        named = kwargs.get("model") or self.model_name
        told = LangSmithParams(ls_provider="rlm", ls_model_name=named, ls_model_type="chat")
        return {**told, "ls_stop": stop} if stop else told

    def _resolve_model_profile(self) -> ModelProfile:
        able = ("text_inputs", "text_outputs", "tool_calling", "tool_choice", "structured_output")
        return cast(ModelProfile, {**dict.fromkeys(able, True), "reasoning_output": self.reasoning})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = self._asked(kwargs, stop)
        output = asked.rlm.invoke(asked.input(messages, self.long), _below(CallbackManager, run_manager))
        return self._result(asked, output, stop)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = self._asked(kwargs, stop)
        config = _below(AsyncCallbackManager, run_manager)
        return self._result(asked, await asked.rlm.ainvoke(asked.input(messages, self.long), config), stop)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked, state = self._asked(kwargs, stop), dict[str, Any]()
        config = _below(CallbackManager, run_manager)
        stream = asked.rlm.stream(asked.input(messages, self.long), config, **EVENTS)
        with closing(cast(Generator[Any], stream)) as parts:
            for part in parts:
                for chunk in self._chunks(part, state):
                    if run_manager:
                        run_manager.on_llm_new_token("", chunk=chunk)
                    yield chunk
        for chunk in asked.end(state, stop or self.stop):
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
        asked, state = self._asked(kwargs, stop), dict[str, Any]()
        config = _below(AsyncCallbackManager, run_manager)
        stream = asked.rlm.astream(asked.input(messages, self.long), config, **EVENTS)
        async with aclosing(cast(AsyncGenerator[Any], stream)) as parts:
            async for part in parts:
                for chunk in self._chunks(part, state):
                    if run_manager:
                        await run_manager.on_llm_new_token("", chunk=chunk)
                    yield chunk
        for chunk in asked.end(state, stop or self.stop):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def bind_tools(
        self, tools: Sequence[Given], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let replies use tools, as `tools_in` says. A `tool_choice` of `any`, or of a name, asks for a reply that
        is a call. Raises `ConfigurationError` for one that names no tool."""
        bound_tools(tools, tool_choice, self.tools_in)
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=list(tools), **choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers that fit a type that pydantic knows, or a JSON schema: the host checks them, and the root model
        is told what does not fit. None that fits is `NoAnswer`; with `include_raw`, a `parsing_error`. `method` and
        `strict`, which other models need, make no difference."""
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
        either = parsed.with_fallbacks([failed], exception_key="parsing_error")
        return cast(Runnable[LanguageModelInput, Any], RunnableMap(raw=model) | either)

    def _asked(self, kwargs: dict[str, Any], stop: Any) -> RLMCall:
        checked_stop(stop)
        return self._memory.asked(self.rlm, kwargs, self.tools_in)

    def _result(self, asked: RLMCall, output: RLMOutput, stop: list[str] | None) -> ChatResult:
        reasoning = thoughts(output["trajectory"]) if self.reasoning else ""
        message = asked.told(output, stop or self.stop).message(reasoning)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, part: Any, state: dict[str, Any]) -> Iterator[ChatGenerationChunk]:
        """What a part of the graph's stream adds to the reply; the graph's state is noted."""
        mode, event = part
        if mode == "values":
            state.update(event)
        elif self.reasoning and (text := thought(event)):
            yield ChatGenerationChunk(message=thinking(text))


def _below(kind: type[BaseCallbackManager], run: BaseRunManager | None) -> RunnableConfig:
    """The config of a run below a model's own: chat models' run managers, unlike others', make no children."""
    if run is None:
        return {}
    manager = kind(handlers=[], parent_run_id=run.run_id)
    manager.set_handlers(run.inheritable_handlers)
    manager.add_tags(run.inheritable_tags)
    manager.add_metadata(run.inheritable_metadata)
    return {"callbacks": manager}
