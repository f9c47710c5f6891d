"""`RLMRunnable`: an RLM as a LangChain Runnable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableSerializable,
    ensure_config,
)
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import ConfigurableFieldMultiOption, ConfigurableFieldSingleOption
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictBool
from typing_extensions import Self

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limiters import Pace
from rlm_langchain.budget.limits import STOPS
from rlm_langchain.durability.checkpointer import checked_saver
from rlm_langchain.errors import BudgetExhausted, ConfigurationError, NoAnswer
from rlm_langchain.graph.boundary import BUDGET_KEY, INVOCATION_KEY
from rlm_langchain.graph.components import NO_RECURSION_LIMIT
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.graph.parent_graphs import watch_parents
from rlm_langchain.models.model import Price
from rlm_langchain.protocols import HostFunction, Strategy
from rlm_langchain.records import RLMInput, RLMOutput, with_contexts
from rlm_langchain.run.cancellation import Group, Invocation, run_supervised
from rlm_langchain.run.event_loops import (
    IN_SYNC_RUN,
    iterate_interruptible,
    run_in_new_thread,
    run_interruptible,
)
from rlm_langchain.run.run_tree import RunTreeRegistry
from rlm_langchain.runnable.as_node import CONTEXT, MESSAGES, make_node
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.chains import check_next
from rlm_langchain.runnable.fork import afork, fork, other_thread
from rlm_langchain.runnable.io_schemas import add_chunks, input_model, output_model
from rlm_langchain.runnable.options import (
    SCHEMA_ALIAS,
    SCHEMA_FIELD,
    CheckpointerOption,
    ConfigurableRLM,
    FunctionsOption,
    ModelOption,
    RetrieverOption,
    SandboxOption,
    SchemaOption,
    SubModelsOption,
    ToolsOption,
    check_batch,
    check_call,
    check_config,
    check_configurable,
    known_options,
)
from rlm_langchain.runnable.run_scope import CompiledRLM, LangChainInput, invocation_of
from rlm_langchain.runnable.safe_repr import safe_repr
from rlm_langchain.runnable.streaming import (
    EVENT_OPTIONS,
    astream_parts,
    graph_with_own_stream,
    stream_parts,
)
from rlm_langchain.types import Limits
from rlm_langchain.validation import check_names, check_types, option_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.tools import BaseTool
    from langchain_core.vectorstores import VectorStore
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from rlm_langchain.models.model import Model
    from rlm_langchain.protocols import Sandbox

SPARE_THREADS = 8
_CONFIGURABLE = (ConfigurableField, ConfigurableFieldSingleOption, ConfigurableFieldMultiOption)
"""The types of the arguments of `configurable_fields`."""
_BUILDING = threading.RLock()
"""Held while an RLM is built. All threads of a batch must share one, with its ledgers and thread locks."""


class RLMRunnable(RunnableSerializable[RLMInput | str, RLMOutput]):
    """A recursive language model: answers a question about a context of any length.

    Input: `{"query": ..., "context": ...}`, or a question: a text, a prompt, messages. The context is a `str`,
    a list of them, LangChain documents or messages, a dict, a `Path` to a file or folder, an open file, or
    None. Output: `RLMOutput`.

    Raises `InputError` for input that cannot be used, `ModelError` if the root model does not answer,
    `SandboxError` and `JournalError`. An exhausted budget raises nothing: the output says what ended the run.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, populate_by_name=True, extra="forbid", use_attribute_docstrings=True
    )

    root_model: ModelOption
    """The model that writes the code: a name, such as "openai/gpt-4o", "openai:NAME", "ollama:NAME" or "local",
    or any LangChain chat model. A name of unknown form raises `ConfigurationError`."""
    recursive_model: SubModelsOption = None
    """The model that answers sub-calls, or a list with one model per depth. The first answers the calls of the
    top run, as a plain sub-call or as the root model of a child run, the second the calls of those child
    runs, and so on; the last one serves all deeper levels. None: the root model."""
    prices: Mapping[str, Price] = {}
    """Dollars per million tokens, by model name, for models that are in no price list or for which you pay
    another price. On first use, a name of none of these models raises `ConfigurationError`, and so does a
    limit in dollars with an unknown price."""
    sandbox: SandboxOption = "auto"
    """Where the code runs: "auto" for the first sandbox that works here, the name of one ("cpython", "monty"),
    or a `Sandbox`. A name that is not installed raises `UnknownPlugin`. One that cannot run here raises
    `SandboxError` on first use."""
    strategies: str | Path | Strategy | Sequence[str | Path | Strategy] = ()
    """Strategies for the root model: a name, a folder of skills (a `Path`), a `Strategy`, or several of them.
    "auto" chooses by the context of each run. A name that is not installed raises `UnknownPlugin` on first
    use."""
    budget: Budget = Budget()
    """What the whole tree of runs may spend: model calls (1,000), dollars, tokens, seconds of work, turns. A
    limit of None does not apply. An exhausted budget ends a run, see `on_budget`."""
    limits: Limits = Limits()
    """What each cell may use in the sandbox: 60 seconds of its own time, 1 GiB of memory, 1 MiB of output. A
    cell that exceeds a limit is stopped, and the model is informed."""
    memo: StrictBool = True
    """Whether identical sub-calls of a run are made only once. Use False to get several samples."""
    answer_schema: SchemaOption = Field(default=None, alias="output_schema")
    """The type of the answer, of which the answer is an instance: a type that pydantic knows (a model, `list[int]`,
    a dataclass, a TypedDict, ...), or a JSON schema as a dict. None: any answer. Anything else raises
    `ConfigurationError`."""
    tools: ToolsOption = ()
    """LangChain tools and functions that code in the REPL may call. They run in the host without confinement.
    Something that cannot be a tool, such as a function without a docstring, raises `ConfigurationError`."""
    sub_tools: ToolsOption | None = None
    """The tools of child runs. None: the same as `tools`."""
    functions: FunctionsOption = ()
    """Plug-in functions that code in the REPL may call, at every depth: names of the entry point group
    `rlm_langchain.calls`, or `HostFunction` values. They run in the host without confinement. A name that is
    not installed raises `ConfigurationError`."""
    retriever: RetrieverOption = None
    """What `search(query, k)` in the REPL ranks by. "bm25": words. A LangChain embedding model: words and
    meaning, fused. A LangChain retriever or vector store: whatever that one uses. None: there is no
    `search`. Anything else raises `ConfigurationError`; a missing extra raises `MissingDependency` on first
    use."""
    citations: StrictBool = False
    """Whether the answer comes with quotes that the host has verified in the context, in `output["citations"]`."""
    on_budget: Literal["answer", "raise"] = "answer"
    """What happens when the budget is exhausted. "answer": the run ends with its best answer so far. "raise":
    it raises `BudgetExhausted`, whose `output` holds that answer."""
    on_failure: Literal["return", "raise"] = "return"
    """What happens when a run has no answer. "return": it returns an output that says so. "raise": it raises
    `NoAnswer`, whose `output` holds it."""
    checkpointer: CheckpointerOption = None
    """A LangGraph checkpointer, which makes runs durable. None: runs are not saved, except by a parent graph.
    Anything else raises `ConfigurationError`."""
    home: Path | None = None
    """The folder for contexts and receipts. None: `RLM_HOME`, else the user's data folder."""
    name: str | None = None
    """The name of the RLM in traces and graphs. None: "rlm"."""

    _built: CompiledRLM | None = PrivateAttr(default=None)

    @known_options
    def __init__(  # noqa: PLR0913 - a keyword for each option
        self,
        root_model: str | BaseChatModel | Model,
        *,
        recursive_model: str | BaseChatModel | Model | Sequence[str | BaseChatModel | Model] | None = None,
        prices: Mapping[str, Price] = {},
        sandbox: str | Sandbox = "auto",
        strategies: str | Path | Strategy | Sequence[str | Path | Strategy] = (),
        budget: Budget = Budget(),
        limits: Limits = Limits(),
        memo: bool = True,
        output_schema: Any = None,
        tools: Sequence[BaseTool | Callable[..., Any]] = (),
        sub_tools: Sequence[BaseTool | Callable[..., Any]] | None = None,
        functions: Sequence[str | HostFunction] = (),
        retriever: Literal["bm25"] | Embeddings | BaseRetriever | VectorStore | None = None,
        citations: bool = False,
        on_budget: Literal["answer", "raise"] = "answer",
        on_failure: Literal["return", "raise"] = "return",
        checkpointer: BaseCheckpointSaver[Any] | bool | None = None,
        home: Path | None = None,
        name: str | None = None,
    ) -> None:
        """Make an RLM from a model and options. `create_rlm` describes each of them, as its attribute does."""
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        with option_errors(type(self)):
            super().__init__(**options)

    @property
    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The compiled graph, for use as a subgraph and in servers. Built on first use."""
        return self.built.graph

    def invoke(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        """Answer a question. None resumes the thread that `config` names.

        `kwargs` are LangGraph's. An option of an RLM, or any other keyword, is a `ConfigurationError`.
        """
        check_call(kwargs, _OPTIONS)
        return self._invoke(input, self.settings(config, threads=True), kwargs)

    def _invoke(self, input: LangChainInput, settings: RunnableConfig, kwargs: dict[str, Any]) -> RLMOutput:
        built, invocation = self.built, invocation_of(settings)
        with built.run_scope(input, settings) as (state, _):
            output: RLMOutput = run_interruptible(
                lambda: built.graph.invoke(state, settings, **built.options(kwargs, settings)),
                invocation.cancel,
                invocation.context(),
            )
            return self.checked(output)

    async def ainvoke(
        self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RLMOutput:
        """Answer a question on this event loop. Inside a sync run, whose checkpointer may be sync only, it uses
        a thread."""
        check_call(kwargs, _OPTIONS)
        in_thread = IN_SYNC_RUN.get()
        await asyncio.to_thread(lambda: self.built)
        settings = self.settings(config, threads=in_thread)
        work = self._ainvoke_in_thread if in_thread else self._ainvoke
        return await run_supervised(invocation_of(settings), work(input, settings, kwargs))

    async def _ainvoke(self, input: LangChainInput, settings: RunnableConfig, kwargs: dict[str, Any]) -> RLMOutput:
        async with self.built.arun_scope(input, settings) as (state, _):
            options = self.built.options(kwargs, settings)
            output: RLMOutput = await self.built.graph.ainvoke(state, settings, **options)
            return self.checked(output)

    async def _ainvoke_in_thread(
        self, input: LangChainInput, settings: RunnableConfig, kwargs: dict[str, Any]
    ) -> RLMOutput:
        """Run `invoke` in a thread. If cancelled, return only after the thread has ended."""
        return await run_in_new_thread(lambda: self._invoke(input, settings, kwargs), abandon=False)

    def stream(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Yield the output once, as chains expect. With a `stream_mode`, yield events as they happen, like
        LangGraph.

        Records come in mode `custom`.
        """
        check_call(kwargs, _OPTIONS)
        if kwargs.keys() & EVENT_OPTIONS:
            yield from stream_parts(self, input, config, kwargs)
        else:
            yield self.invoke(input, config, **kwargs)

    async def astream(
        self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Do what `stream` does, on this event loop."""
        check_call(kwargs, _OPTIONS)
        if kwargs.keys() & EVENT_OPTIONS:
            async with aclosing(astream_parts(self, input, config, kwargs)) as stream:
                async for part in stream:
                    yield part
        else:
            yield await self.ainvoke(input, config, **kwargs)

    def transform(
        self, input: Iterator[LangChainInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[RLMOutput]:
        """Yield the output once, as a step of a streaming chain. The next step could not handle our events."""
        check_call(kwargs, _OPTIONS)
        whole_input = add_chunks(input)
        if whole_input is not None:
            yield self.invoke(whole_input, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[LangChainInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[RLMOutput]:
        """Do what `transform` does, on this event loop."""
        check_call(kwargs, _OPTIONS)
        whole_input = add_chunks([part async for part in input])
        if whole_input is not None:
            yield await self.ainvoke(whole_input, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RLMOutput]:
        """Answer several questions in parallel. The first error cancels the others, because nobody would get
        their answers, unless `return_exceptions` is set."""
        check_call(kwargs, _OPTIONS)
        check_batch(inputs, config)
        group = Group()

        def work() -> list[RLMOutput]:
            member = _Member(self, group, return_exceptions)
            return member.batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

        with group.raising_cause():
            return run_interruptible(work, group.cancel)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RLMOutput]:
        """Do what `batch` does, on this event loop."""
        check_call(kwargs, _OPTIONS)
        check_batch(inputs, config)
        group = Group()
        member = _Member(self, group, return_exceptions)
        try:
            with group.raising_cause():
                return await member.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        except BaseException:
            group.cancel()
            await group.wait_ended()
            raise

    def batch_as_completed(self, inputs: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Do what `batch` does, but yield each output with its index as soon as it is ready. Leaving early
        cancels the rest."""
        check_call(kwargs.keys() - {"return_exceptions"}, _OPTIONS)
        group = Group()
        member = _Member(self, group, kwargs.get("return_exceptions", False))
        with group.raising_cause():
            parts = member.batch_as_completed(inputs, config, **kwargs)
            yield from iterate_interruptible(parts, group.cancel, copy_context(), group.cancel)

    async def abatch_as_completed(self, inputs: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Do what `batch_as_completed` does, on this event loop."""
        check_call(kwargs.keys() - {"return_exceptions"}, _OPTIONS)
        group = Group()
        member = _Member(self, group, kwargs.get("return_exceptions", False))
        try:
            with group.raising_cause():
                async for part in member.abatch_as_completed(inputs, config, **kwargs):
                    yield part
        except BaseException:
            group.cancel()
            await group.wait_ended()
            raise

    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return LangGraph's typed streams of a run, with `version="v3"`: `values`, `messages`, `subgraphs`, ..."""
        if kwargs.get("version") != "v3":
            return super().stream_events(input, config, **kwargs)
        return graph_with_own_stream(self).stream_events(input, config, **kwargs)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return LangChain's events. With `version="v3"` return an awaitable of LangGraph's typed streams."""
        if kwargs.get("version") != "v3":
            return super().astream_events(input, config, **{"stream_mode": "updates", **kwargs})

        async def events() -> Any:
            graph = await asyncio.to_thread(graph_with_own_stream, self)
            return await graph.astream_events(input, config, **kwargs)

        return events()

    def fork(self, config: RunnableConfig, *, at: int | None = None, thread: str | None = None) -> RunnableConfig:
        """Start a new thread with the state that another one had before turn `at`, counted from 1.

        `config` names the other thread, or one of its checkpoints; without `at`, the fork continues from there.
        `thread` names the new thread. No call is made yet. Pass the returned config to this RLM, which may have
        other models, strategies and budget, to continue. Raises `InputError`.
        """
        built, to = self.built, other_thread(config, thread)
        with built.thread_scope(to):
            fork(built.components, built.graph, config, at, to)
        return to

    async def afork(
        self, config: RunnableConfig, *, at: int | None = None, thread: str | None = None
    ) -> RunnableConfig:
        """Do what `fork` does, for async checkpointers."""
        built, to = await asyncio.to_thread(lambda: self.built), other_thread(config, thread)
        async with built.athread_scope(to):
            await afork(built.components, built.graph, config, at, to)
        return to

    @known_options
    def as_node(
        self,
        *,
        query: str = "query",
        context: str = CONTEXT,
        answer: str | None = None,
        output: str | None = None,
    ) -> Any:
        """Return a node for a parent graph. It reads the question and the context from these keys of the
        parent's state, and writes the answer to `answer`.

        `query` may be the key of messages: the question is then the last message of a person. If `answer` is the
        same key, the answer is appended as an `AIMessage`. `answer=None` means "messages" if that is the key of the
        question, else "answer". `output` is a key for the whole `RLMOutput`. The checkpointer is the parent's;
        streams (with `subgraphs=True`), interrupts and time travel work through the parent. A key that the
        state does not have raises `ConfigurationError` when the node runs, before anything is paid for. "context"
        may be absent.
        """
        check_types("as_node", str, query=query, context=context)
        check_types("as_node", (str, NoneType), answer=answer, output=output)
        answer = answer or (MESSAGES if query == MESSAGES else "answer")
        keys = {"query": query, "context": context, "answer": answer, **({"output": output} if output else {})}
        return make_node(self.model_copy(update={"checkpointer": None}), cast(Any, keys))

    def __or__(self, other: Any) -> Any:
        """Chain a step that gets the output, a dict. Raises `ConfigurationError` if the step accepts no dict."""
        check_next(other)
        return super().__or__(other)

    def pick(self, keys: str | list[str]) -> Any:
        """Return an RLM whose output has only these keys of the `RLMOutput`. Raises `ConfigurationError` for an
        unknown key."""
        check_names([keys] if isinstance(keys, str) else keys, RLMOutput.__annotations__)
        return super().pick(keys)

    def pipe(self, *others: Any, name: str | None = None) -> Any:
        """Do what `|` does, with several steps."""
        check_next(others[0] if others else None)
        return super().pipe(*others, name=name)

    def bind(self, **kwargs: Any) -> Runnable[Any, RLMOutput]:
        """Return this RLM with keywords bound to its calls. Raises `ConfigurationError` for one that no call
        accepts."""
        check_call(kwargs, _OPTIONS)
        return super().bind(**kwargs)

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Runnable[Any, RLMOutput]:
        """Return this RLM with a config bound to its calls.

        Raises `ConfigurationError` for an option under `configurable` that this RLM does not leave to its calls.
        """
        check_configurable(cast(RunnableConfig, {**(config or {}), **kwargs}), self._options_by_name)
        return super().with_config(config, **kwargs)

    def configurable_fields(self, **kwargs: Any) -> ConfigurableRLM:
        """Return this RLM with options that the config of a call may set. Raises `ConfigurationError` for an
        unknown option."""
        check_names([SCHEMA_FIELD if name == SCHEMA_ALIAS else name for name in kwargs], type(self).model_fields)
        check_types("configurable_fields", _CONFIGURABLE, **kwargs)
        found: Any = super().configurable_fields(**kwargs)
        return ConfigurableRLM(default=found.default, fields=found.fields)

    def completion(self, query: str, context: Any = None, **options: Any) -> RLMOutput:
        """Answer a question about a context, under the name of the RLM paper. `options` are those of `invoke`."""
        check_call(options, _OPTIONS)
        return self.invoke({"query": query, "context": context}, **options)

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """Return the schema of a question and its context. `invoke` accepts a plain question, too."""
        return input_model()

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """Return the schema of an `RLMOutput`, with the type of its answer."""
        return output_model(self.answer_schema)

    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """Return the graph for drawing: alone, or as a part of a chain."""
        return self.graph.get_graph(config, xray=xray)

    def checked(self, output: RLMOutput) -> RLMOutput:
        """Return the output in the form that the options ask for: with a typed answer, or as an exception for
        an exhausted budget or a missing answer.

        Output in another form because of LangGraph's own options (`stream_mode`, `version`) is returned
        unchanged.
        """
        if not isinstance(output, dict):
            return output
        if "trajectory" in output:
            output = with_contexts(output)
        if self.on_budget == "raise" and output.get("stop_reason") in STOPS:
            raise BudgetExhausted(output)
        if self.on_failure == "raise" and output.get("status") == "failed":
            raise NoAnswer(output)
        schema = self.built.components.schema
        if schema is not None and output.get("status") in ("complete", "partial"):
            return {**output, "answer": schema.instance(output["answer"])}
        return output

    @property
    def _options_by_name(self) -> dict[str, Any]:
        """Return the options by the names that callers use for them."""
        fields = type(self).model_fields.items()
        return {field.alias or name: getattr(self, name) for name, field in fields if name != "name"}

    @property
    def built(self) -> CompiledRLM:
        """Return the components and their graph, built on first use."""
        if self._built is None:
            with _BUILDING:
                self._built = self._built or self._build()
        return self._built

    def _build(self) -> CompiledRLM:
        components, saver = assemble(self), checked_saver(self.checkpointer)
        return CompiledRLM(components, rlm_graph(components).compile(checkpointer=saver, name=self.name or "rlm"))

    def at_pace(self, pace: Pace) -> Self:
        """Return a copy whose runs share a pace: requests in flight and per minute are counted over all of them."""
        built = self.built
        components = replace(built.components, trees=RunTreeRegistry(pace))
        graph = rlm_graph(components).compile(checkpointer=built.graph.checkpointer, name=built.graph.name)
        copied = self.model_copy()
        copied._built = CompiledRLM(components, graph)
        return copied

    def settings(self, config: RunnableConfig | None, *, threads: bool = False) -> RunnableConfig:
        """Return the graph's config. Parents pass down LangChain's default of 25 steps, but here the budget
        ends a run.

        `threads` is for a sync run. Each task of LangGraph occupies a thread, so there are only as many as can
        have work.
        """
        check_config(config)
        settings: RunnableConfig = {**ensure_config(config), "recursion_limit": NO_RECURSION_LIMIT}
        configurable = dict(settings.get("configurable", {}))
        # It is taken out, because calls within this one have budgets of their own.
        invocation = Invocation(self.built.components.trees, configurable.pop(BUDGET_KEY, None))
        watch_parents(invocation, settings)
        check_configurable(settings, self._options_by_name)
        settings["configurable"] = cast(Any, {**configurable, INVOCATION_KEY: invocation})
        if threads and settings.get("max_concurrency") is None:
            settings["max_concurrency"] = 2 * self.budget.concurrency + SPARE_THREADS
        return settings

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield the options for `repr`, which tracers store. A model is shown by its name, because its URL and
        headers may contain keys."""
        for name, value in super().__repr_args__():
            yield name, safe_repr(value)

    def __getstate__(self) -> dict[Any, Any]:
        """Return the options. What was built from them cannot be pickled and is built again."""
        return {**super().__getstate__(), "__pydantic_private__": {"_built": None}}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an option, and drop what was built from the old ones."""
        super().__setattr__(name, value)
        if name in type(self).model_fields:
            self._built = None

    def __copy__(self) -> Self:
        """Copy the options. The copy builds its own graph."""
        copied = super().__copy__()
        copied._built = None
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the options deeply. The copy builds its own graph."""
        options = self.__copy__()
        return super(RLMRunnable, options).__deepcopy__(memo)


def _describe_options(rlm: Any) -> str:
    """Return the description of the options for `help()`, from the docstrings of their attributes."""
    lines = ["Make an RLM from a model and options.", "", "Args:"]
    for name, option in rlm.model_fields.items():
        lines += wrap(
            f"{option.alias or name}: {' '.join((option.description or '').split())}",
            116,
            initial_indent="    ",
            subsequent_indent="        ",
        )
    return "\n".join(lines)


_OPTIONS = frozenset(field.alias or name for name, field in RLMRunnable.model_fields.items())
RLMRunnable.__init__.__doc__ = _describe_options(RLMRunnable)


def checked_rlm(value: Any) -> RLMRunnable:
    """Return the argument if it is an RLM. Raises `ConfigurationError` for anything else."""
    if not isinstance(value, RLMRunnable):
        raise ConfigurationError(f"rlm={value!r} cannot be used: give an RLM, as `create_rlm` makes one")
    return value


class _Member(Runnable[Any, RLMOutput]):
    """One call of a batch. Its failure cancels the others, unless exceptions are returned."""

    def __init__(self, rlm: RLMRunnable, group: Group, return_exceptions: bool) -> None:
        self._rlm, self._group, self._return_exceptions = rlm, group, return_exceptions

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        with self._group.member(failing=not self._return_exceptions):
            return self._rlm.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        with self._group.member(failing=not self._return_exceptions):
            return await self._rlm.ainvoke(input, config, **kwargs)
