"""Stops resting workers that compute: threads that a cell leaves behind pause until the next turn.

Between cells, and while models are called, a worker rests: it waits for the host and should use no processor time.
If it uses some nevertheless, its whole process is stopped until the next turn. The time that it used counts as time
of its cell. A single thread of the host checks all resting workers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from functools import cache

from rlm_langchain.sandboxes.cpython.launcher import LaunchedWorker

TICK = 0.03
"""Seconds between two checks of the resting workers."""

SLACK = 0.05
"""Seconds of processor time that a worker may use in one rest, to get from its last message to waiting."""


@dataclass(slots=True)
class Rest:
    """The state of a resting worker."""

    used: float
    """Seconds of processor time that the worker had used before."""
    stopped: bool = False
    """Whether its process is stopped."""


class RestWatch:
    """The resting workers of this process, and the thread that checks them."""

    def __init__(self) -> None:
        self._host = os.getpid()
        self._resting: dict[LaunchedWorker, Rest] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._check_all, name="rlm-rest", daemon=True).start()

    def begin(self, worker: LaunchedWorker) -> None:
        """Begin the rest of a worker: it has nothing to do until `end`."""
        with self._changed:
            self._resting[worker] = Rest(processor_seconds(worker.pid))
            self._changed.notify()

    def end(self, worker: LaunchedWorker) -> float:
        """End the rest of a worker, and return the seconds of processor time that it used meanwhile."""
        if os.getpid() != self._host:  # a fork: the checking thread, which does not exist here, may hold the lock
            return 0.0
        with self._changed:
            rest = self._resting.pop(worker, None)
        if rest is None:
            return 0.0
        if rest.stopped:
            worker.resume()
        return max(0.0, processor_seconds(worker.pid) - rest.used)

    def _check_all(self) -> None:
        while True:
            with self._changed:
                while not self._resting:
                    self._changed.wait()
            time.sleep(TICK)
            with self._changed:
                for worker in list(self._resting):  # a copy, because garbage collection may end other rests
                    rest = self._resting.get(worker)
                    if rest is not None and not rest.stopped:
                        self._check(worker, rest)

    def _check(self, worker: LaunchedWorker, rest: Rest) -> None:
        """Stop a worker that does not rest. An error is logged, so that other workers are still checked."""
        try:
            if processor_seconds(worker.pid) > rest.used + SLACK:
                rest.stopped = True
                worker.stop()
                if self._resting.get(worker) is not rest:  # garbage collection in this thread has ended the rest
                    worker.resume()
        except Exception:
            rest.stopped = True  # not checked again in this rest; `end` resumes the worker in any case
            logging.getLogger(__name__).exception(
                "the worker %d cannot be checked while it rests: threads that a cell has left may go on", worker.pid
            )


def processor_seconds(pid: int) -> float:
    """Return the seconds of processor time that all threads of a process have used, or 0 if it is gone.

    They are read from the kernel's clock of the process, whose number is computed as in `clock_getcpuclockid`.
    """
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


def watch() -> RestWatch:
    """Return the instance of this process. A forked process has its own."""
    return _watch(os.getpid())


@cache
def _watch(pid: int) -> RestWatch:
    return RestWatch()
