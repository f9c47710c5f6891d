"""Ends everything that works for a call of an RLM once the call is cancelled, however and however often.

The first to notice the cancellation (by a `CancelledError`, a closed stream, Ctrl-C, a failed sibling in a
batch) calls `Invocation.cancel`, which never blocks. From then on no request of the call is admitted, and its
workers are being killed. The run itself works in a separate task, which is cancelled exactly once. Frameworks
that cancel at every await (anyio, and therefore Starlette and MCP), or twice, would otherwise interrupt
LangGraph's own cleanup and leave its tasks behind.

Covered: everything that this process does for the call. Not covered: requests that were already sent, which are
paid for; and a sync call in a thread that its caller has abandoned, unless anyio started the thread, because
Python does not tell the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextlib import aclosing, contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from anyio import CancelScope

from rlm_langchain.budget.budget import Budget

T = TypeVar("T")
CLOSE_TIMEOUT = 30.0
"""Seconds that a cancelled run has to close its resources before its caller continues without it."""


class Cancelled(asyncio.CancelledError):
    """Unwinds the work for a cancelled call. Never visible to callers."""


class Group:
    """Calls that end together: those of a batch once one of them has failed, and those within another call.

    A call belongs to the group in its context (`contextvars`, which executors copy to their threads).
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """The error that ended the group."""
        self._members: WeakSet[Invocation] = WeakSet()
        self._cancelled = False
        self._lock = threading.Lock()

    def add(self, member: Invocation) -> None:
        """Add a call to the group. If the group has ended, the call is cancelled at once."""
        with self._lock:
            self._members.add(member)
            cancelled = self._cancelled
        if cancelled:
            member.cancel()

    def cancel(self) -> None:
        """Cancel all calls of the group."""
        with self._lock:
            self._cancelled = True
            members = list(self._members)
        for member in members:
            member.cancel()

    @contextmanager
    def member(self, *, failing: bool) -> Iterator[None]:
        """Wrap one call of the group. With `failing`, its error ends the others."""
        token = _GROUP.set(self)
        try:
            if self._cancelled:
                raise Cancelled
            yield
        except BaseException as error:
            if failing and not self._cancelled:
                self.error = error
                self.cancel()
            raise
        finally:
            _GROUP.reset(token)

    @contextmanager
    def raising_cause(self) -> Iterator[None]:
        """Wrap the whole group, so that it raises the error that ended it, not a consequence of that error."""
        try:
            yield
        except (Exception, Cancelled) as error:
            if self.error is None or self.error is error:
                raise
            raise self.error from None

    def wait(self) -> None:
        """Wait until its sync calls have ended, even those in abandoned threads."""
        with self._lock:
            working = [member.ending for member in self._members if member.ending is not None]
        wait(working, CLOSE_TIMEOUT)

    async def wait_ended(self) -> None:
        """Wait until all its calls have cleaned up, except async calls on other event loops."""
        with self._lock:
            members, loop = list(self._members), asyncio.get_running_loop()
        tasks = [one.task for one in members if one.task is not None and one.task.get_loop() is loop]
        await wait_ended([*tasks, *(asyncio.wrap_future(one.ending) for one in members if one.ending is not None)])


class CancelsRuns(Protocol):
    """Cancels trees of runs by name, as `RunTreeRegistry` does."""

    def cancel(self, run: str) -> Callable[[], None]:
        """Admit nothing more of a run. Return at once, with a function that ends the work for it."""


_GROUP: ContextVar[Group | None] = ContextVar("rlm_group", default=None)


class Invocation:
    """One call of an RLM from outside, with the runs that work for it."""

    def __init__(self, trees: CancelsRuns, budget: Budget | None = None) -> None:
        self.budget = budget
        """The budget of this call. None: that of the RLM."""
        self.runs: set[str] = set()
        self.cancelled = False
        self.task: asyncio.Task[Any] | None = None
        """The task that works for the call, if it is async."""
        self.ending: Future[None] | None = None
        """Done when the call has ended, if it is sync."""
        self.nested = Group()
        """Calls made within this one: by tools, or by models that are RLMs themselves."""
        self.trees = trees
        self._lock = threading.Lock()
        if (group := _GROUP.get()) is not None:
            group.add(self)

    def join(self, run: str) -> None:
        """Add a run to the call. Raises `Cancelled`."""
        with self._lock:
            if self.cancelled:
                raise Cancelled
            self.runs.add(run)

    def leave(self) -> set[str]:
        """Remove and return the runs, which the caller will close. A later cancellation does not affect them."""
        with self._lock:
            runs, self.runs = self.runs, set()
        return runs

    def cancel(self) -> None:
        """Admit nothing more, and start to end the work. Returns at once; safe from any thread, and to call
        twice."""
        with self._lock:  # a run that was closed between the two steps would stay cancelled for good
            if self.cancelled:
                return
            self.cancelled = True
            ends, task = [self.trees.cancel(run) for run in self.runs], self.task
        for end in ends:
            end()
        self.nested.cancel()
        if task is not None:
            _cancel(task)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Wrap a sync call."""
        self.ending = Future()
        try:
            yield
        finally:
            self.ending.set_result(None)

    def context(self) -> Context:
        """Return a copy of the caller's context in which other calls belong to this one."""
        context = copy_context()
        context.run(_GROUP.set, self.nested)
        return context

    def started(self, task: asyncio.Task[Any]) -> None:
        """Remember the task that works for the call."""
        with self._lock:
            self.task = task
            cancelled = self.cancelled
        if cancelled:
            _cancel(task)


def _cancel(task: asyncio.Task[Any]) -> None:
    loop = task.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)


async def run_supervised(invocation: Invocation, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, run in a separate task that is cancelled once, however its caller is
    cancelled."""
    task = asyncio.create_task(work, context=invocation.context())
    invocation.started(task)
    try:
        await asyncio.wait([task])
    except BaseException:
        invocation.cancel()
        await wait_ended([task])
        raise
    return task.result()


async def stream_supervised(invocation: Invocation, parts: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield `parts`, each computed on demand in a separate task. If the stream is left early, it is closed
    properly."""
    loop = asyncio.get_running_loop()
    wanted = asyncio.Event()

    part: asyncio.Future[T] = loop.create_future()

    async def produce() -> None:
        async with aclosing(parts) as found:
            await wanted.wait()
            async for one in found:
                wanted.clear()
                part.set_result(one)
                await wanted.wait()

    task = asyncio.create_task(produce(), context=invocation.context())
    invocation.started(task)
    _STREAMING.add(task)
    task.add_done_callback(_STREAMING.discard)
    try:
        while True:
            part = loop.create_future()
            wanted.set()
            await _first_of(part, task)
            if not part.done():
                break
            with cancel_with_reader(invocation.cancel):
                yield part.result()
    except BaseException:
        invocation.cancel()
        await wait_ended([task])
        raise
    task.result()


@contextmanager
def cancel_with_reader(cancel: Callable[[], None]) -> Iterator[None]:
    """Wrap the `yield` of a stream: call `cancel` if the task that reads the stream is cancelled within the block.

    A cancelled reader asks for no further part. Frameworks then abandon the stream, and it would only be closed
    when Python collects its garbage.
    """

    def on_reader_done(reader: asyncio.Task[Any]) -> None:
        if reader.cancelled():
            cancel()

    reader = asyncio.current_task()
    if reader is None:
        yield
        return
    reader.add_done_callback(on_reader_done)
    try:
        yield
    finally:
        reader.remove_done_callback(on_reader_done)


_STREAMING: set[asyncio.Task[Any]] = set()
"""The tasks that produce the parts of streams. Event loops only hold weak references to tasks."""


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def wait_ended(futures: Collection[asyncio.Future[Any]], seconds: float = CLOSE_TIMEOUT) -> None:
    """Wait until cancelled futures have ended, even if the wait itself is cancelled repeatedly."""
    loop = asyncio.get_running_loop()
    pending, until = {one for one in futures if not one.done()}, loop.time() + seconds
    with CancelScope(shield=True):
        while pending and (on_reader_done := until - loop.time()) > 0:
            try:
                _, pending = await asyncio.wait(pending, timeout=on_reader_done)
            except asyncio.CancelledError:
                pending = {one for one in pending if not one.done()}
    if pending:
        logging.getLogger(__name__).warning(
            "a cancelled run has not ended after %g s; it makes no more calls, but what it waits for goes on",
            seconds,
        )
    for one in futures:
        if one.done() and not one.cancelled():
            one.exception()  # marked as retrieved, so that asyncio logs no warning


def start_thread(do: Callable[[], object]) -> Future[None]:
    """Run `do` at once in a new thread, whatever happens to the caller. If the process is ending, run it in
    this thread."""
    future: Future[None] = Future()

    def work() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - raised to the caller that waits for the future
            future.set_exception(error)
        else:
            future.set_result(None)

    try:
        threading.Thread(target=work, name="rlm-closing", daemon=True).start()
    except RuntimeError:  # no new thread can be started
        work()
    return future
