"""The trust boundary of the graph: checks what callers pass to it, as input, command, state update or config.

LangGraph's server, or a graph around this one, passes on what a client sends, all of it made from JSON. A caller
may give a question, a context, and the answer to an interrupt. Everything else in the state, such as the name of a
run, its place in the tree or what a person has approved, comes from our own code in this process, as an `Internal`,
or from a checkpoint that our code has written.

Covered: every public method of a compiled graph that writes to its state. Not covered: programs that write to the
checkpointer's database, or that run code in this process.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeGuard, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import EmptyInputError, GraphBubbleUp, InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot, StateUpdate

from rlm_langchain.budget.budget import Budget
from rlm_langchain.context.decoding import (
    describe_unstorable,
    replace_each,
    replace_surrogates,
    replace_unstorable,
    replacement_note,
)
from rlm_langchain.errors import InputError, InvalidApproval, JournalError
from rlm_langchain.graph.parent_graphs import ambient_config, watch_parents
from rlm_langchain.records import RLMInput
from rlm_langchain.run.cancellation import CancelsRuns, Invocation, stream_supervised
from rlm_langchain.run.event_loops import iterate_interruptible, run_in_thread, run_to_end

NOTHING_TO_RESUME = "there is nothing to resume: this thread has no run"
PUBLIC_KEYS = ("query", "context")
"""The keys of the input that callers may set."""
EXTERNAL_NODES = (None, START, "__input__", "__copy__", END)
"""The values of `as_node` with which callers may update the state: they stand for input, or write nothing."""
CHECKPOINTER_KEY = "__pregel_checkpointer"
"""LangGraph's key under `configurable` for the checkpointer of a subgraph, given by its parent. It may be None."""
INVOCATION_KEY = "__rlm_seen__"
"""Our key under `configurable` for the `Invocation`, which knows the runs that it has worked on."""
BUDGET_KEY = "__rlm_budget__"
"""Our key under `configurable` for the `Budget` of one call, if it is not that of the RLM."""
READ_KEY = "__pregel_read"
"""LangGraph's key under `configurable` for the function with which a task reads the channels of its graph."""
_LANGGRAPH_PREFIX = "__pregel_"
"""Prefix of LangGraph's own keys under `configurable`. Most of them hold objects, which JSON cannot express."""
_SEND_KEY = "__pregel_send"
"""LangGraph's key under `configurable` for the function that writes to the state. It is set within tasks only."""
_TYPED_STREAM_KEY = "__pregel_stream_messages_v2"
"""LangGraph's key under `configurable` that marks a typed stream. No other JSON value is set outside of tasks."""
ACCEPTED_ANSWERS = (
    'resume with True or False, {"approve": True} or {"approve": False}, or, as LangChain writes decisions, '
    '{"decisions": [{"type": "approve"}]} or {"decisions": [{"type": "reject"}]}'
)
"""The answers that an approval accepts, for error messages."""
_JSON_TYPES = (str, bool, int, float, list, dict)
_TYPES_BY_KEY: Mapping[str, Any] = {
    "checkpoint_id": str | UUID,
    "checkpoint_ns": str,
    "__pregel_durability": str,
    "__pregel_resume_map": dict,
    "__pregel_resuming": bool,
    "__pregel_strict_resume": bool,
    "__pregel_task_id": str,
    _TYPED_STREAM_KEY: bool,
    CHECKPOINTER_KEY: BaseCheckpointSaver,
    INVOCATION_KEY: Invocation,
    BUDGET_KEY: Budget,
}
"""The types of the values of known keys under `configurable`."""
_NEVER_NONE = ("checkpoint_map", "__pregel_runner_submit", "__pregel_runtime", "__pregel_stream")
"""Keys under `configurable` that LangGraph never sets to None, and reads without a check for None."""
_RUN_NAME = re.compile("[0-9a-f]{32}")


class UpdateRefused(InputError, InvalidUpdateError):
    """A caller tried to update the state in a way that is not allowed. LangGraph's server reports a bad request."""


class GraphComponents(Protocol):
    """The part of `Components` that this module uses."""

    @property
    def trees(self) -> CancelsRuns:
        """The live run trees."""

    def close(self, run: str) -> None:
        """Release the resources of a run."""


class NoApproval(InvalidApproval, UpdateRefused):
    """A command resumes an approval without an answer."""


@dataclass(frozen=True, slots=True)
class Internal:
    """State values from our own code. JSON cannot express this type, and no checkpoint contains one."""

    values: Mapping[str, Any]


class GuardedGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph that accepts no internal values from callers. All of LangGraph's entry points call one of
    these methods."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Invoke as LangGraph does, after checking the input. Raises `InputError`."""
        return _for_parent(super().invoke(input, config, **kwargs), config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Invoke as LangGraph does, after checking the input. Raises `InputError`."""
        return _for_parent(await super().ainvoke(input, config, **kwargs), config)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Stream as LangGraph does, after checking the input. Raises `InputError`."""
        check_config(config)
        checked = accept_input(input)
        if self._is_within_call(config):
            return super().stream(checked, config, **kwargs)
        return self._stream_call(checked, config, kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Stream as LangGraph does, after checking the input. Raises `InputError`."""
        check_config(config)
        data = _public_values(input)
        if not _has_json_context(data):
            parts = partial(super().astream, accept_input(input), **kwargs)
        else:
            parts = partial(self._stream_json_context, data, kwargs)
        return parts(config) if self._is_within_call(config) else self._astream_call(parts, config)

    async def _stream_json_context(
        self, input: dict[str, Any], options: dict[str, Any], config: RunnableConfig | None
    ) -> AsyncIterator[Any]:
        """Stream from an input with a JSON context, which may be large: it is checked in a thread."""
        checked = await run_in_thread(lambda: _storable(input), lambda: None)
        stream: Any = super().astream(checked, config, **options)
        async with aclosing(stream) as parts:
            async for part in parts:
                yield part

    def _is_within_call(self, config: RunnableConfig | None) -> bool:
        """Return whether an `RLMRunnable` calls this graph: that closes the runs itself."""
        invocation = _configurable(config).get(INVOCATION_KEY)
        return invocation is not None and invocation.trees is self._components.trees

    def _stream_call(self, input: Any, config: RunnableConfig | None, options: dict[str, Any]) -> Generator[Any]:
        """Yield the parts of a stream that is a call of its own. An error closes its runs, unlike an interrupt."""
        invocation, settings = self._begin_call(config)
        parts = super().stream(input, settings, **options)
        with invocation.working():
            try:
                yield from iterate_interruptible(parts, invocation.cancel, invocation.context(), invocation.cancel)
            except GraphBubbleUp:
                raise
            except EmptyInputError as error:
                self._close(invocation)
                raise InputError(NOTHING_TO_RESUME) from error
            except BaseException:
                self._close(invocation)
                raise

    async def _astream_call(
        self, parts_of: Callable[[RunnableConfig], Any], config: RunnableConfig | None
    ) -> AsyncGenerator[Any]:
        """Yield what `_stream_call` yields, on this event loop."""
        invocation, settings = self._begin_call(config)
        stream = parts_of(settings)

        async def closing_parts() -> AsyncGenerator[Any]:
            try:
                async with aclosing(cast(AsyncGenerator[Any], stream)) as parts:
                    async for part in parts:
                        yield part
            except GraphBubbleUp:
                raise
            except EmptyInputError as error:
                await run_to_end(lambda: self._close(invocation))
                raise InputError(NOTHING_TO_RESUME) from error
            except BaseException:
                await run_to_end(lambda: self._close(invocation))
                raise

        async with aclosing(stream_supervised(invocation, closing_parts())) as parts:
            async for part in parts:
                yield part

    def _begin_call(self, config: RunnableConfig | None) -> tuple[Invocation, RunnableConfig]:
        """Return a new invocation, and the config with it."""
        invocation = Invocation(self._components.trees)
        watch_parents(invocation, config)
        return invocation, {**(config or {}), "configurable": {**_configurable(config), INVOCATION_KEY: invocation}}

    def _close(self, invocation: Invocation) -> None:
        """Release the runs of an invocation."""
        if invocation.cancelled:
            invocation.nested.wait()
        for run in invocation.leave():
            self._components.close(run)

    @property
    def _components(self) -> GraphComponents:
        return cast(GuardedStateGraph, self.builder).components

    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call LangGraph's method, which reads the config before it calls `stream`. Raises `InputError`."""
        check_config(config)
        return super().stream_events(input, config, **kwargs)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call LangGraph's method, which reads the config before it calls `stream`. Raises `InputError`."""
        check_config(config)
        return super().astream_events(input, config, **kwargs)

    def get_state(self, config: RunnableConfig, **kwargs: Any) -> StateSnapshot:
        """Call LangGraph's method after checking the config. Raises `InputError`."""
        check_config(config)
        return super().get_state(config, **kwargs)

    async def aget_state(self, config: RunnableConfig, **kwargs: Any) -> StateSnapshot:
        """Call LangGraph's method after checking the config. Raises `InputError`."""
        check_config(config)
        return await super().aget_state(config, **kwargs)

    def get_state_history(self, config: RunnableConfig, **kwargs: Any) -> Iterator[StateSnapshot]:
        """Call LangGraph's method after checking the config. Raises `InputError`."""
        check_config(config)
        return super().get_state_history(config, **kwargs)

    def aget_state_history(self, config: RunnableConfig, **kwargs: Any) -> AsyncIterator[StateSnapshot]:
        """Call LangGraph's method after checking the config. Raises `InputError`."""
        check_config(config)
        return super().aget_state_history(config, **kwargs)

    def bulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Call LangGraph's method after checking the updates. Raises `InputError`."""
        self._check_update_config(config)
        return super().bulk_update_state(config, [[*map(_check_update, step)] for step in supersteps])

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Call LangGraph's method after checking the updates. Raises `InputError`."""
        self._check_update_config(config)
        # A context may be large.
        checked = await run_in_thread(lambda: [[*map(_check_update, step)] for step in supersteps], lambda: None)
        return await super().abulk_update_state(config, checked)

    def _check_update_config(self, config: RunnableConfig) -> None:
        """Raise `InputError` if the config of an update names a subgraph that does not exist."""
        check_config(config)
        settings = config.get("configurable") or {}
        namespace = settings.get("checkpoint_ns")
        if namespace and CHECKPOINTER_KEY not in settings and not self._names_subgraph(namespace):
            raise UpdateRefused(
                f"no graph within this one has the namespace {namespace!r}: leave `checkpoint_ns` out"
            )

    def _names_subgraph(self, namespace: str) -> bool:
        path = "|".join(part.split(":")[0] for part in namespace.split("|") if not part.isdigit())
        return any(True for _ in self.get_subgraphs(namespace=path, recurse=True))

    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """Return the JSON schema of the input that callers may give."""
        from pydantic import TypeAdapter

        return {**TypeAdapter(RLMInput).json_schema(), "title": self.get_name("Input")}


class GuardedStateGraph(StateGraph[Any, Any, Any, Any]):
    """A graph that always compiles to a `GuardedGraph`."""

    components: GraphComponents
    """The components that the graph was built from."""

    def compile(self, *args: Any, **kwargs: Any) -> GuardedGraph:
        """Compile as LangGraph does, to a `GuardedGraph`."""
        compiled: Any = super().compile(*args, **kwargs)
        compiled.__class__ = GuardedGraph
        guarded: GuardedGraph = compiled
        return guarded


def storable_in_parent(answer: Any) -> Any:
    """Return an answer that the state of a parent graph can hold with any saver: without characters that Postgres
    refuses."""
    clean, replaced = replace_unstorable(answer) if isinstance(answer, str) else (answer, 0)
    if replaced:
        message = "in an answer for the state of a graph around the RLM, U+FFFD stands for %s"
        logging.getLogger(__name__).warning(message, describe_unstorable(replaced))
    return clean


def _for_parent(output: Any, config: RunnableConfig | None) -> Any:
    """Return the output of a graph. If it is a node, its parent puts the answer into its own state."""
    settings = _configurable(config)
    is_node = READ_KEY in settings and INVOCATION_KEY not in settings
    if is_node and isinstance(output, dict) and isinstance(output.get("answer"), str):
        return {**output, "answer": storable_in_parent(output["answer"])}
    return output


def accept_input(value: Any) -> dict[str, Any] | Command[Any] | None:
    """Return the part of an input that the graph accepts. Raises `InputError` for a value that is no input.

    Other keys are left out, as LangGraph does, because the state of a parent graph may have more keys than ours.
    """
    if value is None:
        return None
    if type(value) is Internal:
        return dict(value.values)
    if isinstance(value, Command):
        return _check_resume(value)
    public = _public_values(value)
    if public is not None:
        return _storable(public)
    raise InputError(f'the graph was given a {type(value).__name__}; give it {{"query": ..., "context": ...}}')


def _public_values(value: Any) -> dict[str, Any] | None:
    """Return the keys of a caller's input that callers may set. None for a value that has none, or is no input."""
    if type(value) is Internal or isinstance(value, Command):
        return None
    if isinstance(value, Mapping):
        return {key: value[key] for key in PUBLIC_KEYS if key in value}
    if hasattr(value, "query"):  # a parent's state may be a model or a dataclass
        return {key: getattr(value, key) for key in PUBLIC_KEYS if hasattr(value, key)}
    return None


def _has_json_context(input: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    return input is not None and isinstance(input.get("context"), dict | list | tuple)


def _storable(input: dict[str, Any]) -> dict[str, Any]:
    """Return an input or an update with a context that a checkpoint can store until `prepare` stores it."""
    if not _has_json_context(input):
        return input
    try:
        clean, replaced = replace_each(input["context"], replace_surrogates)
    except RecursionError:  # `prepare` refuses it, with its depth
        return input
    if not replaced:
        return input
    logging.getLogger(__name__).warning("the context: %s", replacement_note(replaced, "lone surrogate"))
    return {**input, "context": clean}


def check_run_name(run: Any) -> str:
    """Return the name of a run, for use in a file name. Raises `JournalError` for one that no run can have."""
    if isinstance(run, str) and _RUN_NAME.fullmatch(run):
        return run
    raise JournalError(
        "the checkpoint of this run is damaged: no run can have this name; go back to an earlier "
        "one with `rlm fork`, or ask again on a new thread"
    )


def check_config(config: RunnableConfig | None) -> None:
    """Raise `InputError` for a `configurable` that neither LangGraph nor our own code would make."""
    settings = (config or {}).get("configurable") or {}
    if not isinstance(settings, Mapping):
        raise InputError(f"`configurable` is a {type(settings).__name__}; give a dict")
    check_thread(settings.get("thread_id"))
    for name in ("checkpoint_id", "checkpoint_ns"):
        _check_storable(name, settings.get(name))
    in_task = callable(settings.get(_SEND_KEY))
    for key, value in settings.items():
        if not _has_type(key, value) or (_is_set_within_tasks(key, value) and not in_task):
            raise InputError(
                f"`configurable` has {key!r} set to a {type(value).__name__}, as LangGraph never does: leave it out"
            )


def _configurable(config: RunnableConfig | None) -> Mapping[str, Any]:
    """Return the `configurable` of a config. If it has none, that of the node that this code runs in."""
    return (config or {}).get("configurable") or (ambient_config() or {}).get("configurable") or {}


def _has_type(key: object, value: object) -> bool:
    """Return whether LangGraph or our own code sets a key of `configurable` to values of this type."""
    if value is None:
        return key not in _NEVER_NONE
    if key == "checkpoint_map":
        return isinstance(value, Mapping) and all(isinstance(one, str) for one in (*value, *value.values()))
    if key in _TYPES_BY_KEY:
        return isinstance(value, _TYPES_BY_KEY[cast(str, key)])
    return not (str(key).startswith(_LANGGRAPH_PREFIX) and isinstance(value, _JSON_TYPES))


def _is_set_within_tasks(key: object, value: object) -> bool:
    """Return whether LangGraph sets a key to such a value within tasks only, where it also sets `_SEND_KEY`."""
    return (
        str(key).startswith(_LANGGRAPH_PREFIX)
        and key != _TYPED_STREAM_KEY
        and (value is None or isinstance(value, _JSON_TYPES))
    )


def check_thread(thread: Any) -> None:
    """Raise `InputError` for a `thread_id` that is no text, number or UUID, or that databases refuse."""
    if not isinstance(thread, str | int | UUID | None):
        raise InputError(f"the `thread_id` is a {type(thread).__name__}; name a thread by a text")
    _check_storable("thread_id", thread)


def _check_storable(name: str, value: Any) -> None:
    """Raise `InputError` for a name that databases refuse or change."""
    if isinstance(value, str) and replace_unstorable(value)[1]:
        raise InputError(
            f"the `{name}` {value!a} contains NUL or a lone surrogate, which databases refuse: leave them out"
        )


def _check_resume(command: Command[Any]) -> Command[Any]:
    """Return a command that answers interrupts. Raises `UpdateRefused` if it does anything else, or has no
    answer."""
    # LangGraph takes an empty dict for answers to no interrupt, and goes on waiting.
    if command.resume in (None, {}) and not (command.update or command.goto or command.graph):
        raise NoApproval(f"an approval cannot be answered with {command.resume}; {ACCEPTED_ANSWERS}")
    if command.update or command.goto or command.graph or command.resume is None:
        raise UpdateRefused(
            "a Command from outside may answer an interrupt, as Command(resume=...), and nothing else: "
            "no update, no goto, no graph"
        )
    return command


def _check_update(update: Sequence[Any]) -> StateUpdate:
    """Return an update of the state. Raises `UpdateRefused` unless it only sets keys that callers may set."""
    values, as_node, task = (*update, None, None)[:3]
    if type(values) is Internal:
        return StateUpdate(dict(values.values), as_node, task)
    if as_node not in EXTERNAL_NODES:
        raise UpdateRefused(
            f"the state of an RLM cannot be updated as its node {as_node!r}: ask, resume, or use `fork`"
        )
    if values is not None and not (isinstance(values, Mapping) and values.keys() <= set(PUBLIC_KEYS)):
        raise UpdateRefused(
            f"only {' and '.join(PUBLIC_KEYS)} can be updated in the state of an RLM, not its records or what a "
            "person agreed to. To go back in a thread, use `fork`"
        )
    return StateUpdate(None if values is None else _storable_update(dict(values)), as_node, task)


def _storable_update(values: dict[str, Any]) -> dict[str, Any]:
    """Return an update that a checkpoint can store. Raises `UpdateRefused`: a saver would fail after it has written
    a part of it."""
    clean = _storable(values)
    try:
        JsonPlusSerializer(allowed_msgpack_modules=None).dumps_typed(clean)
    except Exception as error:
        raise UpdateRefused(
            f"this update cannot be stored in a checkpoint ({type(error).__name__}): give text, or a list or dict "
            "of plain values"
        ) from error
    return clean
