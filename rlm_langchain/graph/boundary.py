"""The trust boundary of the graph: what its callers may give it, and what only our own code may.

A compiled graph is handed what a client sends, by LangGraph's server or by a graph around it: input, commands,
updates of its state, all of it made from JSON. From outside come a question, a context that is data, and the answer
to an interrupt. Everything else in the state, such as the name of a run, its place in the tree or what a person
has agreed to, comes from our own code in this process, as an `Internal`, or from a checkpoint that it has written.

Covered: every public way into a compiled graph that writes to its state. Not covered: who writes to the
checkpointer's database, or runs code in this process.
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
from langgraph.errors import GraphBubbleUp, InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot, StateUpdate

from rlm_langchain.context.decoding import (
    replace_each,
    replace_surrogates,
    replace_unkept,
    replacement_note,
    unkept,
)
from rlm_langchain.errors import InputError, InvalidApproval, JournalError
from rlm_langchain.graph.parent_graphs import ambient_config, watch_parents
from rlm_langchain.records import RLMInput
from rlm_langchain.run.cancellation import CancelsRuns, Invocation, supervised_parts
from rlm_langchain.run.event_loops import finished, in_thread, iterate_interruptible

PUBLIC = ("query", "context")
"""The keys that anybody may give."""
OUTSIDE = (None, START, "__input__", "__copy__", END)
"""As which nodes the state may be updated from outside: those that stand for input, or that write nothing."""
SAVER = "__pregel_checkpointer"
"""Under `configurable`, LangGraph's: which saver the graph of a node has, be it its parent's, maybe None."""
SEEN = "__rlm_seen__"
"""Under `configurable`: the `Invocation`, with the runs that it has worked on."""
READ = "__pregel_read"
"""Under `configurable`, LangGraph's: the function by which a task reads the channels of its graph."""
_LANGGRAPH = "__pregel_"
"""How LangGraph's own keys under `configurable` begin. Most hold objects, which no JSON can make."""
_SEND = "__pregel_send"
"""Under `configurable`, LangGraph's: a function that writes to the state. Whatever runs within a task has it."""
_TYPED_STREAM = "__pregel_stream_messages_v2"
"""Under `configurable`, LangGraph's: whether the stream is a typed one. Its only plain value outside of tasks."""
ANSWERS = (
    'resume with True or False, {"approve": True} or {"approve": False}, or, as LangChain writes decisions, '
    '{"decisions": [{"type": "approve"}]} or {"decisions": [{"type": "reject"}]}'
)
"""What an approval may be answered with."""
_JSON = (str, bool, int, float, list, dict)
_TYPES: Mapping[str, Any] = {
    "checkpoint_id": str | UUID,
    "checkpoint_ns": str,
    "__pregel_durability": str,
    "__pregel_resume_map": dict,
    "__pregel_resuming": bool,
    "__pregel_strict_resume": bool,
    "__pregel_task_id": str,
    _TYPED_STREAM: bool,
    SAVER: BaseCheckpointSaver,
    SEEN: Invocation,
}
"""The types of those keys whose values may be JSON, and of those whose objects are known."""
_NEVER_NONE = ("checkpoint_map", "__pregel_runner_submit", "__pregel_runtime", "__pregel_stream")
"""Keys that LangGraph leaves out where it has nothing for them, and reads without a look for None."""
_RUN = re.compile("[0-9a-f]{32}")


class UpdateRefused(InputError, InvalidUpdateError):
    """An update of the state that is not for callers. LangGraph's server answers it as a bad request."""


class Machine(Protocol):
    """What holds what is alive for the runs of a graph: `Components`."""

    @property
    def trees(self) -> CancelsRuns:
        """The trees of runs that are alive."""

    def close(self, run: str) -> None:
        """Let go of a run."""


class NoApproval(InvalidApproval, UpdateRefused):
    """A command that answers with nothing."""


@dataclass(frozen=True, slots=True)
class Internal:
    """Values for the state from our own code. JSON cannot make one, and no checkpoint holds one."""

    values: Mapping[str, Any]


class GuardedGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph that takes no internal value from its callers. All of LangGraph's ways in end here."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangGraph's, of checked input. Raises `InputError`."""
        return _for_parent(super().invoke(input, config, **kwargs), config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangGraph's, of checked input. Raises `InputError`."""
        return _for_parent(await super().ainvoke(input, config, **kwargs), config)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangGraph's, of checked input. Raises `InputError`."""
        check_config(config)
        given = accepted(input)
        if self._is_part_of_call(config):
            return super().stream(given, config, **kwargs)
        return self._parts(given, config, kwargs)

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangGraph's, of checked input. Raises `InputError`."""
        check_config(config)
        data = _public(input)
        if not _holds_data(data):
            parts = partial(super().astream, accepted(input), **kwargs)
        else:
            parts = partial(self._examined, data, kwargs)
        return parts(config) if self._is_part_of_call(config) else self._aparts(parts, config)

    async def _examined(
        self, given: dict[str, Any], options: dict[str, Any], config: RunnableConfig | None
    ) -> AsyncIterator[Any]:
        """LangGraph's, of an input with data, which may be large: the loop continues while it is examined."""
        kept = await in_thread(lambda: _kept(given), lambda: None)
        stream: Any = super().astream(kept, config, **options)
        async with aclosing(stream) as parts:
            async for part in parts:
                yield part

    def _is_part_of_call(self, config: RunnableConfig | None) -> bool:
        """Whether this works for a call of an RLM, which closes the runs of this graph itself."""
        invocation = _settings(config).get(SEEN)
        return invocation is not None and invocation.trees is self._machine.trees

    def _parts(self, given: Any, config: RunnableConfig | None, options: dict[str, Any]) -> Generator[Any]:
        """The parts of a stream that is a call of its own. What was alive for it ends with it, unless it pauses."""
        invocation, settings = self._call(config)
        parts = super().stream(given, settings, **options)
        with invocation.working():
            try:
                yield from iterate_interruptible(parts, invocation.cancel, invocation.context(), invocation.cancel)
            except GraphBubbleUp:
                raise
            except BaseException:
                self._close(invocation)
                raise

    async def _aparts(
        self, parts_of: Callable[[RunnableConfig], Any], config: RunnableConfig | None
    ) -> AsyncGenerator[Any]:
        """The same on this event loop."""
        invocation, settings = self._call(config)
        stream = parts_of(settings)

        async def made() -> AsyncGenerator[Any]:
            try:
                async with aclosing(cast(AsyncGenerator[Any], stream)) as parts:
                    async for part in parts:
                        yield part
            except GraphBubbleUp:
                raise
            except BaseException:
                await finished(lambda: self._close(invocation))
                raise

        async with aclosing(supervised_parts(invocation, made())) as parts:
            async for part in parts:
                yield part

    def _call(self, config: RunnableConfig | None) -> tuple[Invocation, RunnableConfig]:
        invocation = Invocation(self._machine.trees)
        watch_parents(invocation, config)
        return invocation, {**(config or {}), "configurable": {**_settings(config), SEEN: invocation}}

    def _close(self, invocation: Invocation) -> None:
        if invocation.cancelled:
            invocation.nested.wait()
        for run in invocation.leave():
            self._machine.close(run)

    @property
    def _machine(self) -> Machine:
        return cast(GuardedStateGraph, self.builder).machine

    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangGraph's, which reads the config before it streams. Raises `InputError`."""
        check_config(config)
        return super().stream_events(input, config, **kwargs)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangGraph's, which reads the config before it streams. Raises `InputError`."""
        check_config(config)
        return super().astream_events(input, config, **kwargs)

    def get_state(self, config: RunnableConfig, **kwargs: Any) -> StateSnapshot:
        """LangGraph's. Raises `InputError`."""
        check_config(config)
        return super().get_state(config, **kwargs)

    async def aget_state(self, config: RunnableConfig, **kwargs: Any) -> StateSnapshot:
        """LangGraph's. Raises `InputError`."""
        check_config(config)
        return await super().aget_state(config, **kwargs)

    def get_state_history(self, config: RunnableConfig, **kwargs: Any) -> Iterator[StateSnapshot]:
        """LangGraph's. Raises `InputError`."""
        check_config(config)
        return super().get_state_history(config, **kwargs)

    def aget_state_history(self, config: RunnableConfig, **kwargs: Any) -> AsyncIterator[StateSnapshot]:
        """LangGraph's. Raises `InputError`."""
        check_config(config)
        return super().aget_state_history(config, **kwargs)

    def bulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """LangGraph's, of checked updates. Raises `InputError`."""
        self._check_update_config(config)
        return super().bulk_update_state(config, [[*map(_update, step)] for step in supersteps])

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """LangGraph's, of checked updates. Raises `InputError`."""
        self._check_update_config(config)
        return await super().abulk_update_state(config, [[*map(_update, step)] for step in supersteps])

    def _check_update_config(self, config: RunnableConfig) -> None:
        """Raise `InputError` for a config of an update that names no graph in this one."""
        check_config(config)
        settings = config.get("configurable") or {}
        namespace = settings.get("checkpoint_ns")
        if namespace and SAVER not in settings and not self._names_subgraph(namespace):
            raise UpdateRefused(
                f"no graph within this one has the namespace {namespace!r}: leave `checkpoint_ns` out"
            )

    def _names_subgraph(self, namespace: str) -> bool:
        path = "|".join(part.split(":")[0] for part in namespace.split("|") if not part.isdigit())
        return any(True for _ in self.get_subgraphs(namespace=path, recurse=True))

    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        """The schema of what callers may give."""
        from pydantic import TypeAdapter

        return {**TypeAdapter(RLMInput).json_schema(), "title": self.get_name("Input")}


class GuardedStateGraph(StateGraph[Any, Any, Any, Any]):
    """A graph that is guarded whoever compiles it."""

    machine: Machine
    """What its runs work with."""

    def compile(self, *args: Any, **kwargs: Any) -> GuardedGraph:
        """LangGraph's, guarded."""
        compiled: Any = super().compile(*args, **kwargs)
        compiled.__class__ = GuardedGraph
        guarded: GuardedGraph = compiled
        return guarded


def parents_answer(answer: Any) -> Any:
    """Return an answer as the state of a graph around this one can hold it, whatever its saver: not ours, a text
    there is put into a row as it is."""
    clean, replaced = replace_unkept(answer) if isinstance(answer, str) else (answer, 0)
    if replaced:
        told = "in an answer for the state of a graph around the RLM, U+FFFD stands for %s"
        logging.getLogger(__name__).warning(told, unkept(replaced))
    return clean


def _for_parent(output: Any, config: RunnableConfig | None) -> Any:
    """Return the output of a graph. If it is a node, its parent puts the answer into its own state."""
    settings = _settings(config)
    is_node = READ in settings and SEEN not in settings
    if is_node and isinstance(output, dict) and isinstance(output.get("answer"), str):
        return {**output, "answer": parents_answer(output["answer"])}
    return output


def accepted(given: Any) -> dict[str, Any] | Command[Any] | None:
    """The part of an input that the graph takes. Raises `InputError` for what is no input.

    Other keys are left out, as LangGraph does: the state of a parent graph may have more than ours.
    """
    if given is None:
        return None
    if type(given) is Internal:
        return dict(given.values)
    if isinstance(given, Command):
        return _resuming(given)
    public = _public(given)
    if public is not None:
        return _kept(public)
    raise InputError(f'the graph was given a {type(given).__name__}; give it {{"query": ..., "context": ...}}')


def _public(given: Any) -> dict[str, Any] | None:
    """What a caller's own input has of the keys that anybody may give; None for any other input."""
    if type(given) is Internal or isinstance(given, Command):
        return None
    if isinstance(given, Mapping):
        return {key: given[key] for key in PUBLIC if key in given}
    if hasattr(given, "query"):  # a parent's state may be a model or a dataclass
        return {key: getattr(given, key) for key in PUBLIC if hasattr(given, key)}
    return None


def _holds_data(given: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    return given is not None and isinstance(given.get("context"), dict | list)


def _kept(given: dict[str, Any]) -> dict[str, Any]:
    """The input with a context that a checkpoint holds until it is a reference. `prepare` sees to the question."""
    if not _holds_data(given):
        return given
    try:
        clean, replaced = replace_each(given["context"], replace_surrogates)
    except RecursionError:  # `prepare` refuses it, with its depth
        return given
    if not replaced:
        return given
    logging.getLogger(__name__).warning("the context: %s", replacement_note(replaced, "lone surrogate"))
    return {**given, "context": clean}


def check_run(run: Any) -> str:
    """The name of a run, before it becomes one of a file. Raises `JournalError` for one that we did not make."""
    if isinstance(run, str) and _RUN.fullmatch(run):
        return run
    raise JournalError(
        "the checkpoint of this run is damaged: the name of the run is none of ours; go back to an earlier "
        "one with `rlm fork`, or ask again on a new thread"
    )


def check_config(config: RunnableConfig | None) -> None:
    """Raise `InputError` for a `configurable` that no code of ours or LangGraph's can have made."""
    settings = (config or {}).get("configurable") or {}
    if not isinstance(settings, Mapping):
        raise InputError(f"`configurable` is a {type(settings).__name__}; it is a dict")
    check_thread(settings.get("thread_id"))
    for name in ("checkpoint_id", "checkpoint_ns"):
        _check_kept(name, settings.get(name))
    in_task = callable(settings.get(_SEND))
    for key, value in settings.items():
        if not _has_type(key, value) or (_is_of_tasks(key, value) and not in_task):
            raise InputError(
                f"`configurable` has {key!r} set to a {type(value).__name__}, as LangGraph never does: leave it out"
            )


def _settings(config: RunnableConfig | None) -> Mapping[str, Any]:
    """The `configurable` of a config, else that of the node that this code runs in."""
    return (config or {}).get("configurable") or (ambient_config() or {}).get("configurable") or {}


def _has_type(key: object, value: object) -> bool:
    """Return whether LangGraph, or our own code, gives values of this type to a key of `configurable`."""
    if value is None:
        return key not in _NEVER_NONE
    if key == "checkpoint_map":
        return isinstance(value, Mapping) and all(isinstance(one, str) for one in (*value, *value.values()))
    if key in _TYPES:
        return isinstance(value, _TYPES[cast(str, key)])
    return not (str(key).startswith(_LANGGRAPH) and isinstance(value, _JSON))


def _is_of_tasks(key: object, value: object) -> bool:
    """Return whether LangGraph gives such a value only to what runs within a task, beside objects of its own."""
    return str(key).startswith(_LANGGRAPH) and key != _TYPED_STREAM and (value is None or isinstance(value, _JSON))


def check_thread(thread: Any) -> None:
    """Raise `InputError` for the name of a thread that is no name."""
    if not isinstance(thread, str | int | UUID | None):
        raise InputError(f"the `thread_id` is a {type(thread).__name__}; name a thread by a text")
    _check_kept("thread_id", thread)


def _check_kept(name: str, value: Any) -> None:
    """Raise `InputError` for a name that databases refuse, or keep as another one."""
    if isinstance(value, str) and replace_unkept(value)[1]:
        raise InputError(
            f"the `{name}` {value!a} holds NUL or half of a surrogate pair, which no database keeps: leave them out"
        )


def _resuming(command: Command[Any]) -> Command[Any]:
    """A command that answers interrupts, and does nothing else."""
    if command.resume is None and not (command.update or command.goto or command.graph):
        raise NoApproval(f"an approval cannot be answered with None; {ANSWERS}")
    if command.update or command.goto or command.graph or command.resume is None:
        raise UpdateRefused(
            "a Command from outside may answer an interrupt, as Command(resume=...), and nothing else: "
            "no update, no goto, no graph"
        )
    return command


def _update(given: Sequence[Any]) -> StateUpdate:
    """An update of the state, of the keys that callers may give, as input."""
    values, as_node, task = (*given, None, None)[:3]
    if type(values) is Internal:
        return StateUpdate(dict(values.values), as_node, task)
    if as_node not in OUTSIDE:
        raise UpdateRefused(
            f"the state of an RLM cannot be updated as its node {as_node!r}: ask, resume, or use `fork`"
        )
    if values is not None and not (isinstance(values, Mapping) and values.keys() <= set(PUBLIC)):
        raise UpdateRefused(
            f"of the state of an RLM only {' and '.join(PUBLIC)} can be updated: its records and what a person "
            "agreed to are its own. To go back in a thread, use `fork`"
        )
    return StateUpdate(None if values is None else dict(values), as_node, task)
