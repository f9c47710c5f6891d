"""The session of the `cpython` sandbox: sends cells and replies to a worker, and returns steps."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlm_langchain.context.file_hashes import open_regular
from rlm_langchain.context.opening import WatchedFiles
from rlm_langchain.errors import JournalError, SandboxError
from rlm_langchain.sandboxes import wire
from rlm_langchain.sandboxes.cpython import syscalls
from rlm_langchain.sandboxes.cpython.bundle import early_modules, late_modules
from rlm_langchain.sandboxes.cpython.worker_process import THREADS, Reason, Worker, WorkerEnded
from rlm_langchain.types import (
    Answered,
    Completed,
    ContextFile,
    Died,
    Limits,
    Reply,
    Step,
    Suspended,
)

GRACE = 0.7
"""Seconds that a cell has to end by itself after its time is up."""

MAX_TIME_FACTOR = 2
"""Multiple of its time limit that a cell may have computed, in its turns and between them, when it makes a call. It
is more than 1 because the processor time for messages is included."""

START = 60.0
"""Seconds for Python to start, the context to be loaded and the prelude to run."""

SENTENCES: dict[Reason, str] = {
    "time": "The cell ran for more than {seconds:g} s of its own time and could not be interrupted.",
    "memory": "The REPL used more than {memory:,} bytes of memory.",
    "threads": f"The program started more than {THREADS} threads.",
    "output": "The cell printed more than {output:,} bytes and did not stop.",
    "protocol": "The program interfered with the REPL's connection to its host.",
    "crash": "The Python process of the REPL has ended.",
}

CLOSED = "The session was closed."


class EndedAtStart(SandboxError):
    """The worker ended before it was ready, for example because it was killed from outside. It has run no code."""


class CPythonSession:
    """One worker, from its start to its end.

    Raises `JournalError` if a file of the user that it reads has changed. The result of a cell that read two
    versions of a text is not returned.
    """

    def __init__(
        self, context: ContextFile | None, prelude: str, limits: Limits, more: Mapping[str, ContextFile]
    ) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._turns, self._calls = 0, 0
        self._used, self._computed = 0.0, 0.0
        self._printed: list[str] = []
        self._size = 0
        self._end: Died | None = None
        self._closed = False
        self._contexts = contexts = {**({"context": context} if context else {}), **more}
        self._files = WatchedFiles(contexts.values())
        try:
            self._worker = Worker([_readable(file) for file in contexts.values()], limits.memory)
            try:
                self._start(contexts, prelude)
                self._files.check()
            except BaseException:
                self._worker.reap()
                raise
        except SandboxError:
            with self._files as files:
                files.check_paths()  # the worker may have opened another file than the one that was checked
            raise
        except BaseException:
            self._files.close()
            raise

    def run(self, code: str) -> Step:
        """Run a cell to its end or to its first call."""
        with self._lock:
            if self._calls:
                raise SandboxError(f"the last cell waits for {self._calls} replies: call resume before run")
            self._printed, self._size, self._used, self._computed = [], 0, 0.0, 0.0
            self._worker.wake()
            return self._step(wire.run_frame(self._turns + 1, code))

    def resume(self, replies: Sequence[Reply]) -> Step:
        """Pass the replies that the cell waits for, one for each call, in order."""
        with self._lock:
            if self._end is None and len(replies) != self._calls:
                raise SandboxError(f"the cell waits for {self._calls} replies, not for {len(replies)}")
            self._calls = 0
            self._computed += self._worker.wake()
            return self._step(wire.replies_frame(self._turns + 1, replies))

    def close(self) -> None:
        """Kill the worker and wait until it is gone. Safe to call twice, and from any thread."""
        self._closed = True
        self._worker.kill()
        with self._lock:
            self._calls = 0
            self._end = self._end or Died("crash", "", CLOSED)
            self._worker.reap()
            self._files.close()

    def __del__(self) -> None:
        if hasattr(self, "_worker") and not sys.is_finalizing():  # the workers end with their host
            self.close()

    def _start(self, contexts: Mapping[str, ContextFile], prelude: str) -> None:
        """Send the code, the limits, the contexts and the prelude. Raises `SandboxError`."""
        files = {name: self._describe_file(file) for name, file in contexts.items()}
        allowed = syscalls.program(self._worker.pid)
        opening = wire.framed(["open", asdict(self._limits), files, prelude, allowed])
        try:
            self._worker.send(early_modules() + opening, time.monotonic() + START)
            self._worker.send_later(late_modules())
            message = wire.parsed(self._worker.receive(self._max_frame, time.monotonic() + START))
        except WorkerEnded as error:
            raise EndedAtStart(f"the sandbox did not start: {error}") from None
        except wire.BrokenProtocol as error:
            raise SandboxError(f"the sandbox did not start: {error}") from None
        if not isinstance(message, wire.Ready):
            raise SandboxError(f"the sandbox did not start: {getattr(message, 'error', message)}")

    def _step(self, frame: bytes) -> Step:
        """Send a frame and return the next step, or the end of the session."""
        if self._end:
            return replace(self._end, stdout="")
        try:
            step = self._exchange(frame)
        except WorkerEnded as ended:
            step = self._end_session(ended.reason)
        except wire.BrokenProtocol:
            step = self._end_session("protocol")
        try:
            self._files.check()
        except JournalError:
            self._end_session("crash")
            raise
        return step

    def _exchange(self, frame: bytes) -> Step:
        self._await_modules()
        if self._worker.is_talking():
            raise wire.BrokenProtocol("the worker sent something though nothing was asked")
        self._worker.count_threads()
        if self._computed > MAX_TIME_FACTOR * self._limits.seconds + GRACE:
            raise WorkerEnded("time", "")
        self._turns += 1
        begun, computed = time.monotonic(), self._worker.computed()
        deadline = begun + max(0.0, self._limits.seconds - self._used) + GRACE
        self._worker.send(frame, deadline)
        step = None
        while step is None:
            frame = self._worker.receive(self._max_frame, deadline)
            step = self._step_of(wire.parsed(frame, self._contexts))
        took = time.monotonic() - begun
        self._used += took
        self._computed += min(took, self._worker.computed() - computed)
        self._worker.count_threads()
        self._worker.rest()
        return step

    def _await_modules(self) -> None:
        """Wait until all modules are loaded, before the first cell. This does not count as the cell's time."""
        if not self._turns:
            deadline = time.monotonic() + START
            self._worker.send(b"", deadline)
            if wire.parsed(self._worker.receive(self._max_frame, deadline)) != wire.Ready():
                raise wire.BrokenProtocol("the worker is not ready")

    def _step_of(self, message: wire.Message) -> Step | None:
        """Return the step that a message means, or None if the cell continues."""
        match message:
            case wire.Printed(text):
                self._print(text)
                return None
            case wire.CallsRequested(self._turns, calls):
                self._calls = len(calls)
                return Suspended(calls)
            case wire.Ended(self._turns, error):
                return Completed("".join(self._printed), error)
            case wire.EndedWithAnswer(self._turns, value, error):
                return Answered(value, "".join(self._printed), error)
        raise wire.BrokenProtocol("a frame that ends no turn, or another one")

    def _print(self, text: str) -> None:
        self._size += len(text.encode())
        if self._size > self._limits.output:
            raise WorkerEnded("output", "")
        self._printed.append(text)

    def _end_session(self, reason: Reason) -> Died:
        """End the session, and return the reason as a step."""
        self._worker.reap()
        sentence = CLOSED if self._closed else SENTENCES[reason].format_map(asdict(self._limits))
        self._end = Died(reason, "".join(self._printed), sentence)
        return self._end

    def _describe_file(self, file: ContextFile) -> list[Any]:
        """Return what the worker needs to know about a context."""
        return [os.path.realpath(file.path), file.kind, file.length, file.size, *self._files.identity(file)]

    @property
    def _max_frame(self) -> int:
        return self._limits.value + wire.ENVELOPE


def _readable(context: ContextFile) -> Path:
    """Return the path of an existing context. Raises `SandboxError`."""
    try:
        open_regular(context.path, follow=True).close()
    except OSError as error:
        raise SandboxError(f"the context could not be loaded: {type(error).__name__}: {error}") from error
    return context.path
