"""Stops workers while nobody waits for them: threads that a cell leaves behind pause until its next turn.

Between cells, and while models are called, a worker waits for the host and needs no processor. If it uses some
nevertheless, the kernel stops the whole process until its next turn. The time that it used counts as time of its
cell. A single thread of the host checks all resting workers.
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
"""Seconds of processor time that a worker may use in one rest: after its last message it still starts to wait."""


@dataclass(slots=True)
class Rest:
    """What is known about a resting worker."""

    used: float
    """Seconds of processor time that it had used before."""
    stopped: bool = False


class RestWatch:
    """The resting workers of this process, and the thread that checks them."""

    def __init__(self) -> None:
        self._host = os.getpid()
        self._resting: dict[LaunchedWorker, Rest] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._look, name="rlm-rest", daemon=True).start()

    def begin(self, worker: LaunchedWorker) -> None:
        """Begin the rest of a worker: it has nothing to do from now on."""
        with self._changed:
            self._resting[worker] = Rest(processor_seconds(worker.pid))
            self._changed.notify()

    def end(self, worker: LaunchedWorker) -> float:
        """End the rest of a worker, and return the seconds of processor time that it used meanwhile."""
        if os.getpid() != self._host:  # a fork: the lock may be held by the thread that looks, which is not here
            return 0.0
        with self._changed:
            rest = self._resting.pop(worker, None)
        if rest is None:
            return 0.0
        if rest.stopped:
            worker.go_on()
        return max(0.0, processor_seconds(worker.pid) - rest.used)

    def _look(self) -> None:
        while True:
            with self._changed:
                while not self._resting:
                    self._changed.wait()
            time.sleep(TICK)
            with self._changed:
                for worker in list(self._resting):  # a copy: garbage that is collected in here may end other rests
                    rest = self._resting.get(worker)
                    if rest is not None and not rest.stopped:
                        self._look_at(worker, rest)

    def _look_at(self, worker: LaunchedWorker, rest: Rest) -> None:
        """Stop it if it does not rest. An error is told, and is not the end of all the other looks."""
        try:
            if processor_seconds(worker.pid) > rest.used + SLACK:
                rest.stopped = True
                worker.stop()
                if self._resting.get(worker) is not rest:  # it was ended meanwhile, by this very thread
                    worker.go_on()
        except Exception:
            rest.stopped = True  # not looked at again in this rest; when that ends, it is told to go on at any rate
            logging.getLogger(__name__).exception(
                "the worker %d cannot be looked at while it rests: what a cell has left in it may go on", worker.pid
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
