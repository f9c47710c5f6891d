"""`RLMRunnable` and `create_rlm`: the machine as a LangChain Runnable."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

from langchain_core.runnables import RunnableConfig, RunnableSerializable, ensure_config
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot
from pydantic import ConfigDict, PrivateAttr

from rlm_langchain import clients
from rlm_langchain.assemble import assemble
from rlm_langchain.errors import BudgetExhausted, InputError
from rlm_langchain.graph import rlm_graph
from rlm_langchain.lease import lease
from rlm_langchain.machine import Machine
from rlm_langchain.portal import PORTAL, interruptible
from rlm_langchain.protocols import Strategy
from rlm_langchain.types import Budget, Limits, RLMInput, RLMOutput

LIMITS = ("iterations", "calls", "tokens", "usd", "seconds")
SYNC_THREADS = 256
"""LangGraph's threads for a sync run: a child run needs one while it works."""


Asked = RLMInput | str | Command[Any] | None
"""A question; or None to resume a thread, or `Command(resume=...)` to answer what it waits for."""
Begun = dict[str, Any] | Command[Any] | None


class _Built(NamedTuple):
    machine: Machine
    graph: CompiledStateGraph[Any, Any, Any, Any]


class RLMRunnable(RunnableSerializable[RLMInput | str, RLMOutput]):
    """A recursive language model: answers a question over a context of any length.

    Input: `{"query": ..., "context": ...}`, or a question alone. The context is a `str`, a list of them, LangChain
    documents or messages, a dict, a `Path` to a file or folder, an open file, or None. Output: `RLMOutput`.

    Raises `InputError` for input that cannot be used, `ModelError` when the root model does not answer,
    `SandboxError` and `JournalError`. A spent budget does not raise: the output says what ended the run.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    root_model: Any
    """A name, as in `docs/models.md`, or any `BaseChatModel`: writes the code."""
    recursive_model: Any = None
    """For sub-calls; a list gives one per depth. None: the root model."""
    sandbox: Any = "auto"
    """`auto`, the name of one, or a `Sandbox`."""
    strategies: Sequence[str | Path | Strategy] = ()
    """Names, folders of skills, values."""
    budget: Budget = Budget()
    limits: Limits = Limits()
    """Of each cell in the sandbox."""
    memo: bool = True
    """Whether identical sub-calls of a run are asked once. False for those who want samples."""
    on_budget: Literal["answer", "raise"] = "answer"
    """What a spent budget does: end in the best answer, or raise `BudgetExhausted`, which holds that output."""
    checkpointer: Any = None
    """Any LangGraph saver: makes runs durable."""
    home: Path | None = None
    """Where contexts are kept. None: `RLM_HOME`, else the user's data folder."""

    _built: _Built | None = PrivateAttr(default=None)

    @property
    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The compiled graph, for parents that want it as a subgraph, and for servers. Built at first use."""
        return self._build().graph

    def invoke(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        """Answer. None resumes the thread that `config` names."""
        graph, trees = self.graph, self._build().machine.trees
        settings = self._config(config)
        settings.setdefault("max_concurrency", SYNC_THREADS)
        with self._running(self._begin(input), settings) as (state, run):
            output: RLMOutput = interruptible(
                lambda: graph.invoke(state, settings, **kwargs), lambda: trees.cancel(run)
            )
            return self._checked(output)

    async def ainvoke(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        """Answer, on this event loop."""
        settings = self._config(config)
        async with self._arunning(input, settings) as state:
            output: RLMOutput = await self.graph.ainvoke(state, settings, **kwargs)
            return self._checked(output)

    def stream(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """What happens as it happens: LangGraph's `stream_mode`s. Records come in mode `custom`."""
        settings = self._config(config)
        settings.setdefault("max_concurrency", SYNC_THREADS)
        with self._running(self._begin(input), settings) as (state, _):
            yield from self.graph.stream(state, settings, **kwargs)

    async def astream(
        self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Like `stream`, on this event loop."""
        settings = self._config(config)
        async with self._arunning(input, settings) as state:
            async for part in self.graph.astream(state, settings, **kwargs):
                yield part

    def completion(self, query: str, context: Any = None) -> RLMOutput:
        """`invoke` in the words of the RLM paper."""
        return self.invoke({"query": query, "context": context})

    def _checked(self, output: RLMOutput) -> RLMOutput:
        if self.on_budget == "raise" and output.get("stop_reason") in LIMITS:
            raise BudgetExhausted(output)
        return output

    def _build(self) -> _Built:
        if self._built is None:
            machine = assemble(self)
            graph = rlm_graph(machine).compile(checkpointer=self.checkpointer, name="rlm")
            self._built = _Built(machine, graph)
        return self._built

    def _config(self, config: RunnableConfig | None) -> RunnableConfig:
        """Parents hand LangChain's default of 25 steps down; our budget ends a run, not LangGraph's steps."""
        return {**ensure_config(config), "recursion_limit": self._build().machine.steps}

    def _begin(self, input: Asked) -> Begun:
        """The graph's input: checked, and with the context by reference, before anything else sees it."""
        if input is None or isinstance(input, Command):
            return input
        asked = {"query": input} if isinstance(input, str) else input
        if not isinstance(asked, dict) or not isinstance(asked.get("query"), str):
            raise InputError('an RLM is asked with a question, or with {"query": ..., "context": ...}')
        reference = self._build().machine.store.reference(asked.get("context"))
        return {"query": asked["query"], "context": reference, "run": uuid.uuid4().hex}

    @staticmethod
    def _thread(state: StateSnapshot) -> str:
        """The run that a thread holds. Raises `InputError` when there is none to resume."""
        run = state.values.get("run")
        if not isinstance(run, str):
            raise InputError("there is nothing to resume: this thread has no run")
        return run

    def _held(self, config: RunnableConfig) -> AbstractContextManager[None]:
        """The thread that `config` names, for this process alone, where there is a saver to share."""
        thread = config.get("configurable", {}).get("thread_id")
        if self.checkpointer is None or thread is None:
            return nullcontext()
        return lease(self._build().machine.store.root, str(thread))

    @contextmanager
    def _running(self, state: Begun, config: RunnableConfig) -> Iterator[tuple[Begun, str]]:
        machine = self._build().machine
        run = state["run"] if isinstance(state, dict) else self._thread(self.graph.get_state(config))
        with self._held(config), PORTAL as portal, portal.wrap_async_context_manager(clients.lease()):
            try:
                yield state, run
            finally:
                machine.close(run)

    @asynccontextmanager
    async def _arunning(self, input: Asked, config: RunnableConfig) -> AsyncIterator[Begun]:
        machine = self._build().machine
        state = await asyncio.to_thread(self._begin, input)
        run = state["run"] if isinstance(state, dict) else self._thread(await self.graph.aget_state(config))
        with self._held(config):
            async with clients.lease():
                try:
                    yield state
                finally:
                    machine.close(run)


def create_rlm(root_model: Any, **options: Any) -> RLMRunnable:
    """An RLM from a model name and options: the fields of `RLMRunnable`."""
    return RLMRunnable(root_model=root_model, **options)


def create_rlm_graph(root_model: Any, **options: Any) -> StateGraph[Any, Any, Any, Any]:
    """The same as a `StateGraph` that is not compiled yet: bring a checkpointer of your own.

    Its state takes the context by reference; given anything else as `context`, its first node stores it.
    """
    return rlm_graph(assemble(RLMRunnable(root_model=root_model, **options)))
