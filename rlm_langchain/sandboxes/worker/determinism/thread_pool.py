"""`concurrent.futures` for programs: the same names, implemented with a `CooperativePool` (see `scheduler.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import _base
from functools import partial

from rlm_langchain.sandboxes.worker.determinism.scheduler import MAX_WAITING, CooperativePool, Task

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

    BaseFuture = _base.Future[Any]
else:
    BaseFuture = _base.Future


class Future(BaseFuture):
    """A result. Waiting for it sends the calls of the tasks."""

    __module__ = "concurrent.futures"

    def __init__(self, pool: CooperativePool) -> None:
        super().__init__()
        self._pool = pool

    def result(self, timeout: float | None = None) -> Any:
        """Return the task's result, or raise its exception."""
        self._pool.until(self.done)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the task's exception, or None."""
        self._pool.until(self.done)
        return super().exception(0)


class Pool(_base.Executor):
    """Runs tasks one at a time. Their calls go to the host together, up to `max_workers` at once."""

    __module__, __qualname__ = "concurrent.futures", "ThreadPoolExecutor"

    pool: CooperativePool

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._max_workers = min(max_workers or MAX_WAITING, MAX_WAITING)
        self._first: Callable[[], object] = partial(initializer, *initargs) if initializer else bool
        self._queue: list[Task] = []
        self._begun: list[Task] = []
        self._closed = False
        self.pool.refill.append(self._fill)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Queue a call. It starts at once if there is room."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        task = Task(self.pool, Future(self.pool), lambda: (self._first(), fn(*args, **kwargs))[1])
        self._queue.append(task)
        self._fill()
        return task.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls. By default, wait for all tasks to end."""
        self._closed = True
        if cancel_futures:
            for task in self._queue:
                task.future.cancel()
        if wait:
            self.pool.until(self._is_idle)
            self.pool.refill = [fill for fill in self.pool.refill if fill != self._fill]

    def _fill(self) -> None:
        """Start as many tasks as are allowed."""
        self._begun = [task for task in self._begun if not task.future.done()]
        while self._queue and len(self._begun) < self._max_workers:
            task = self._queue.pop(0)
            if task.future.set_running_or_notify_cancel():
                task.begin()
                self._begun += [] if task.future.done() else [task]

    def _is_idle(self) -> bool:
        self._fill()
        return not self._begun and not self._queue


def install(module: Any, pool: CooperativePool) -> None:
    """Replace the thread pool of `concurrent.futures.thread`."""
    module.ThreadPoolExecutor = type("ThreadPoolExecutor", (Pool,), {"pool": pool, "__module__": Pool.__module__})


def install_waiting(module: Any, pool: CooperativePool) -> None:
    """Replace the functions of `concurrent.futures._base` that wait for futures."""
    module.as_completed = lambda fs, timeout=None: _as_completed(pool, fs)
    module.wait = lambda fs, timeout=None, return_when=_base.ALL_COMPLETED: _wait(pool, fs, return_when)


def _as_completed(pool: CooperativePool, fs: Iterable[BaseFuture]) -> Iterator[BaseFuture]:
    """Yield the futures as they complete; those that are done at the same time in the given order."""
    left = list(dict.fromkeys(fs))
    while left:
        _until_enough(pool, left, _base.FIRST_COMPLETED)
        ready = [future for future in left if future.done()]
        if not ready:
            raise TimeoutError(f"{len(left)} futures will never be done")
        left = [future for future in left if not future.done()]
        yield from ready


def _wait(pool: CooperativePool, fs: Iterable[BaseFuture], return_when: str) -> Any:
    """Return the futures that are done, and the others."""
    futures = set(fs)
    _until_enough(pool, futures, return_when)
    done = {future for future in futures if future.done()}
    return _base.DoneAndNotDoneFutures(done, futures - done)


def _until_enough(pool: CooperativePool, futures: Iterable[BaseFuture], return_when: str) -> None:
    pool.until(lambda: _is_enough(list(futures), return_when))


def _is_enough(futures: list[BaseFuture], return_when: str) -> bool:
    done = [future for future in futures if future.done()]
    if return_when == _base.FIRST_COMPLETED:
        return bool(done)
    failed = return_when == _base.FIRST_EXCEPTION and any(f.exception() for f in done if not f.cancelled())
    return failed or len(done) == len(futures)
