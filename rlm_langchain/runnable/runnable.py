"""`RLMRunnable`: the machine as a LangChain Runnable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from contextvars import copy_context
from pathlib import Path
from textwrap import wrap
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable, ensure_config
from langchain_core.runnables.graph import Graph
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictBool
from typing_extensions import Self

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limits import STOPS
from rlm_langchain.durability.checkpointer import checked_saver
from rlm_langchain.errors import BudgetExhausted, ConfigurationError, NoAnswer
from rlm_langchain.graph.boundary import SEEN
from rlm_langchain.graph.components import NO_RECURSION_LIMIT
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.models.model import Price
from rlm_langchain.protocols import HostFunction, Strategy
from rlm_langchain.records import RLMInput, RLMOutput
from rlm_langchain.run.cancellation import Group, Invocation, supervised
from rlm_langchain.run.event_loops import (
    IN_SYNC_RUN,
    iterate_interruptible,
    run_in_new_thread,
    run_interruptible,
)
from rlm_langchain.runnable.as_node import CONTEXT, MESSAGES, node
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.chains import check_next
from rlm_langchain.runnable.fork import afork, fork, other_thread
from rlm_langchain.runnable.io_schemas import add_chunks, input_model, output_model
from rlm_langchain.runnable.options import (
    AModel,
    ARetriever,
    ASandbox,
    ASaver,
    ASchema,
    LeftToCalls,
    Models,
    SomeFunctions,
    SomeTools,
    check_call,
    check_configurable,
    known_options,
)
from rlm_langchain.runnable.run_scope import CompiledRLM, LangChainInput, invocation_of
from rlm_langchain.runnable.safe_repr import safe_repr
from rlm_langchain.runnable.streaming import (
    EVENTFUL,
    aparts,
    parts,
    streaming,
)
from rlm_langchain.types import Limits
from rlm_langchain.validation import check_types, option_errors

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
_BUILDING = threading.RLock()
"""One machine for all the threads of a batch: it holds the account of each run, the thread of each saver."""


class RLMRunnable(RunnableSerializable[RLMInput | str, RLMOutput]):
    """A recursive language model: answers a question over a context of any length.

    Input: `{"query": ..., "context": ...}`, or a question: a text, a prompt, messages. The context is a `str`,
    a list of them, LangChain documents or messages, a dict, a `Path` to a file or folder, an open file, or None.
    Output: `RLMOutput`.

    Raises `InputError` for input that cannot be used, `ModelError` when the root model does not answer,
    `SandboxError` and `JournalError`. A spent budget does not raise: the output says what ended the run.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, populate_by_name=True, extra="forbid", use_attribute_docstrings=True
    )

    root_model: AModel
    """Writes the code. A name, such as "openai/gpt-4o", "openai:NAME", "ollama:NAME" or "local", or any LangChain
    chat model. A name of no known form is a `ConfigurationError`."""
    recursive_model: Models = None
    """Answers sub-calls: a model as above, or a list with one per depth. Its first answers what the top run asks,
    by a leaf call or as the root of a child run, its second what those child runs ask, and so on; the last one
    serves all below. None: the root model."""
    prices: Mapping[str, Price] = {}
    """Dollars per million tokens, by the names of models, where price lists do not know them or you pay another
    price. A name that is none of these models' is a `ConfigurationError` at the first use, and so is a limit in
    dollars while a price is unknown."""
    sandbox: ASandbox = "auto"
    """Where the code runs: "auto" for the first that works here, the name of one ("cpython", "monty"), or a
    `Sandbox`. A name that is not installed is an `UnknownPlugin`; one that cannot run here, a `SandboxError` at the
    first use."""
    strategies: str | Path | Strategy | Sequence[str | Path | Strategy] = ()
    """Ways to work that the root model is told of: names, folders of skills (a `Path`), `Strategy` values, or
    several of them; "auto" chooses by the context of each run. A name that is not installed is an `UnknownPlugin`
    at the first use."""
    budget: Budget = Budget()
    """What the whole tree of runs may spend: model calls (1,000), dollars, tokens, seconds of work, turns. None in
    it is no limit. A spent budget ends a run, see `on_budget`."""
    limits: Limits = Limits()
    """What each cell may use in the sandbox: 60 seconds of its own time, 1 GiB of memory, 1 MiB of output. A cell
    that passes one is stopped, and the model is told."""
    memo: StrictBool = True
    """Whether identical sub-calls of a run are asked once. False for those who want samples."""
    answer_schema: ASchema = Field(default=None, alias="output_schema")
    """A type that pydantic knows (a model, `list[int]`, a dataclass, a TypedDict, ...), or a JSON schema as a dict:
    the answer fits it, and is an instance of the type. None: any answer. Anything else is a
    `ConfigurationError`."""
    tools: SomeTools = ()
    """LangChain tools and functions that code in the REPL may call. They run in the host, and are not confined.
    What cannot be a tool, such as a function without a docstring, is a `ConfigurationError`."""
    sub_tools: SomeTools | None = None
    """The tools of child runs. None: the same."""
    functions: SomeFunctions = ()
    """Functions of plug-ins that code in the REPL may call, at every depth: names of the entry point group
    `rlm_langchain.calls`, or `HostFunction` values. They run in the host, and are not confined."""
    retriever: ARetriever = None
    """What `search(query, k)` in the REPL goes by. "bm25": words; a LangChain embedding model: words and meaning,
    fused; a LangChain retriever or vector store: that one. None: there is no `search`. Anything else is a
    `ConfigurationError`, and a `MissingDependency`, at the first use, what needs an extra that is not installed."""
    citations: StrictBool = False
    """Whether the answer comes with quotes that the host has found in the context: `output["citations"]`."""
    on_budget: Literal["answer", "raise"] = "answer"
    """What a spent budget does: "answer" ends in the best answer so far; "raise" raises `BudgetExhausted`, whose
    `output` holds it."""
    on_failure: Literal["return", "raise"] = "return"
    """What a run without an answer does: "return" gives back an output that says so; "raise" raises `NoAnswer`,
    whose `output` holds it."""
    checkpointer: ASaver = None
    """A LangGraph checkpoint saver, which makes runs durable. None: runs are not kept, except by a parent graph.
    Anything that is no saver is a `ConfigurationError`."""
    home: Path | None = None
    """The folder in which contexts and receipts are kept. None: `RLM_HOME`, else the user's data folder."""
    name: str | None = None
    """What the RLM is called in traces and graphs. None: "rlm"."""

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
        """The compiled graph, for parents that want it as a subgraph, and for servers. Built at first use."""
        return self.built.graph

    def invoke(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        """Answer. None resumes the thread that `config` names.

        `kwargs` are those of LangGraph: an option of an RLM, and any other keyword, is a `ConfigurationError`.
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
        """Answer, on this event loop; inside a sync run, whose saver may be sync only, in a thread."""
        check_call(kwargs, _OPTIONS)
        in_thread = IN_SYNC_RUN.get()
        await asyncio.to_thread(lambda: self.built)
        settings = self.settings(config, threads=in_thread)
        work = self._ainvoke_in_thread if in_thread else self._ainvoke
        return await supervised(invocation_of(settings), work(input, settings, kwargs))

    async def _ainvoke(self, input: LangChainInput, settings: RunnableConfig, kwargs: dict[str, Any]) -> RLMOutput:
        async with self.built.arunning(input, settings) as (state, _):
            options = self.built.options(kwargs, settings)
            output: RLMOutput = await self.built.graph.ainvoke(state, settings, **options)
            return self.checked(output)

    async def _ainvoke_in_thread(
        self, input: LangChainInput, settings: RunnableConfig, kwargs: dict[str, Any]
    ) -> RLMOutput:
        """Cancelled, the call has ended when its thread has."""
        return await run_in_new_thread(lambda: self._invoke(input, settings, kwargs), abandon=False)

    def stream(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """The output, once, as chains want it. With a `stream_mode`, what happens as it happens, as in LangGraph.

        Records come in mode `custom`.
        """
        check_call(kwargs, _OPTIONS)
        if kwargs.keys() & EVENTFUL:
            yield from parts(self, input, config, kwargs)
        else:
            yield self.invoke(input, config, **kwargs)

    async def astream(
        self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Like `stream`, on this event loop."""
        check_call(kwargs, _OPTIONS)
        if kwargs.keys() & EVENTFUL:
            async with aclosing(aparts(self, input, config, kwargs)) as stream:
                async for part in stream:
                    yield part
        else:
            yield await self.ainvoke(input, config, **kwargs)

    def transform(
        self, input: Iterator[LangChainInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[RLMOutput]:
        """In a chain that streams: the output, once. The next step could do nothing with our events."""
        check_call(kwargs, _OPTIONS)
        asked = add_chunks(input)
        if asked is not None:
            yield self.invoke(asked, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[LangChainInput], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[RLMOutput]:
        """Like `transform`, on this event loop."""
        check_call(kwargs, _OPTIONS)
        asked = add_chunks([part async for part in input])
        if asked is not None:
            yield await self.ainvoke(asked, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RLMOutput]:
        """Answer several at once. The first error ends the others, whose answers nobody would get, unless errors
        are returned."""
        check_call(kwargs, _OPTIONS)
        group = Group()

        def work() -> list[RLMOutput]:
            each = _Member(self, group, return_exceptions)
            return each.batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

        with group.telling():
            return run_interruptible(work, group.cancel)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[RLMOutput]:
        """Like `batch`, on this event loop."""
        check_call(kwargs, _OPTIONS)
        group = Group()
        each = _Member(self, group, return_exceptions)
        try:
            with group.telling():
                return await each.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        except BaseException:
            group.cancel()
            await group.ended()
            raise

    def batch_as_completed(self, inputs: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Like `batch`, each output with its number as soon as it is there. Left early, the others are ended."""
        check_call(kwargs.keys() - {"return_exceptions"}, _OPTIONS)
        group = Group()
        each = _Member(self, group, kwargs.get("return_exceptions", False))
        with group.telling():
            parts = each.batch_as_completed(inputs, config, **kwargs)
            yield from iterate_interruptible(parts, group.cancel, copy_context(), group.cancel)

    async def abatch_as_completed(self, inputs: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Like `batch_as_completed`, on this event loop."""
        check_call(kwargs.keys() - {"return_exceptions"}, _OPTIONS)
        group = Group()
        each = _Member(self, group, kwargs.get("return_exceptions", False))
        try:
            with group.telling():
                async for part in each.abatch_as_completed(inputs, config, **kwargs):
                    yield part
        except BaseException:
            group.cancel()
            await group.ended()
            raise

    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangGraph's typed streams, with `version="v3"`: `values`, `messages`, `subgraphs`, ... of a run."""
        if kwargs.get("version") != "v3":
            return super().stream_events(input, config, **kwargs)
        return streaming(self).stream_events(input, config, **kwargs)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangChain's events. With `version="v3"`, to be awaited: LangGraph's typed streams."""
        if kwargs.get("version") != "v3":
            return super().astream_events(input, config, **{"stream_mode": "updates", **kwargs})

        async def events() -> Any:
            graph = await asyncio.to_thread(streaming, self)
            return await graph.astream_events(input, config, **kwargs)

        return events()

    def fork(self, config: RunnableConfig, *, at: int | None = None, thread: str | None = None) -> RunnableConfig:
        """Begin a new thread with what another one was before its turn `at`, counted from 1.

        The thread, or the checkpoint, is the one that `config` names; without `at`, it goes on from where that
        stands. `thread` names the new one. Nothing is asked yet: this RLM, whose models, strategies and budget may
        be others, goes on with the config that it gives. Raises `InputError`.
        """
        built, to = self.built, other_thread(config, thread)
        with built.thread_scope(to):
            fork(built.components, built.graph, config, at, to)
        return to

    async def afork(
        self, config: RunnableConfig, *, at: int | None = None, thread: str | None = None
    ) -> RunnableConfig:
        """Like `fork`, for savers that are async."""
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
        """A node for a parent graph: reads the question and the context from these keys of its state, writes these.

        `query` may be the key of messages: the question is then the last thing that a person said. An answer of the
        same key is appended as an `AIMessage`. None: "messages", where that is the key of the question, and else
        "answer". `output` is a key for the whole `RLMOutput`. The checkpointer is the parent's; streams (with
        `subgraphs=True`), interrupts and time travel go through the parent. A key that the state does not have is a
        `ConfigurationError` when the node is run, before anything is paid; "context" need not be there.
        """
        check_types("as_node", str, query=query, context=context)
        check_types("as_node", (str, NoneType), answer=answer, output=output)
        answer = answer or (MESSAGES if query == MESSAGES else "answer")
        keys = {"query": query, "context": context, "answer": answer, **({"output": output} if output else {})}
        return node(self.model_copy(update={"checkpointer": None}), cast(Any, keys))

    def __or__(self, other: Any) -> Any:
        """Go on with the output, a dict. Raises `ConfigurationError` for a step that takes none."""
        check_next(other)
        return super().__or__(other)

    def pipe(self, *others: Any, name: str | None = None) -> Any:
        """Like `|`, with several steps."""
        check_next(others[0] if others else None)
        return super().pipe(*others, name=name)

    def bind(self, **kwargs: Any) -> Runnable[Any, RLMOutput]:
        """LangChain's, of what a call takes. Raises `ConfigurationError` for anything else."""
        check_call(kwargs, _OPTIONS)
        return super().bind(**kwargs)

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Runnable[Any, RLMOutput]:
        """LangChain's. Raises `ConfigurationError` for an option that this RLM does not leave to its calls."""
        check_configurable(cast(RunnableConfig, {**(config or {}), **kwargs}), self._given)
        return super().with_config(config, **kwargs)

    def configurable_fields(self, **kwargs: Any) -> LeftToCalls:
        """LangChain's: leave options to the calls."""
        found: Any = super().configurable_fields(**kwargs)
        return LeftToCalls(default=found.default, fields=found.fields)

    def completion(self, query: str, context: Any = None, **options: Any) -> RLMOutput:
        """`invoke` in the words of the RLM paper. `options` as there."""
        check_call(options, _OPTIONS)
        return self.invoke({"query": query, "context": context}, **options)

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """A question and its context; a bare question is taken too."""
        return input_model()

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """An `RLMOutput`, with the type of its answer."""
        return output_model(self.answer_schema)

    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph:
        """The machine, to be drawn: alone, or as a part of a chain."""
        return self.graph.get_graph(config, xray=xray)

    def checked(self, output: RLMOutput) -> RLMOutput:
        """An output as the options want it: typed, or an error for a spent budget.

        What LangGraph's own options made of it (`stream_mode`, `version`) is left as it is.
        """
        if not isinstance(output, dict):
            return output
        if self.on_budget == "raise" and output.get("stop_reason") in STOPS:
            raise BudgetExhausted(output)
        if self.on_failure == "raise" and output.get("status") == "failed":
            raise NoAnswer(output)
        schema = self.built.components.schema
        if schema is not None and output.get("status") in ("complete", "partial"):
            return {**output, "answer": schema.instance(output["answer"])}
        return output

    @property
    def _given(self) -> dict[str, Any]:
        """The options by the names that they are given by."""
        fields = type(self).model_fields.items()
        return {field.alias or name: getattr(self, name) for name, field in fields if name != "name"}

    @property
    def built(self) -> CompiledRLM:
        """The machine and its graph, built at first use."""
        if self._built is None:
            with _BUILDING:
                self._built = self._built or self._build()
        return self._built

    def _build(self) -> CompiledRLM:
        components, saver = assemble(self), checked_saver(self.checkpointer)
        return CompiledRLM(components, rlm_graph(components).compile(checkpointer=saver, name=self.name or "rlm"))

    def settings(self, config: RunnableConfig | None, *, threads: bool = False) -> RunnableConfig:
        """The graph's config. Parents hand LangChain's default of 25 steps down; a budget ends a run, not steps.

        With `threads`, for a sync run: each task of LangGraph holds one, so no more than can have something to do.
        """
        settings: RunnableConfig = {**ensure_config(config), "recursion_limit": NO_RECURSION_LIMIT}
        check_configurable(settings, self._given)
        settings["configurable"] = {
            **settings.get("configurable", {}),
            SEEN: Invocation(self.built.components.trees),
        }
        if threads and settings.get("max_concurrency") is None:
            settings["max_concurrency"] = 2 * self.budget.concurrency + SPARE_THREADS
        return settings

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The options, as tracers keep them: a model by its name, since its URL and headers may hold keys."""
        for name, value in super().__repr_args__():
            yield name, safe_repr(value)

    def __getstate__(self) -> dict[Any, Any]:
        """Options can be pickled, what was built from them cannot: it is built again."""
        return {**super().__getstate__(), "__pydantic_private__": {"_built": None}}

    def __setattr__(self, name: str, value: Any) -> None:
        """Other options make another machine."""
        super().__setattr__(name, value)
        if name in type(self).model_fields:
            self._built = None

    def __copy__(self) -> Self:
        """The options; a copy has a graph of its own."""
        copied = super().__copy__()
        copied._built = None
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The same, with copies of the options."""
        options = self.__copy__()
        return super(RLMRunnable, options).__deepcopy__(memo)


def _describe_options(rlm: Any) -> str:
    """Return what `help()` shows of the options: the docstrings of their attributes."""
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


def checked_rlm(given: Any) -> RLMRunnable:
    """Return what was given as an RLM. Raises `ConfigurationError` for anything else."""
    if not isinstance(given, RLMRunnable):
        raise ConfigurationError(f"rlm={given!r} cannot be used: give an RLM, as `create_rlm` makes one")
    return given


class _Member(Runnable[Any, RLMOutput]):
    """An RLM as one of the calls of a batch, whose failure ends the others."""

    def __init__(self, rlm: RLMRunnable, group: Group, return_exceptions: bool) -> None:
        self._rlm, self._group, self._return_exceptions = rlm, group, return_exceptions

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        with self._group.member(failing=not self._return_exceptions):
            return self._rlm.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        with self._group.member(failing=not self._return_exceptions):
            return await self._rlm.ainvoke(input, config, **kwargs)
