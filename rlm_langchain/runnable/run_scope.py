"""The scope of a run: checks its input, stores its context, and closes its live objects at the end."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage, convert_to_messages, get_buffer_string
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot

from rlm_langchain.context.long_text import USER_QUESTION_CHARS, text_or_reference
from rlm_langchain.context.sources.messages import refuse_pictures
from rlm_langchain.context.sources.text import warn_of_file_names
from rlm_langchain.durability.checkpointer import with_thread_name
from rlm_langchain.durability.standing import NEW, standing_of
from rlm_langchain.durability.thread_lock import database_thread_lock, thread_lock
from rlm_langchain.errors import ConfigurationError, InputError, JournalError
from rlm_langchain.graph.boundary import (
    CHECKPOINTER_KEY,
    INVOCATION_KEY,
    NOTHING_TO_RESUME,
    Internal,
    check_config,
)
from rlm_langchain.graph.components import Components
from rlm_langchain.models.http import pool
from rlm_langchain.records import RLMInput
from rlm_langchain.run.cancellation import Invocation
from rlm_langchain.run.event_loops import run_in_thread, run_to_end, shared_loop
from rlm_langchain.trajectory.journal import DAMAGED, Journal, check_state

LangChainInput = RLMInput | str | PromptValue | BaseMessage | Sequence[BaseMessage] | Command[Any] | None
"""A question; None to resume a thread; or `Command(resume=...)` to answer an interrupt."""
GraphInput = Internal | Command[Any] | None


class ActiveRun(NamedTuple):
    """A run that is about to start."""

    state: GraphInput
    """The graph's input."""
    run: str


class CompiledRLM(NamedTuple):
    """The components of an RLM and its compiled graph."""

    components: Components
    graph: CompiledStateGraph[Any, Any, Any, Any]

    @contextmanager
    def run_scope(self, input: LangChainInput, config: RunnableConfig) -> Iterator[ActiveRun]:
        """Set up everything that a sync run needs, until the end of the block. Raises `ThreadBusy`."""
        with (
            invocation_of(config).working(),
            with_thread_name(_thread_name(config)),
            self.thread_scope(config),
            shared_loop() as loop,
            loop.wrap_async_context_manager(pool.keep_pool_open()),
        ):
            state = prepare_input(self.components, input)
            snapshot = self.graph.get_state(config) if self._has_thread(config) else None
            if _ends_unsaved(state, snapshot, config):
                try:
                    self.graph.invoke(None, config, durability="sync")
                finally:
                    self._close(config)
                snapshot = self.graph.get_state(config)
            run, abandoned = self._run_of(state, snapshot), _abandoned_run(state, snapshot, config)
            if parent := self._before_end(snapshot, config):
                with suppress(JournalError):  # an earlier checkpoint that is damaged does not matter to this run
                    abandoned = self.graph.get_state(parent).values.get("run")
            try:
                yield ActiveRun(state, run)
            finally:
                self._close(config, run)
                if abandoned is not None:
                    with suppress(JournalError):
                        self._forget(abandoned, self.graph.get_state(config))

    @asynccontextmanager
    async def arun_scope(self, input: LangChainInput, config: RunnableConfig) -> AsyncIterator[ActiveRun]:
        """Do what `run_scope` does on the event loop of the caller, without blocking it."""
        async with _with_thread_name(_thread_name(config)), self.athread_scope(config), pool.keep_pool_open():
            state = await asyncio.to_thread(prepare_input, self.components, input)
            snapshot = await self.graph.aget_state(config) if self._has_thread(config) else None
            if _ends_unsaved(state, snapshot, config):
                try:
                    await self.graph.ainvoke(None, config, durability="sync")
                finally:
                    await run_to_end(lambda: self._close(config))
                snapshot = await self.graph.aget_state(config)
            run = await asyncio.to_thread(self._run_of, state, snapshot)
            abandoned = _abandoned_run(state, snapshot, config)
            if parent := await asyncio.to_thread(self._before_end, snapshot, config):
                with suppress(JournalError):
                    abandoned = (await self.graph.aget_state(parent)).values.get("run")
            try:
                yield ActiveRun(state, run)
            finally:
                await run_to_end(lambda: self._close(config, run))
                if abandoned is not None:
                    with suppress(JournalError):
                        now = await self.graph.aget_state(config)
                        await run_to_end(lambda: self._forget(abandoned, now))

    def options(self, keywords: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        """Return the keywords for LangGraph. With a checkpointer, each checkpoint is written before the next step,
        so that a run is saved before it pays."""
        durable = self._saver(config) not in (None, False)
        return {"durability": "sync", **keywords} if durable else keywords

    def _saver(self, config: RunnableConfig) -> Any:
        """Return our own checkpointer, if it is used: a run inside another graph belongs to the thread of that
        graph."""
        return None if CHECKPOINTER_KEY in config.get("configurable", {}) else self.graph.checkpointer

    def _close(self, config: RunnableConfig, *runs: str) -> None:
        """Close these runs, and all that joined this invocation. A resumed task of a parent graph has its old
        run."""
        invocation = invocation_of(config)
        if invocation.cancelled:
            invocation.nested.wait()
        for run_id in {*runs, *invocation.leave()}:
            self.components.close(run_id)

    def _before_end(self, snapshot: StateSnapshot | None, config: RunnableConfig) -> RunnableConfig | None:
        """Return the checkpoint before the end of a thread's last run. None without receipts to remove.

        The checkpoint has the id of that run. Its receipts are left if its process was killed after the answer was
        written.
        """
        if snapshot is None or snapshot.parent_config is None or "checkpoint_id" in config["configurable"]:
            return None
        folder = self.components.store.root / "receipts"
        if not (standing_of(snapshot).has_ended and folder.is_dir() and any(folder.iterdir())):
            return None
        parent_id = snapshot.parent_config["configurable"]["checkpoint_id"]
        return {**config, "configurable": {**config["configurable"], "checkpoint_id": parent_id}}

    def _forget(self, run: str, snapshot: StateSnapshot) -> None:
        """Remove the receipts of a run that was abandoned or has ended, once its thread holds another one."""
        if snapshot.values.get("run", run) != run:
            self.components.receipts_path(run).unlink(missing_ok=True)

    def thread_scope(self, config: RunnableConfig) -> AbstractContextManager[None]:
        """Lock the thread that `config` names, if there is a shared checkpointer.

        Raises `ConfigurationError` if it names none.
        """
        saver = self._saver(config)
        if saver in (None, False):
            return nullcontext()
        return _thread_locked(self.components.store.root, saver, _thread(config, saver), str(_thread_name(config)))

    def athread_scope(self, config: RunnableConfig) -> AbstractAsyncContextManager[None]:
        """Do what `thread_scope` does, without blocking the loop."""
        return _in_threads(self.thread_scope(config))

    def _has_thread(self, config: RunnableConfig) -> bool:
        """Return whether there may be a state to continue from."""
        return self._saver(config) not in (None, False)

    def _run_of(self, graph_input: GraphInput, snapshot: StateSnapshot | None) -> str:
        """Return the run of a new question, or the one that a thread holds.

        Raises `InputError` if there is none, `JournalError` if the thread's state is damaged, and the errors of
        `Components.check_resumable`: if a REPL cannot be rebuilt, that is reported before another turn is paid
        for.
        """
        values = snapshot.values if snapshot else {}
        check_state(values)
        standing = standing_of(snapshot) if snapshot else NEW
        if standing.is_open or (snapshot and isinstance(graph_input, Internal)):
            self.components.check_resumable(Journal(values.get("trajectory", [])))
        if isinstance(graph_input, Internal):
            return str(graph_input.values["run"])
        if standing.state == "new":
            if snapshot is None:
                raise InputError(
                    "there is nothing to resume: without a checkpointer no run is kept. Make the RLM with one, "
                    "create_rlm(..., checkpointer=...), and name the thread in the config"
                )
            raise InputError(NOTHING_TO_RESUME)
        if standing.state == "broken":
            raise JournalError(DAMAGED)
        return values.get("run") or uuid.uuid4().hex


def invocation_of(config: RunnableConfig) -> Invocation:
    """Return the invocation that a config, made by `RLMRunnable.settings`, belongs to."""
    invocation: Invocation = config["configurable"][INVOCATION_KEY]
    return invocation


def _abandoned_run(graph_input: GraphInput, snapshot: StateSnapshot | None, config: RunnableConfig) -> str | None:
    """Return the unfinished run of a thread that gets another question, or None. With an earlier checkpoint it
    is None, because later checkpoints may continue that run."""
    if (
        snapshot is None
        or not standing_of(snapshot).is_open
        or not isinstance(graph_input, Internal)
        or "checkpoint_id" in config["configurable"]
    ):
        return None
    return snapshot.values.get("run")


def _ends_unsaved(graph_input: GraphInput, snapshot: StateSnapshot | None, config: RunnableConfig) -> bool:
    """Return whether a thread that gets another question has answered the last one, but could not save that.

    LangGraph forgets the writes of a step if a question comes before the checkpoint of the step.
    """
    if snapshot is None or not isinstance(graph_input, Internal) or "checkpoint_id" in config["configurable"]:
        return False
    return not standing_of(snapshot).is_saved


def _thread_name(config: RunnableConfig) -> Any:
    return config.get("configurable", {}).get("thread_id")


@asynccontextmanager
async def _with_thread_name(thread: Any) -> AsyncIterator[None]:
    with with_thread_name(thread):
        yield


@contextmanager
def _thread_locked(home: Path, saver: Any, thread: str, name: str) -> Iterator[None]:
    """Lock a thread on this machine, and in the checkpointer's database for other machines."""
    with thread_lock(home, thread, name), database_thread_lock(saver, thread):
        yield


@asynccontextmanager
async def _in_threads(blocking: AbstractContextManager[None]) -> AsyncIterator[None]:
    """Enter and leave a context manager that blocks on a lock or a database, without blocking the loop."""
    stack = ExitStack()
    try:
        await run_in_thread(lambda: stack.enter_context(blocking), lambda: None)
        yield
    finally:
        await run_to_end(stack.close)


def prepare_input(components: Components, input: LangChainInput) -> GraphInput:
    """Validate the input, store its context, and return the graph's input.

    A question without a context is about the contexts of its thread. Raises `InputError`.
    """
    if input is None or isinstance(input, Command):
        return input
    question = _question(input)
    if problem := _query_problem(question):
        raise InputError(f'{problem}: the input of an RLM is a question, or {{"query": ..., "context": ...}}')
    if "context" not in question and (near := get_close_matches("context", map(str, question), 1)):
        raise InputError(f"the input has no 'context', but {near[0]!r}: did you mean to call it 'context'?")
    context = question.get("context")
    warn_of_file_names(context, "the context")
    reference = components.store.reference(context, seconds=components.budget.seconds)
    # An empty list stands for any empty context: the prompt tells the model that the context is empty.
    stored: Any = [] if reference is None and context is not None else reference
    query = text_or_reference(components.store, question["query"], USER_QUESTION_CHARS)
    return Internal({"query": query, "context": stored, "run": uuid.uuid4().hex})


def _question(input: Any) -> dict[str, Any]:
    """Return the input as a dict with `query`. A state `{"messages": [...]}` is treated like the messages alone."""
    if isinstance(input, dict):
        if "query" in input or not isinstance(input.get("messages"), list | tuple):
            return input
        context = {"context": input["context"]} if "context" in input else {}
        return {"query": _query_from(input["messages"]), **context}
    return {"query": _query_from(input)}


def _query_problem(question: dict[str, Any]) -> str | None:
    """Return why an input has no question, or None if it has one."""
    if "query" not in question:
        return f"there is no 'query'; you gave {', '.join(map(repr, question)) or 'an empty dict'}"
    query = question["query"]
    if isinstance(query, str):
        return None
    kind = type(query).__name__
    return "the query is None" if query is None else f"the query is {'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _query_from(input: Any) -> Any:
    """Return the text of a question that is a prompt value, or messages in any form that LangChain accepts.

    If one of several messages is an AI or tool message, the text names the speakers. Raises `InputError` for a list
    that LangChain cannot convert to messages.
    """
    if isinstance(input, PromptValue) and not isinstance(input, ChatPromptValue):
        return input.to_string()
    messages = input.to_messages() if isinstance(input, PromptValue) else input
    is_one = isinstance(messages, BaseMessage) or _is_pair(messages)
    messages = [messages] if is_one else messages
    if not isinstance(messages, list | tuple) or not messages:
        return input
    try:
        messages = convert_to_messages(messages)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"these are no messages, as LangChain knows them: {_first_line(error)}") from error
    refuse_pictures(messages)
    only_people = len(messages) == 1 or all(message.type in ("system", "human") for message in messages)
    return "\n\n".join(str(message.text) for message in messages) if only_people else get_buffer_string(messages)


def _is_pair(value: Any) -> bool:
    """Return whether this is one message in the form `("human", "Hello")`."""
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(one, str) for one in value)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _thread(config: RunnableConfig, saver: Any) -> str:
    """Return the name to lock the thread by. Threads in memory belong to this process alone."""
    thread = _thread_name(config)
    if thread is None:
        raise ConfigurationError(
            "a checkpointer keeps runs by the name of their thread, and none was named: ask with "
            "config={'configurable': {'thread_id': ...}}, or make the RLM without a checkpointer"
        )
    check_config(config)
    return (
        f"{thread} in memory {os.getpid()} {id(saver.storage)}" if isinstance(saver, InMemorySaver) else str(thread)
    )
