"""Going back in a thread: a fork is a new thread that has the journal of another one up to a turn.

It may go on with another model, budget or more strategies. The cells before are repeated in a REPL of its own,
and the replies that they had are not paid for again.
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
    """Begin the thread of `to` with what the one of `config` was before turn `at`.

    Raises `InputError`, and `ConfigurationError` without a checkpointer.
    Turns are counted from 1. None: where it last was between two turns, or after its end.
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
    """The same, for savers that are async."""
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
    """A graph to look at the threads of a saver with. It has no parts to run with."""
    return rlm_graph(cast(Components, None)).compile(checkpointer=saver, name="rlm")


def other_thread(config: RunnableConfig, thread: str | None) -> RunnableConfig:
    """The same config for another thread; None: one with a name that nobody has."""
    return _thread({**config, "configurable": {"thread_id": thread or uuid.uuid4().hex}})


def _thread(config: RunnableConfig) -> RunnableConfig:
    """The config of a thread as such, not of a moment of it."""
    return {**config, "configurable": {"thread_id": config.get("configurable", {}).get("thread_id")}}


def _is_before(state: StateSnapshot, at: int | None) -> bool:
    if at is None:
        return state.next in ((), ("generate",))
    return state.next == ("generate",) and len(_journal(state).turns) == at - 1


def _journal(state: StateSnapshot) -> Journal:
    return Journal(state.values.get("trajectory", []))


def _node(state: StateSnapshot) -> str:
    """After which node of the graph this state was."""
    return "prepare" if state.next else "finalise"


def _must_keep(graph: Graph) -> None:
    if not graph.checkpointer:
        raise ConfigurationError("a fork goes back in what a checkpointer keeps: create_rlm(..., checkpointer=...)")


def _must_be_new(state: StateSnapshot) -> None:
    if state.values:
        thread = state.config["configurable"]["thread_id"]
        raise InputError(f"there is a run on the thread {thread!r} already: give the fork another name")


def _values(components: Components, state: StateSnapshot, at: int | None) -> dict[str, Any]:
    """The state that a fork begins with."""
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
