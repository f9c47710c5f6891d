"""One worker process seen from the host: frames in, frames out, and an end that always comes."""

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
from rlm_langchain.sandboxes.cpython.launcher import started
from rlm_langchain.sandboxes.cpython.policy import BASELINE

TICK = 0.03
"""Seconds between two looks at the threads and the memory of a worker. One that is made by hand takes 10 us, so
with a quarter of a second a program had made 8,000 before they were counted."""

NOISE = 1 << 20
"""Bytes that a worker may write past the protocol, to descriptors 1 and 2, before it is ended."""

THREADS = 256
"""Threads that a worker may have. The kernel has room for some 30,000 of all processes, and one that is made
by hand counts against no limit of memory. Four pools of the REPL's own are as wide."""

PIPE = 1 << 20
"""Bytes that the pipe to the worker holds: then opening a session need not wait until all is read."""

PART = 1 << 18
"""Bytes that are read at once: memory is taken as a frame arrives, not as it announces itself."""


Reason = Literal["time", "memory", "output", "threads", "protocol", "crash"]


class WorkerEnded(Exception):
    """The worker has ended or must be ended."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Worker:
    """A confined process. One thread at a time talks to it; any thread may kill it."""

    def __init__(self, contexts: Sequence[Path], memory: int) -> None:
        self._rests = resting.watch()
        self._process = started(contexts, memory)
        self._most = memory + memory // 4 + BASELINE
        self._in, self._out, self._noise = self._process.stdin, self._process.stdout, self._process.stderr
        self._rest = bytearray()
        self._heard, self._tail, self._silent, self._looked = 0, b"", False, 0.0
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
        """The number of the process."""
        return self._process.pid

    def send(self, data: bytes, deadline: float) -> None:
        """Write a frame, behind what is still to be sent. Raises `Gone`."""
        self.send_later(data)
        while self._rest:
            self._wait(self._writing, deadline)

    def send_later(self, data: bytes) -> None:
        """Write as much as the pipe takes, and keep the rest for the next time. Raises `Gone`."""
        self._rest += data
        try:
            while self._rest:
                del self._rest[: os.write(self._in, self._rest)]
        except BlockingIOError:
            self._reading.register(self._in, select.POLLOUT)
            return
        except OSError:
            raise self._ended() from None
        with contextlib.suppress(KeyError):
            self._reading.unregister(self._in)

    def receive(self, most: int, deadline: float) -> bytes:
        """The next frame, of at most so many bytes. Raises `Gone`."""
        if time.monotonic() > deadline:
            raise WorkerEnded("time", "")
        size = int.from_bytes(self._exactly(4, deadline), "big")
        if size > most:
            raise WorkerEnded("protocol", f"a frame of {size:,} bytes was announced; at most {most:,} are read")
        return self._exactly(size, deadline)

    def is_talking(self) -> bool:
        """Whether there is something to read although nothing was asked."""
        return any(fd == self._out and event & select.POLLIN for fd, event in self._reading.poll(0))

    def rest(self) -> None:
        """It has nothing to do until `wake`: what computes all the same is stopped."""
        self._rests.begin(self._process)

    def wake(self) -> float:
        """Let it go on after `rest`. Gives back the seconds of a processor that it has used meanwhile."""
        return self._rests.end(self._process)

    def computed(self) -> float:
        """Seconds of processors that it has used."""
        return resting.processor_seconds(self.pid)

    def kill(self) -> None:
        """End it now. Safe from any thread, and more than once."""
        self._process.kill()

    def reap(self) -> None:
        """End it, wait until it has ended, and close its pipes. Safe twice."""
        self.kill()
        self.wake()
        self._process.close(10)

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._watch()
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
        """Wait until something can go on. Raises `Gone` when time, memory or patience is used up."""
        left = deadline - time.monotonic()
        if left < 0:
            raise WorkerEnded("time", "")
        events = poll.poll(max(1, min(left, TICK) * 1000))
        told = {fd for fd, _ in events}
        if self._noise in told:
            self._drain()
        if self._in in told:
            self.send_later(b"")
        self._watch()

    def _drain(self) -> None:
        """Take what was written past the protocol, and forget all but its end."""
        part = os.read(self._noise, PART)
        if not part and not self._silent:  # a poll would tell of the end for ever
            self._silent = True
            self._reading.unregister(self._noise)
            self._writing.unregister(self._noise)
        self._heard += len(part)
        self._tail = (self._tail + part)[-2000:]
        if self._heard > NOISE:
            raise WorkerEnded("output", f"more than {NOISE:,} bytes were written to descriptors 1 and 2")

    def count_threads(self) -> None:
        """Raise `WorkerEnded` when there are too many."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[17]) > THREADS:
                raise WorkerEnded("threads", "")

    def _watch(self) -> None:
        """Look at threads, and once more at memory, for what an address space limit does not count. By the clock: a
        worker that always has something to say is not waited for."""
        if (now := time.monotonic()) < self._looked + TICK:
            return
        self._looked = now
        self.count_threads()
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
            if pages * os.sysconf("SC_PAGE_SIZE") > self._most:
                raise WorkerEnded("memory", "")

    def _ended(self) -> WorkerEnded:
        """Why the pipe is at its end."""
        with contextlib.suppress(OSError, WorkerEnded):
            self._drain()
        return WorkerEnded("crash", self._tail.decode("utf-8", "replace").strip())
