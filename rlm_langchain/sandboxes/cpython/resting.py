"""No worker computes while nobody waits for it: threads that a cell leaves behind stand still until its next turn.

Between cells, and while models are asked, a worker waits for the host and needs no processor. One that uses some
all the same is stopped as a whole by the kernel, and goes on when it is asked again. What it has used until then
counts as the time of its cell. One thread for each host looks at the workers that rest, however many they are.
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
"""Seconds between two looks at the workers that rest."""

SLACK = 0.05
"""Seconds of a processor that a worker may use in one rest: its last words are still to be followed by a wait."""


@dataclass(slots=True)
class Rest:
    """What is known of a worker that rests."""

    used: float
    """Seconds of a processor that it had used before."""
    stopped: bool = False


class RestWatch:
    """The workers of this process that rest, and the thread that looks at them."""

    def __init__(self) -> None:
        self._host = os.getpid()
        self._resting: dict[LaunchedWorker, Rest] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._look, name="rlm-rest", daemon=True).start()

    def begin(self, worker: LaunchedWorker) -> None:
        """From now on it has nothing to do."""
        with self._changed:
            self._resting[worker] = Rest(processor_seconds(worker.pid))
            self._changed.notify()

    def end(self, worker: LaunchedWorker) -> float:
        """Let it go on, if it rests: gives back the seconds of a processor that it has used meanwhile."""
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
    """Seconds of processors that all threads of a process have used; 0 when there is none. By the kernel's clock of
    the process, whose number is made as `clock_getcpuclockid` makes it."""
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


def watch() -> RestWatch:
    """That of this process: one that was forked has its own."""
    return _watch(os.getpid())


@cache
def _watch(pid: int) -> RestWatch:
    return RestWatch()
