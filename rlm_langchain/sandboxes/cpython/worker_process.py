"""The host's side of a worker process: sends and receives frames, and enforces limits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rlm_langchain.sandboxes.cpython import resting
from rlm_langchain.sandboxes.cpython.launcher import start_worker
from rlm_langchain.sandboxes.cpython.policy import BASELINE

TICK = 0.03
"""Seconds between two checks of the worker's threads and memory. Creating a thread by a direct system call takes
10 us, so with a quarter of a second a program could create 8,000 before they were counted."""

NOISE = 1 << 20
"""Bytes that a worker may write outside the protocol, to descriptors 1 and 2, before it is killed."""

THREADS = 256
"""Threads that a worker may have. The kernel supports some 30,000 for all processes, and a thread created by
system calls counts against no memory limit. Four pools of the REPL are allowed this many together."""

PIPE = 1 << 20
"""Size of the pipe to the worker in bytes, so that opening a session need not wait until all is read."""

PART = 1 << 18
"""Bytes per read: memory is allocated as a frame arrives, not as it announces its size."""


Reason = Literal["time", "memory", "output", "threads", "protocol", "crash"]


class WorkerEnded(Exception):
    """The worker has ended or must be ended."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Worker:
    """A confined process. One thread at a time communicates with it; any thread may kill it."""

    def __init__(self, contexts: Sequence[Path], memory: int) -> None:
        self._rests = resting.watch()
        self._process = start_worker(contexts, memory)
        self._max_memory = memory + memory // 4 + BASELINE
        self._in, self._out, self._noise = self._process.stdin, self._process.stdout, self._process.stderr
        self._unsent = bytearray()
        self._noise_size, self._noise_tail, self._noise_ended, self._checked_at = 0, b"", False, 0.0
        self._reading, self._writing = select.poll(), select.poll()
        self._reading.register(self._out, select.POLLIN)
        self._writing.register(self._in, select.POLLOUT)
        for poll in (self._reading, self._writing):
            poll.register(self._noise, select.POLLIN)
        for fd in (self._in, self._out, self._noise):
            os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # users without privileges have a quota; the small pipe works too
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, PIPE)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, data: bytes, deadline: float) -> None:
        """Write a frame, after the rest of earlier ones. Raises `WorkerEnded`."""
        self.send_later(data)
        while self._unsent:
            self._wait(self._writing, deadline)

    def send_later(self, data: bytes) -> None:
        """Write as much as the pipe accepts, and keep the rest for the next time. Raises `WorkerEnded`."""
        self._unsent += data
        try:
            while self._unsent:
                del self._unsent[: os.write(self._in, self._unsent)]
        except BlockingIOError:
            self._reading.register(self._in, select.POLLOUT)
            return
        except OSError:
            raise self._ended() from None
        with contextlib.suppress(KeyError):
            self._reading.unregister(self._in)

    def receive(self, most: int, deadline: float) -> bytes:
        """Return the next frame, of at most `most` bytes. Raises `WorkerEnded`."""
        if time.monotonic() > deadline:
            raise WorkerEnded("time", "")
        size = int.from_bytes(self._exactly(4, deadline), "big")
        if size > most:
            raise WorkerEnded("protocol", f"a frame of {size:,} bytes was announced; at most {most:,} are read")
        return self._exactly(size, deadline)

    def is_talking(self) -> bool:
        """Return whether there is unexpected output to read."""
        return any(fd == self._out and event & select.POLLIN for fd, event in self._reading.poll(0))

    def rest(self) -> None:
        """Let the worker rest until `wake`: if it still computes, it is stopped."""
        self._rests.begin(self._process)

    def wake(self) -> float:
        """Let the worker continue after `rest`. Return the seconds of processor time that it used meanwhile."""
        return self._rests.end(self._process)

    def computed(self) -> float:
        """Return the seconds of processor time that the worker has used."""
        return resting.processor_seconds(self.pid)

    def kill(self) -> None:
        """Kill the worker. Safe from any thread, and more than once."""
        self._process.kill()

    def reap(self) -> None:
        """Kill the worker, wait until it has ended, and close its pipes. Safe to call twice."""
        self.kill()
        self.wake()
        self._process.close(10)

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._check_usage()
            try:
                part = os.read(self._out, min(size - len(data), PART))
            except BlockingIOError:
                self._wait(self._reading, deadline)
                continue
            if not part:
                raise self._ended()
            data += part
        return bytes(data)

    def _wait(self, poll: select.poll, deadline: float) -> None:
        """Wait until the next read or write is possible. Raises `WorkerEnded` if a limit is reached."""
        left = deadline - time.monotonic()
        if left < 0:
            raise WorkerEnded("time", "")
        events = poll.poll(max(1, min(left, TICK) * 1000))
        ready = {fd for fd, _ in events}
        if self._noise in ready:
            self._drain()
        if self._in in ready:
            self.send_later(b"")
        self._check_usage()

    def _drain(self) -> None:
        """Read what was written outside the protocol, and keep only the end of it."""
        part = os.read(self._noise, PART)
        if not part and not self._noise_ended:  # a poll would report the end each time
            self._noise_ended = True
            self._reading.unregister(self._noise)
            self._writing.unregister(self._noise)
        self._noise_size += len(part)
        self._noise_tail = (self._noise_tail + part)[-2000:]
        if self._noise_size > NOISE:
            raise WorkerEnded("output", f"more than {NOISE:,} bytes were written to descriptors 1 and 2")

    def count_threads(self) -> None:
        """Raise `WorkerEnded` if there are too many threads."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[17]) > THREADS:
                raise WorkerEnded("threads", "")

    def _check_usage(self) -> None:
        """Check threads, and memory that a limit on the address space does not count. The clock decides when, so
        that a worker that always sends something cannot postpone it."""
        if (now := time.monotonic()) < self._checked_at + TICK:
            return
        self._checked_at = now
        self.count_threads()
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
            if pages * os.sysconf("SC_PAGE_SIZE") > self._max_memory:
                raise WorkerEnded("memory", "")

    def _ended(self) -> WorkerEnded:
        """Return why the pipe was closed."""
        with contextlib.suppress(OSError, WorkerEnded):
            self._drain()
        return WorkerEnded("crash", self._noise_tail.decode("utf-8", "replace").strip())
