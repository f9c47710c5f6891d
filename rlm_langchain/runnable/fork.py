"""Forks: a new thread with the journal of another one up to a turn.

The fork may continue with another model, another budget or additional strategies. The cells before that turn
are repeated in a new REPL, and their replies are not paid for again.
"""

from __future__ import annotations

import uuid
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import StateSnapshot

from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.graph.boundary import Internal
from rlm_langchain.graph.components import Components
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.graph.nodes.prepare import note_new_strategies
from rlm_langchain.records import Record
from rlm_langchain.trajectory.journal import Journal, check_state
from rlm_langchain.trajectory.recorder import Recorder

Graph = CompiledStateGraph[Any, Any, Any, Any]


def fork(components: Components, graph: Graph, config: RunnableConfig, at: int | None, to: RunnableConfig) -> None:
    """Start the thread of `to` with the state that the thread of `config` had before turn `at`.

    Turns are counted from 1. None: the last point between two turns, or after the end. Raises `InputError`, and
    `ConfigurationError` without a checkpointer.
    """
    _must_keep(graph)
    _must_be_new(graph.get_state(to))
    found = graph.get_state(config)
    if not _is_before(found, at):
        earlier = graph.get_state_history(_thread(config), before=found.config) if found.values else ()
        found = next((state for state in earlier if _is_before(state, at)), found)
    graph.update_state(to, cast(Any, Internal(_values(components, found, at))), as_node=_node(found))


async def afork(
    components: Components, graph: Graph, config: RunnableConfig, at: int | None, to: RunnableConfig
) -> None:
    """Do what `fork` does, for async checkpointers."""
    _must_keep(graph)
    _must_be_new(await graph.aget_state(to))
    found = await graph.aget_state(config)
    if not _is_before(found, at) and found.values:
        async for state in graph.aget_state_history(_thread(config), before=found.config):
            if _is_before(state, at):
                found = state
                break
    await graph.aupdate_state(to, cast(Any, Internal(_values(components, found, at))), as_node=_node(found))


def reader(saver: Any) -> Graph:
    """Return a graph for reading the threads of a checkpointer. It has no components and cannot run."""
    return rlm_graph(cast(Components, None)).compile(checkpointer=saver, name="rlm")


def other_thread(config: RunnableConfig, thread: str | None) -> RunnableConfig:
    """Return the same config for another thread. None: a thread with a new, unique name."""
    return _thread({**config, "configurable": {"thread_id": thread or uuid.uuid4().hex}})


def _thread(config: RunnableConfig) -> RunnableConfig:
    """Return the config of a thread without a specific checkpoint."""
    return {**config, "configurable": {"thread_id": config.get("configurable", {}).get("thread_id")}}


def _is_before(state: StateSnapshot, at: int | None) -> bool:
    if at is None:
        return state.next in ((), ("generate",))
    return state.next == ("generate",) and len(_journal(state).turns) == at - 1


def _journal(state: StateSnapshot) -> Journal:
    return Journal(state.values.get("trajectory", []))


def _node(state: StateSnapshot) -> str:
    """Return the name of the node that ran before this state."""
    return "prepare" if state.next else "finalise"


def _must_keep(graph: Graph) -> None:
    if not graph.checkpointer:
        raise ConfigurationError("a fork goes back in what a checkpointer keeps: create_rlm(..., checkpointer=...)")


def _must_be_new(state: StateSnapshot) -> None:
    if state.values:
        thread = state.config["configurable"]["thread_id"]
        raise InputError(f"there is a run on the thread {thread!r} already: give the fork another name")


def _values(components: Components, state: StateSnapshot, at: int | None) -> dict[str, Any]:
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
    if state.next:
        components.check_resumable(_journal(state))
    run = uuid.uuid4().hex if state.next else None
    recorder = Recorder.unwatched()
    note_new_strategies(components, _journal(state), "", recorder)
    records: list[Record] = [*state.values["trajectory"], *recorder.records]
    return {**state.values, "run": run, "approval": None, "agreed": None, "trajectory": records}
