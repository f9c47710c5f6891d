"""Between threads and event loops: sync nodes wait for coroutines, and coroutines for what blocks."""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakSet

from anyio import CapacityLimiter, to_thread
from anyio.from_thread import BlockingPortal, BlockingPortalProvider

if TYPE_CHECKING:
    from rlm_langchain.tree import Tree

T = TypeVar("T")
A = TypeVar("A")

_providers = [BlockingPortalProvider()]
"""The last one is of this process. Those before it are of processes that it was forked from, whose loops are not
here: to let go of them would be to wait for their threads."""


@cache
def _kept(provider: int) -> BlockingPortalProvider:
    """The provider, whose loop is kept when its first run is over: clients of others, cached by their packages,
    hold connections that belong to it, and would fail on another one. It ends with the process.
    """
    kept = _providers[provider]
    kept.__enter__()
    atexit.register(_end, provider)
    return kept


def _end(provider: int) -> None:
    if provider == len(_providers) - 1:
        _providers[provider].__exit__(None, None, None)


def _forked() -> None:
    _providers.append(BlockingPortalProvider())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

_OPEN: WeakSet[Generator[Any]] = WeakSet()
_ENDING = threading.Event()
"""The process ends: no pool takes work any more."""

IN_SYNC_RUN: ContextVar[bool] = ContextVar("in_sync_run", default=False)
"""Whether a sync run waits for what runs here: then its saver, which what is below it shares, may be sync only."""

CELLS = ThreadPoolExecutor(256, thread_name_prefix="rlm-cell")
"""Threads that wait for sandboxes. A loop's own pool has a few more than the machine has cores: too few for a wide
wave of child runs, and others want it too."""


@contextmanager
def portal() -> Iterator[BlockingPortal]:
    """The private event loop that all sync runs share; hold it for a run, so that its connections are kept."""
    with _kept(len(_providers) - 1) as loop:
        yield loop


def wait(tree: Tree, function: Callable[[A], Awaitable[T]], given: A) -> T:
    """The result of `function(given)`. Ends in `CancelledError` when the tree is closed meanwhile."""

    async def called() -> T:
        IN_SYNC_RUN.set(True)
        return await function(given)

    with portal() as loop:
        future = loop.start_task_soon(called)
        with tree.awaiting(future):
            return future.result()


async def in_own_thread(do: Callable[[], T]) -> T:
    """`do()`, in a thread that is its own: it may wait for others that want one too, and a pool would run out."""
    return await to_thread.run_sync(do, abandon_on_cancel=True, limiter=CapacityLimiter(math.inf))


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
            close = cast(Generator[T], parts).close
            if _ENDING.is_set():
                context.run(close)
            else:
                pool.submit(context.run, close).result()


def closed_at_exit(stream: Generator[T]) -> Generator[T]:
    """`stream`, closed when the process ends in its midst. Later there would be no loop for it to end on: it would
    wait for ever."""
    _OPEN.add(stream)
    return stream


@atexit.register
def _close_all() -> None:
    _ENDING.set()
    for stream in list(_OPEN):
        with suppress(ValueError):  # a daemon thread is at work in it
            stream.close()
