"""Bridges threads and event loops: sync nodes wait for coroutines, and coroutines wait for blocking functions."""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakSet

from anyio import CapacityLimiter, TaskInfo, from_thread, get_current_task, to_thread
from anyio.from_thread import BlockingPortal, BlockingPortalProvider

from rlm_langchain.models.provider_errors import is_graph_signal
from rlm_langchain.run.cancellation import ended, in_new_thread

if TYPE_CHECKING:
    from rlm_langchain.run.run_tree import RunTree

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

GLANCE = 0.1
"""Seconds between two looks of a worker thread at whether its caller was cancelled."""

SANDBOX_THREADS = ThreadPoolExecutor(256, thread_name_prefix="rlm-cell")
"""Threads that wait for sandboxes. A loop's own pool has a few more than the machine has cores: too few for a wide
wave of child runs, and others want it too."""


@contextmanager
def shared_loop() -> Iterator[BlockingPortal]:
    """The private event loop that all sync runs share; hold it for a run, so that its connections are kept."""
    with _kept(len(_providers) - 1) as loop:
        yield loop


def run_sync(tree: RunTree, function: Callable[[A], Awaitable[T]], given: A) -> T:
    """Run `function(given)` and return its result. Raises `CancelledError` if the tree is cancelled meanwhile."""

    async def called() -> T:
        IN_SYNC_RUN.set(True)
        return await function(given)

    with shared_loop() as loop:
        future = loop.start_task_soon(called)
        with tree.awaiting(future):
            return future.result()


async def run_in_new_thread(do: Callable[[], T], *, abandon: bool = True) -> T:
    """Run `do` in a new thread. A pool could deadlock: `do` may wait for other threads.

    Without `abandon`, a cancel waits for the thread.
    """
    return await to_thread.run_sync(do, abandon_on_cancel=abandon, limiter=CapacityLimiter(math.inf))


async def in_thread(do: Callable[[], T], stop: Callable[[], None]) -> T:
    """`do()`, in a thread. Cancelled, it calls `stop` and waits for the thread: nothing goes on behind our back."""
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(SANDBOX_THREADS, copy_context().run, do)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # Not in the pool: its threads may all be at work, and this is what ends them.
        await ended([asyncio.wrap_future(in_new_thread(stop)), work])
        raise


async def finished(do: Callable[[], object]) -> None:
    """Wait until `do()`, which blocks, is done: it is begun at once and brought to its end, however often whoever
    waits is cancelled. A cancel is raised afterwards."""
    work = asyncio.wrap_future(in_new_thread(do))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await ended([work])
        raise


def run_interruptible(do: Callable[[], T], stop: Callable[[], None], context: Context | None = None) -> T:
    """`do()`, such that `stop` is called at once when the caller is interrupted: LangGraph's sync runner waits for
    its threads first. Ctrl-C and other signals interrupt the main thread, anyio's cancel scopes its worker threads.
    """
    context = copy_context() if context is None else context
    if not _is_cancellable() and threading.current_thread() is not threading.main_thread():
        return context.run(do)
    with ThreadPoolExecutor(1, thread_name_prefix="rlm") as pool:
        work = pool.submit(context.run, do)
        try:
            return _awaited(work)
        except BaseException:
            if not work.done():  # else it is the work itself that raises, or pauses
                stop()
            raise


def _awaited(work: Future[T]) -> T:
    """Return the result of `work`. Raises `CancelledError` in an anyio worker thread whose caller is cancelled."""
    glance = GLANCE if _is_cancellable() else None  # the parts of a stream may be waited for in several threads
    while not wait_for([work], glance).done:
        from_thread.check_cancelled()
    return work.result()


def _is_cancellable() -> bool:
    """Whether this is a worker thread of anyio, which can ask whether its caller was cancelled."""
    try:
        from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True


def iterate_interruptible(
    parts: Iterator[T], stop: Callable[[], None], context: Context, leave: Callable[[], None]
) -> Iterator[T]:
    """Yield `parts`. Ctrl-C, leaving early, or a cancel of the anyio worker thread that waits for the next part (a
    `StreamingResponse` has such threads) calls `stop` at once, before LangGraph waits for its threads.

    `leave`, which closes this from another thread, is called when such a cancel comes between two parts. Starlette
    leaves the stream behind then, and it would be closed only when Python collects its garbage.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="rlm") as pool:
        try:
            while (part := _awaited(pool.submit(context.run, lambda: next(parts, end)))) is not end:
                with _watched_reader(leave):
                    yield cast(T, part)
        except BaseException as error:
            if not is_graph_signal(error):
                stop()
            raise
        finally:
            close = cast(Generator[T], parts).close
            if _ENDING.is_set():
                context.run(close)
            else:
                pool.submit(context.run, close).result()


@contextmanager
def _watched_reader(leave: Callable[[], None]) -> Iterator[None]:
    """Within the block, in an anyio worker thread: a cancel of whoever started the thread calls `leave`, once."""
    if not _is_cancellable():
        yield
        return
    reader = from_thread.run(_reader)
    with shared_loop() as loop:
        watching = loop.start_task_soon(_watch, reader, leave)
        try:
            yield
        finally:
            watching.cancel()


async def _reader() -> tuple[TaskInfo, object]:
    """Return what tells of the cancel scope of this worker thread's caller, and the task that keeps it alive."""
    return get_current_task(), asyncio.current_task()


async def _watch(reader: tuple[TaskInfo, object], leave: Callable[[], None]) -> None:
    while not reader[0].has_pending_cancellation():  # noqa: ASYNC110 - anyio tells nobody
        await asyncio.sleep(GLANCE)
    in_new_thread(leave)


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
