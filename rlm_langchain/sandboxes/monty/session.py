"""The session of the `monty` sandbox: sends cells and replies to a worker, and returns steps.

The host never raises an exception inside the sandbox, where a cell could catch it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal
from weakref import WeakMethod

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.monty.errors import Fault, interpret_error
from rlm_langchain.sandboxes.monty.prelude_loader import global_names, module_code
from rlm_langchain.sandboxes.monty.prepare import (
    Prepared,
    Refused,
    Source,
    prepare,
)
from rlm_langchain.sandboxes.monty.process import GRACE
from rlm_langchain.sandboxes.monty.protocol import (
    Broke,
    CallsRequested,
    Ended,
    OutputCollector,
    Stop,
    drive,
    send_replies,
)
from rlm_langchain.sandboxes.reserved_names import RESERVED
from rlm_langchain.types import (
    Answered,
    Completed,
    Died,
    Limits,
    Plain,
    Reply,
    Step,
    Suspended,
)

if TYPE_CHECKING:
    from pydantic_monty import MontyError

    from rlm_langchain.sandboxes.monty.process import Worker

FRAME_ROOM = 65_536
"""Bytes of a frame in addition to its value."""

ANSWER_GIVEN = "KeyboardInterrupt: the cell has its answer"
"""The error as the prelude raises it."""

Death = Literal["time", "memory", "output", "protocol", "crash"]

_DEATHS: dict[Death, str] = {
    "time": "The cell ran for more than its {0.seconds:g} seconds and was stopped",
    "memory": "The cell needed more memory than the {0.memory:,} bytes of a session and was stopped",
    "output": "The cell printed more than {0.output:,} bytes and was stopped",
    "protocol": "The cell broke the protocol of the sandbox and was stopped",
    "crash": "The worker of the sandbox is gone",
}


class MontySession:
    """A `SandboxSession`. `run` and `resume` are called by one thread at a time, `close` by any."""

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self._worker, self._limits = worker, limits
        self._printed = OutputCollector(limits.output, limits.value + FRAME_ROOM, _weak_callback(self._stop))
        self._modules: set[str] = set()
        self._own_names: dict[str, None] = {}
        self._reserved = RESERVED
        self._names: dict[str, None] = {}
        self._sources: dict[int, Source] = {}
        self._cells = 0
        self._waiting: CallsRequested | None = None
        self._answers: list[Plain] = []
        self._failed: set[str] = set()
        self._death: Death | None = None
        self._deadline = 0.0
        self._lock = threading.Lock()

    def run(self, code: str) -> Step:
        """Run a cell to its end or to its first call."""
        with self._lock:
            if self._waiting is not None:
                self._stop("protocol")  # a suspended cell cannot be abandoned in any other way
            return self._run(code) if self._death is None else self._died()

    def resume(self, replies: Sequence[Reply]) -> Step:
        """Pass the replies that a `Suspended` waits for, one per call, in order."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
            if self._death is not None:
                return self._died()
            if waiting is None or len(replies) != len(waiting.calls):
                raise RuntimeError("resume takes one reply for each call of the cell that waits")
            self._begin_step()
            self._failed |= {reply.error for reply in replies if reply.error is not None}
            return self._step(drive(lambda: send_replies(waiting, replies), self._printed, self))

    @property
    def worker_pid(self) -> int:
        """The worker's process id, for diagnosis."""
        return self._worker.pid

    def close(self) -> None:
        """Kill the worker. Safe to call twice, and from another thread: a blocked `run` then returns `Died`."""
        self._stop("crash")
        with self._lock:
            self._waiting = None
            self._worker.close()

    def __del__(self) -> None:
        if (
            hasattr(self, "_lock") and not sys.is_finalizing()
        ):  # the workers of a dead host are ended by its watchdog
            self.close()

    def prepare(self, code: str, contexts: Sequence[str]) -> None:
        """Run code that defines names for cells, next to these contexts. Raises `SandboxError` if it fails."""
        prelude = _prepared_prelude(code)
        if isinstance(prelude, Refused):
            raise SandboxError(f"the prelude cannot be used: {prelude.sentence}")
        self._reserved = RESERVED.union(contexts)
        self._begin_step()
        self._own_names = dict.fromkeys([*contexts, *global_names(), *sorted(prelude.names)])
        match self._feed_cell(prelude):
            case Ended(error):
                if faults := self._faults(error):
                    raise SandboxError(f"the prelude fails in the monty sandbox: {faults[0].text}")
                self._printed.take()
            case CallsRequested() | Broke():
                raise SandboxError("the prelude asks a model while it is loaded; only cells may")

    # The methods of `HostCallbacks`.

    def final(self, value: Plain) -> None:
        """Accept an answer. The first one of a cell counts, and ends the cell."""
        self._answers = self._answers or [value]

    def names(self, which: str) -> list[str]:
        """Return the names that cells have bound, or all bound names."""
        return [*self._names] if which == "cells" else [*self._own_names, *self._names]

    def is_late(self) -> bool:
        """Return whether this step has used up the time of a cell."""
        return time.monotonic() > self._deadline

    def _run(self, code: str) -> Step:
        self._cells += 1
        self._answers, self._failed = [], set()
        self._begin_step()
        cell = prepare(code, self._cells, reserved=self._reserved)
        if isinstance(cell, Refused):
            return Completed("", cell.sentence)
        self._names.update(dict.fromkeys(sorted(cell.names)))
        return self._step(self._feed_cell(cell))

    def _begin_step(self) -> None:
        self._deadline = time.monotonic() + self._limits.seconds + GRACE

    def _feed_cell(self, cell: Prepared) -> Stop:
        for module in sorted(cell.modules - self._modules):
            self._modules.add(module)
            self._feed(module_code(module))
        self._sources[self._worker.feeds] = cell.source
        return self._feed(cell.code)

    def _feed(self, code: str) -> Stop:
        return drive(lambda: self._worker.start(code, self._printed), self._printed, self)

    def _step(self, stop: Stop) -> Step:
        match stop:
            case CallsRequested() if self._answers:  # the prelude refuses calls after an answer
                self._stop("protocol")
                return self._died()
            case CallsRequested(calls):
                self._waiting = stop
                return Suspended(calls)
            case Broke(reason):
                self._stop(reason)
                return self._died()
            case Ended(error):
                return self._end_of(error)

    def _end_of(self, error: MontyError | None) -> Step:
        """Return the step for a cell that has ended."""
        faults = self._faults(error)
        if self._death is None:
            match self._feed(f"_rlm_end({bool(self._answers)})"):
                case Ended(another):
                    faults += self._faults(another)
                case CallsRequested():
                    self._stop("protocol")
                case Broke(reason):
                    self._stop(reason)
        if self._death is not None:
            return self._died()
        text = next((one.text for one in faults), None)
        stdout = self._printed.take()
        return Answered(self._answers[0], stdout, text) if self._answers else Completed(stdout, text)

    def _faults(self, error: MontyError | None) -> list[Fault]:
        """Return what an error means, if there is one. An error that ends the session stops the worker."""
        if error is None or self._death is not None or (self._answers and _is_end(error)):
            return []
        found = interpret_error(error, self._sources, frozenset(self._failed))
        if found.death is not None:
            self._stop(found.death)
        return [found]

    def _stop(self, why: Death) -> None:
        """Stop the worker. The first reason is the one that is reported."""
        self._death = self._death or why
        self._worker.kill()

    def _died(self) -> Died:
        why = self._death or "crash"
        return Died(why, self._printed.take(), f"{_DEATHS[why].format(self._limits)}; all its variables are lost.")


@lru_cache(maxsize=8)
def _prepared_prelude(code: str) -> Prepared | Refused:
    """Return a prelude as it runs. Most sessions have the same one, and rewriting it takes as long as the rest."""
    return prepare(code, 0, echo=False)


def _is_end(error: MontyError) -> bool:
    """Return whether this is the error with which `FINAL` ends a cell."""
    from pydantic_monty import MontyRuntimeError

    return isinstance(error, MontyRuntimeError) and error.display("type-msg") == ANSWER_GIVEN


def _weak_callback(stop: Callable[[Death], None]) -> Callable[[Death], None]:
    """Return `stop` with a weak reference to its session. Monty keeps the output callback as long as a snapshot
    lives, in its own memory, where Python's garbage collector cannot see that the session holds that
    snapshot."""
    held = WeakMethod(stop)

    def call(why: Death) -> None:
        if (method := held()) is not None:
            method(why)

    return call
