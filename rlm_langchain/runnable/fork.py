"""Forks: a new thread with the journal of another one up to a turn.

The fork may continue with another model, another budget or additional strategies. The cells before that turn
are repeated in a new REPL, and their replies are not paid for again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from rlm_langchain.durability.checkpointer import with_thread_name
from rlm_langchain.durability.standing import standing_of
from rlm_langchain.errors import ConfigurationError, InputError, JournalError
from rlm_langchain.graph.boundary import Internal
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.graph.nodes.prepare import note_new_strategies
from rlm_langchain.records import Record
from rlm_langchain.runnable.options import check_config
from rlm_langchain.trajectory.journal import Journal, check_state
from rlm_langchain.trajectory.recorder import Recorder

Graph = CompiledStateGraph[Any, Any, Any, Any]


def fork(components: Components, graph: Graph, config: RunnableConfig, at: int | None, to: RunnableConfig) -> None:
    """Start the thread of `to` with the state that the thread of `config` had before turn `at`.

    Turns are counted from 1. None: the last point between two turns, or after the end. Raises `InputError`, and
    `ConfigurationError` without a checkpointer.
    """
    _check_checkpointer(graph)
    saver: Any = graph.checkpointer
    with with_thread_name(_thread_id(config)):
        _check_is_new(graph.get_state(to))
        search = _CheckpointSearch(config, at)
        with search.reading():
            search.current = graph.get_state(config)
        for checkpoint in (
            [] if search.is_over else [saved.config for saved in saver.list_intact(search.thread_config)]
        ):
            if search.should_read(checkpoint):
                with search.reading():
                    search.consider(graph.get_state(checkpoint))
        values = cast(Any, Internal(_initial_state(components, search.found, at)))
        graph.update_state(to, values, as_node=_last_node(search.found))


async def afork(
    components: Components, graph: Graph, config: RunnableConfig, at: int | None, to: RunnableConfig
) -> None:
    """Do what `fork` does, for async checkpointers."""
    _check_checkpointer(graph)
    saver: Any = graph.checkpointer
    with with_thread_name(_thread_id(config)):
        _check_is_new(await graph.aget_state(to))
        search = _CheckpointSearch(config, at)
        with search.reading():
            search.current = await graph.aget_state(config)
        for checkpoint in (
            [] if search.is_over else [saved.config async for saved in saver.alist_intact(search.thread_config)]
        ):
            if search.should_read(checkpoint):
                with search.reading():
                    search.consider(await graph.aget_state(checkpoint))
        values = cast(Any, Internal(_initial_state(components, search.found, at)))
        await graph.aupdate_state(to, values, as_node=_last_node(search.found))


@dataclass(slots=True)
class _CheckpointSearch:
    """A search for the latest checkpoint of a thread that a fork may start from. Damaged ones are skipped."""

    config: RunnableConfig
    at: int | None
    """The turn, counted from 1. None: the last point between two turns, or the end."""
    current: StateSnapshot | None = None
    """The state of the thread, or of the checkpoint that the config names. None if it is damaged."""
    damage: JournalError | None = None
    _found: StateSnapshot | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A context for reading one checkpoint. Skips a damaged one if a turn was named, else raises its error."""
        try:
            yield
        except JournalError as error:
            if self.at is None:
                raise
            self.damage = self.damage or error

    @property
    def is_over(self) -> bool:
        """Return whether the current state, or an earlier checkpoint, was found to be a start for the fork."""
        if self.current is not None and (not self.current.values or _is_before(self.current, self.at)):
            self._found = self.current
        return self._found is not None

    @property
    def thread_config(self) -> RunnableConfig:
        """The config for all checkpoints of the thread."""
        return {"configurable": {"thread_id": _thread_id(self.config), "checkpoint_ns": ""}}

    def should_read(self, checkpoint: RunnableConfig) -> bool:
        """Return whether to read a checkpoint: none was found yet, and it is not later than the one in the
        config."""
        last = (self.current.config if self.current else self.config)["configurable"].get("checkpoint_id")
        return self._found is None and (last is None or checkpoint["configurable"]["checkpoint_id"] <= last)

    def consider(self, state: StateSnapshot) -> None:
        """Take this checkpoint if a fork may start from it."""
        if _is_before(state, self.at):
            self._found = state

    @property
    def found(self) -> StateSnapshot:
        """Return the checkpoint. Raises the `JournalError` of a damaged one if there is no other."""
        if self._found is None and self.damage is not None:
            raise self.damage
        return cast(StateSnapshot, self._found or self.current)


def reading_graph(saver: Any) -> Graph:
    """Return a graph for reading the threads of a checkpointer. It has no components and cannot run."""
    return rlm_graph(cast(Components, None)).compile(checkpointer=saver, name="rlm")


def other_thread(config: RunnableConfig, thread: str | None) -> RunnableConfig:
    """Return the same config for another thread. None: a thread with a new, unique name."""
    check_config(config)
    return _thread({**(config or {}), "configurable": {"thread_id": thread or uuid.uuid4().hex}})


def _thread(config: RunnableConfig) -> RunnableConfig:
    """Return the config of a thread without a specific checkpoint."""
    return {**config, "configurable": {"thread_id": _thread_id(config)}}


def _thread_id(config: RunnableConfig) -> Any:
    return config.get("configurable", {}).get("thread_id")


def _is_before(state: StateSnapshot, at: int | None) -> bool:
    """Return whether a state is the one before turn `at`."""
    if at is None:
        return standing_of(state).has_ended or state.next == ("generate",)
    return state.next == ("generate",) and len(_journal(state).turns) == at - 1


def _journal(state: StateSnapshot) -> Journal:
    return Journal(state.values.get("trajectory", []))


def _last_node(state: StateSnapshot) -> str:
    """Return the name of the node that ran before this state."""
    return "finalise" if standing_of(state).has_ended else "prepare"


def _check_checkpointer(graph: Graph) -> None:
    """Raise `ConfigurationError` for a graph without a checkpointer."""
    if not graph.checkpointer:
        raise ConfigurationError("a fork needs a checkpointer: create_rlm(..., checkpointer=...)")


def _check_is_new(state: StateSnapshot) -> None:
    """Raise `InputError` for a thread that has a run."""
    if standing_of(state).state != "new":
        thread = state.config["configurable"]["thread_id"]
        raise InputError(f"there is a run on the thread {thread!r} already: give the fork another name")


def _initial_state(components: Components, state: StateSnapshot, at: int | None) -> dict[str, Any]:
    """Return the initial state of a fork."""
    if not state.values.get("trajectory"):
        raise InputError("there is nothing to fork: this thread has no run")
    if not _is_before(state, at):
        turns = len(_journal(state).turns)
        raise InputError(
            f"there is no turn {at} to go back to: this thread has made {turns}, counted from 1, "
            "and a fork cannot go back to before it was made"
        )
    check_state(state.values)
    is_open = not standing_of(state).has_ended
    if is_open:
        components.check_resumable(_journal(state))
    run = uuid.uuid4().hex if is_open else None
    recorder = Recorder.without_stream()
    note_new_strategies(components, _journal(state), "", recorder)
    records: list[Record] = [*state.values["trajectory"], *recorder.records]
    return {
        **state.values,
        "run": run,
        "approval": None,
        "trajectory": records,
        "recorded": len(records),
    }
