"""Between threads and event loops: sync nodes wait for coroutines, and coroutines for what blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar, cast

from anyio.from_thread import BlockingPortalProvider

if TYPE_CHECKING:
    from rlm_langchain.tree import Tree

T = TypeVar("T")
A = TypeVar("A")

PORTAL = BlockingPortalProvider()
"""The private event loop that all sync runs share. Runs while it is in use; hold it for a run, so that the run's
connections are kept."""

CELLS = ThreadPoolExecutor(256, thread_name_prefix="rlm-cell")
"""Threads that wait for sandboxes. A loop's own pool has a few more than the machine has cores: too few for a wide
wave of child runs, and others want it too."""


def wait(tree: Tree, function: Callable[[A], Awaitable[T]], given: A) -> T:
    """The result of `function(given)`. Ends in `CancelledError` when the tree is closed meanwhile."""
    with PORTAL as portal:
        future = portal.start_task_soon(function, given)
        with tree.awaiting(future):
            return future.result()


async def in_thread(do: Callable[[], T], stop: Callable[[], None]) -> T:
    """`do()`, in a thread. Cancelled, it calls `stop` and waits for the thread: nothing goes on behind our back."""
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(CELLS, copy_context().run, do)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.gather(loop.run_in_executor(CELLS, stop), work, return_exceptions=True)
        raise


def interruptible(do: Callable[[], T], stop: Callable[[], None]) -> T:
    """`do()`, such that Ctrl-C calls `stop` at once: LangGraph's sync runner waits for its threads first."""
    if threading.current_thread() is not threading.main_thread():
        return do()
    with ThreadPoolExecutor(1, thread_name_prefix="rlm") as pool:
        work = pool.submit(copy_context().run, do)
        try:
            return work.result()
        except KeyboardInterrupt:
            stop()
            raise


def abandonable(parts: Iterator[T], stop: Callable[[], None]) -> Iterator[T]:
    """`parts`, such that Ctrl-C, or leaving early, calls `stop` at once, before LangGraph waits for its threads."""
    context, end = copy_context(), object()
    with ThreadPoolExecutor(1, thread_name_prefix="rlm") as pool:
        try:
            while (part := pool.submit(context.run, lambda: next(parts, end)).result()) is not end:
                yield cast(T, part)
        except BaseException:
            stop()
            raise
        finally:
            pool.submit(cast(Generator[T], parts).close).result()
