"""The graphs of others around a call: they end in order, and the call with them, however they are cancelled.

LangGraph cleans up after a graph in a task that a second cancel ends, be it before its first step: then the tasks
of its nodes go on, and nobody knows them. Frameworks cancel again and again (anyio, and so Starlette and MCP). And
its sync graphs wait for their threads, which nobody has told. So the exits of the graphs around a call are watched.
LangGraph has no handle for that: where its own parts are not as they are known here, nothing is watched, and
`tests/integration/test_cancel_ways.py` fails.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.errors import GraphBubbleUp

from rlm_langchain.run.cancellation import Group, Invocation, wait_ended

_CALL = "__pregel_call"
"""Under `configurable`, LangGraph's: what begins another task of the graph that a node belongs to."""
_Stack = ExitStack | AsyncExitStack
_CALLS: WeakKeyDictionary[_Stack, Group] = WeakKeyDictionary()
"""The calls within a graph, by what LangGraph closes at its end."""
_LOCK = threading.Lock()


def watch_parents(invocation: Invocation, config: RunnableConfig | None) -> None:
    """Cancel the call when a graph ends that it works within, by its config or by its context."""
    for around in (config, ambient_config()):
        for graph in _graphs_around(around):
            _calls_within(graph.stack).add(invocation)


def ambient_config() -> RunnableConfig | None:
    """The config of the node that this code runs in, whether or not the node hands it on."""
    return var_child_runnable_config.get()


def _graphs_around(config: Mapping[str, Any] | None) -> Iterator[Any]:
    """Yield what works on the graphs around, from the innermost."""
    while config and (call := (config.get("configurable") or {}).get(_CALL)) is not None:
        if not isinstance(call, partial):  # a node with a timeout has a function around it
            within = [cell.cell_contents for cell in getattr(call, "__closure__", None) or ()]
            call = next((one for one in within if isinstance(one, partial)), partial(call))
        graph: Any = getattr(call.keywords.get("schedule_task"), "__self__", None)
        if not isinstance(getattr(graph, "stack", None), _Stack):
            return
        yield graph
        config = graph.config


def _calls_within(stack: _Stack) -> Group:
    with _LOCK:
        if (calls := _CALLS.get(stack)) is None:
            calls = _CALLS[stack] = Group()
            leave: Any = stack
            if isinstance(stack, AsyncExitStack):
                leave.__aexit__ = partial(_aleave, calls, stack.__aexit__)
            else:
                leave.__exit__ = partial(_leave, calls, stack.__exit__)
        return calls


def _leave(
    calls: Group,
    leave: Callable[..., bool | None],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> bool | None:
    """End a sync graph. When one of its nodes has failed, the others are let end, as LangGraph has it."""
    if error is not None and not isinstance(error, Exception):
        calls.cancel()
    return leave(kind, error, trace)


def _aleave(
    calls: Group,
    leave: Callable[..., Coroutine[Any, Any, bool | None]],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> Coroutine[Any, Any, bool | None]:
    """End an async graph. What is returned has begun: no cancel comes too early for it."""
    if error is None or isinstance(error, GraphBubbleUp):
        return leave(kind, error, trace)
    calls.cancel()
    leaving = _in_order(calls, leave(kind, error, trace))
    leaving.send(None)
    return leaving


async def _in_order(calls: Group, leave: Coroutine[Any, Any, bool | None]) -> bool | None:
    task = asyncio.create_task(leave)
    try:
        await asyncio.sleep(0)  # until here it is run by whoever calls it
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await wait_ended([task])
        raise
    finally:
        await calls.wait_ended()
    return task.result()
