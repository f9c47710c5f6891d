"""Bridges threads and event loops: sync nodes wait for coroutines, and coroutines wait for blocking functions."""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakSet

from anyio import CapacityLimiter, TaskInfo, from_thread, get_current_task, to_thread
from anyio.from_thread import BlockingPortal, BlockingPortalProvider

from rlm_langchain.errors import ForeignExit, is_exit
from rlm_langchain.models.provider_errors import is_graph_signal
from rlm_langchain.run.cancellation import start_thread, wait_ended

if TYPE_CHECKING:
    from rlm_langchain.run.run_tree import RunTree

T = TypeVar("T")
A = TypeVar("A")

_providers = [BlockingPortalProvider()]
"""The last one belongs to this process. The others belong to processes that it was forked from. Their loops do
not exist here, and closing them would wait for threads that do not exist either."""


@cache
def _open_provider(provider: int) -> BlockingPortalProvider:
    """Return the provider, whose loop stays open until the process ends. Clients cached by other packages hold
    connections that belong to this loop and would fail on another one."""
    opened = _providers[provider]
    loop = opened.__enter__()
    loop.call(lambda: asyncio.get_running_loop().set_task_factory(_task_without_exits))
    atexit.register(_close_provider, provider)
    return opened


class _WithoutExits(Coroutine[Any, Any, T]):
    """A coroutine that raises `ForeignExit` in place of an exit, such as a callback's `sys.exit()`.

    An exit in a task would make asyncio end the event loop, which all sync runs of the process share.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    def send(self, value: Any) -> Any:
        """Continue the coroutine."""
        return self._step(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        """Continue the coroutine with an error."""
        return self._step(self._work.throw, *error)

    def close(self) -> None:
        """Close the coroutine."""
        self._work.close()

    def __await__(self) -> Generator[Any, None, T]:
        return self._work.__await__()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped coroutine, such as its frame."""
        return getattr(self._work, name)

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        try:
            return step(*given)
        except BaseException as error:
            if not is_exit(error):
                raise
            raise ForeignExit(error) from error


def _task_without_exits(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(_WithoutExits(work) if isinstance(work, Coroutine) else work, loop=loop, **options)


def _close_provider(provider: int) -> None:
    if provider == len(_providers) - 1:
        _providers[provider].__exit__(None, None, None)


def _add_provider() -> None:
    _providers.append(BlockingPortalProvider())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_add_provider)

_OPEN_STREAMS: WeakSet[Generator[Any]] = WeakSet()
_ENDING = threading.Event()
"""Set when the process is ending, and thread pools accept no more work."""

IN_SYNC_RUN: ContextVar[bool] = ContextVar("in_sync_run", default=False)
"""Whether a sync run waits for the current code. Its checkpointer, which runs below share, may be sync only."""

POLL_SECONDS = 0.1
"""Seconds between two checks of a worker thread whether its caller was cancelled."""

SANDBOX_THREADS = ThreadPoolExecutor(256, thread_name_prefix="rlm-cell")
"""Threads that wait for sandboxes. The loop's default pool has only a few more threads than the machine has
cores: too few for many child runs, and it is used by others, too."""


@contextmanager
def shared_loop() -> Iterator[BlockingPortal]:
    """Yield the private event loop that all sync runs share. Hold it during a run, so that its connections stay
    open."""
    with _open_provider(len(_providers) - 1) as loop:
        yield loop


def run_sync(tree: RunTree, function: Callable[[A], Awaitable[T]], given: A) -> T:
    """Run `function(given)` and return its result. Raises `CancelledError` if the tree is cancelled meanwhile."""

    async def called() -> T:
        IN_SYNC_RUN.set(True)
        try:
            return await function(given)
        except BaseException as error:
            if not is_exit(error):
                raise
            raise ForeignExit(error) from error  # raised here, because an exit of a task would end the loop

    with shared_loop() as loop:
        future = loop.start_task_soon(called)
        with tree.awaiting(future):
            return future.result()


async def run_in_new_thread(do: Callable[[], T], *, abandon: bool = True) -> T:
    """Run `do` in a new thread. A pool could deadlock: `do` may wait for other threads.

    Without `abandon`, a cancelled caller waits for the thread.
    """
    return await to_thread.run_sync(do, abandon_on_cancel=abandon, limiter=CapacityLimiter(math.inf))


async def run_in_thread(do: Callable[[], T], stop: Callable[[], None]) -> T:
    """Run `do` in a thread. If cancelled, call `stop` and wait for the thread, so that no work continues
    unnoticed."""
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(SANDBOX_THREADS, copy_context().run, do)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # Not in the pool: all its threads may be busy, and this call is what ends them.
        await wait_ended([asyncio.wrap_future(start_thread(stop)), work])
        raise


async def run_to_end(do: Callable[[], object]) -> None:
    """Wait until `do`, which blocks, has finished. It runs to its end even if the caller is cancelled; the
    cancellation is raised afterwards."""
    work = asyncio.wrap_future(start_thread(do))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await wait_ended([work])
        raise


def run_interruptible(do: Callable[[], T], stop: Callable[[], None], context: Context | None = None) -> T:
    """Run `do`, and call `stop` at once if the caller is interrupted, because LangGraph's sync runner would
    first wait for its threads. Ctrl-C and other signals interrupt the main thread, anyio's cancel scopes its
    worker threads."""
    context = copy_context() if context is None else context
    do = partial(_without_exits, do)
    if not _is_cancellable() and threading.current_thread() is not threading.main_thread():
        return context.run(do)
    with ThreadPoolExecutor(1, thread_name_prefix="rlm") as pool:
        work = pool.submit(context.run, do)
        try:
            return _wait_result(work)
        except BaseException:
            if not work.done():  # otherwise the work itself raised or paused
                stop()
            raise


def _without_exits(do: Callable[[], T]) -> T:
    """Return the result of `do()`. An attempt to end the process, in a callback for example, becomes our error."""
    try:
        return do()
    except BaseException as error:
        if not is_exit(error):
            raise
        raise ForeignExit(error) from error


def _wait_result(work: Future[T]) -> T:
    """Return the result of `work`. Raises `CancelledError` in an anyio worker thread whose caller is cancelled."""
    seconds = POLL_SECONDS if _is_cancellable() else None  # a stream may be read from several threads
    while not wait_for([work], seconds).done:
        from_thread.check_cancelled()
    return work.result()


def _is_cancellable() -> bool:
    """Return whether this is a worker thread of anyio, which can ask whether its caller was cancelled."""
    try:
        from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True


def iterate_interruptible(
    parts: Iterator[T], stop: Callable[[], None], context: Context, leave: Callable[[], None]
) -> Iterator[T]:
    """Yield `parts`. Call `stop` at once, before LangGraph waits for its threads, on Ctrl-C, if the consumer
    leaves early, or if the anyio worker thread that waits for the next part is cancelled (a
    `StreamingResponse` has such threads).

    If such a cancellation comes between two parts, `leave` is called, which closes this iterator from another
    thread. Starlette abandons the stream in this case, so it would only be closed when Python collects its garbage.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="rlm") as pool:
        try:
            while (
                part := _wait_result(pool.submit(context.run, _without_exits, lambda: next(parts, end)))
            ) is not end:
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
    """Call `leave` once if this is an anyio worker thread whose caller is cancelled within the block."""
    if not _is_cancellable():
        yield
        return
    reader = from_thread.run(_reading_task)
    with shared_loop() as loop:
        watching = loop.start_task_soon(_watch, reader, leave)
        try:
            yield
        finally:
            watching.cancel()


async def _reading_task() -> tuple[TaskInfo, object]:
    """Return what signals the cancel scope of this worker thread's caller, and the task that keeps it alive."""
    return get_current_task(), asyncio.current_task()


async def _watch(reader: tuple[TaskInfo, object], leave: Callable[[], None]) -> None:
    while not reader[0].has_pending_cancellation():  # noqa: ASYNC110 - anyio tells nobody
        await asyncio.sleep(POLL_SECONDS)
    start_thread(leave)


def close_at_exit(stream: Generator[T]) -> Generator[T]:
    """Return `stream`, which is closed at exit if it is still open. Later there would be no loop to close it
    on, and it would wait for ever."""
    _OPEN_STREAMS.add(stream)
    return stream


@atexit.register
def _close_all() -> None:
    _ENDING.set()
    for stream in list(_OPEN_STREAMS):
        with suppress(ValueError):  # a daemon thread is at work in it
            stream.close()
