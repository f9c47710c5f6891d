"""Cancels a call when a LangGraph graph that it runs in is cancelled, and lets that graph end its tasks in order.

LangGraph cleans up after a cancelled graph in a task, which a second cancel ends, even before its first step. Then
the tasks of the graph's nodes continue, and nothing refers to them. Frameworks do cancel repeatedly: anyio, and
therefore Starlette and MCP. A sync graph waits for its threads, but does not tell them to stop. Therefore the exit
of each graph around a call is wrapped here. LangGraph has no hook for that: if its internals change, nothing is
wrapped, and `tests/integration/test_cancel_ways.py` fails.
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

_CALL_KEY = "__pregel_call"
"""LangGraph's key under `configurable` for the function that starts another task of the graph of this node."""
_Stack = ExitStack | AsyncExitStack
_CALLS_BY_STACK: WeakKeyDictionary[_Stack, Group] = WeakKeyDictionary()
"""The calls within each graph, by the exit stack that LangGraph closes at the end of the graph."""
_LOCK = threading.Lock()


def watch_parents(invocation: Invocation, config: RunnableConfig | None) -> None:
    """Have the call cancelled when a graph around it is cancelled. The graphs are found by `config` and by the
    context variable of the config."""
    for around in (config, ambient_config()):
        for loop in _loops_around(around):
            _calls_within(loop.stack).add(invocation)


def ambient_config() -> RunnableConfig | None:
    """Return the config of the node that this code runs in, whether or not the node passes it on."""
    return var_child_runnable_config.get()


def _loops_around(config: Mapping[str, Any] | None) -> Iterator[Any]:
    """Yield the LangGraph loops of the graphs around a config, the innermost first."""
    while config and (call := (config.get("configurable") or {}).get(_CALL_KEY)) is not None:
        if not isinstance(call, partial):  # LangGraph wraps it in a function for a node with a timeout
            wrapped = [cell.cell_contents for cell in getattr(call, "__closure__", None) or ()]
            call = next((one for one in wrapped if isinstance(one, partial)), partial(call))
        loop: Any = getattr(call.keywords.get("schedule_task"), "__self__", None)
        if not isinstance(getattr(loop, "stack", None), _Stack):
            return
        yield loop
        config = loop.config


def _calls_within(stack: _Stack) -> Group:
    """Return the calls within the graph of this exit stack, and wrap the exit on first use."""
    with _LOCK:
        if (calls := _CALLS_BY_STACK.get(stack)) is None:
            calls = _CALLS_BY_STACK[stack] = Group()
            patched: Any = stack
            if isinstance(stack, AsyncExitStack):
                patched.__aexit__ = partial(_aexit_graph, calls, stack.__aexit__)
            else:
                patched.__exit__ = partial(_exit_graph, calls, stack.__exit__)
        return calls


def _exit_graph(
    calls: Group,
    do_exit: Callable[..., bool | None],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> bool | None:
    """Exit a sync graph. If it is cancelled, cancel its calls first; if a node failed, LangGraph lets the others
    end."""
    if error is not None and not isinstance(error, Exception):
        calls.cancel()
    return do_exit(kind, error, trace)


def _aexit_graph(
    calls: Group,
    do_exit: Callable[..., Coroutine[Any, Any, bool | None]],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> Coroutine[Any, Any, bool | None]:
    """Exit an async graph. The returned coroutine has been started, so that no cancel can come before it starts."""
    if error is None or isinstance(error, GraphBubbleUp):
        return do_exit(kind, error, trace)
    calls.cancel()
    exiting = _exit_after_cancel(calls, do_exit(kind, error, trace))
    exiting.send(None)
    return exiting


async def _exit_after_cancel(calls: Group, exiting: Coroutine[Any, Any, bool | None]) -> bool | None:
    """Run LangGraph's exit to its end, whatever is cancelled meanwhile, and wait for the cancelled calls."""
    task = asyncio.create_task(exiting)
    try:
        await asyncio.sleep(0)  # `_aexit_graph` runs the coroutine up to here
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await wait_ended([task])
        raise
    finally:
        await calls.wait_ended()
    return task.result()
