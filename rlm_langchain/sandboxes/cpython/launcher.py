"""Starts workers through one small process (see `launcher_process.py`), which lives as long as the host.

The workers end when that process ends, and both end with the host. The kernel signals them on the death of their
parent. A cell may have turned that signal off, but then the watchdog or the host kills them (see `watchdog.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from select import POLLIN, poll
from typing import Any
from weakref import WeakSet

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.cpython import policy
from rlm_langchain.sandboxes.cpython.bundle import boot
from rlm_langchain.sandboxes.watchdog import spawn, watch

PROGRAM = "import sys; sys.path += sys.argv[2:]; from launcher_process import main; main()"
TIMEOUT = 60.0
"""Seconds that starting a worker may take on a very busy machine."""
END_SECONDS = 5.0
"""Seconds that the process has to end by itself before it is killed."""
MAX_STDERR_BYTES = 4000
"""Most bytes of standard error that are read of a process that could not start."""
PIPES_AND_HANDLE = 4


class LaunchedWorker:
    """A worker: its process id, its pipes, and a handle that cannot be confused with another process."""

    def __init__(self, pid: int, fds: Sequence[int]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr, self._handle = self._fds = tuple(fds)
        self._lock = threading.RLock()
        """Reentrant: garbage collection in a thread that holds it may end the session of this worker."""
        self._host = os.getpid()

    def kill(self) -> None:
        """Kill the worker. Safe from any thread, and more than once. Does nothing in a fork of the host."""
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        """Stop all threads of the worker until `resume`, whatever they do. As safe to call as `kill`."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the worker continue after `stop`. As safe to call as `kill`."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._fds and os.getpid() == self._host:
                signal.pidfd_send_signal(self._handle, number)

    def watch(self) -> None:
        """Have the watchdog kill the worker when this process is gone. Raises `SandboxError`."""
        watch(self, self.pid, self._handle)

    def close(self, seconds: float) -> None:
        """Kill the worker, wait until it has ended, and release it. Safe to call twice. Raises `SandboxError`."""
        self.kill()
        with self._lock:
            if not self._fds:
                return
            ended = poll()
            ended.register(self._handle, POLLIN)
            if os.getpid() == self._host and not ended.poll(seconds * 1000):
                raise SandboxError(f"a sandbox (process {self.pid}) still exists {seconds:g} s after it was killed")
            for fd in self._fds:
                os.close(fd)
            self._fds = ()


class Launcher:
    """The host's end of the process that starts workers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._handle = -1
        self._workers: WeakSet[LaunchedWorker] = WeakSet()
        """The workers of the current process."""

    def start(self, request: dict[str, Any]) -> LaunchedWorker:
        """Start a worker. Raises `SandboxError`."""
        data = json.dumps(request).encode() + b"\n"
        with self._lock:
            try:
                return self._request(data)
            except (ConnectionError, EOFError):  # the process was killed: start another one
                self._end()
            except OSError as error:
                self._end()
                raise _not_started(error) from error
            try:
                return self._request(data)
            except (OSError, EOFError) as error:
                raise _not_started(self._end() or error) from error

    def kill(self) -> None:
        """Kill the process and all its workers. Called by the watchdog."""
        with contextlib.suppress(OSError):  # it has ended, and its handle is closed
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def close(self) -> None:
        """End the process and its workers. Does nothing in a fork, because they belong to the host."""
        if os.getpid() == self._owner:
            with self._lock:
                self._end()

    def _request(self, data: bytes) -> LaunchedWorker:
        """Have the process start a worker. Raises `SandboxError`, `OSError`, `EOFError`."""
        if self._process is None:
            self._begin()
        self._host.sendall(data)
        line, fds = b"", list[int]()
        while not line.endswith(b"\n"):
            part, more, _, _ = socket.recv_fds(self._host, 65536, PIPES_AND_HANDLE, socket.MSG_CMSG_CLOEXEC)
            if not part:
                raise EOFError("it did not answer")
            line, fds = line + part, [*fds, *more]
        answer = json.loads(line)
        if "error" in answer:
            raise _not_started(answer["error"])
        if len(fds) < PIPES_AND_HANDLE:  # the descriptor table is full; the worker ends without pipes
            for fd in fds:
                os.close(fd)
            raise _not_started("the worker cannot be reached")
        worker = LaunchedWorker(answer["pid"], fds)
        self._workers.add(worker)
        try:
            worker.watch()
        except BaseException:
            worker.close(TIMEOUT)
            raise
        return worker

    def _begin(self) -> None:
        self._host, other = socket.socketpair()
        with other:
            self._host.settimeout(TIMEOUT)
            self._workers = WeakSet()
            self._process = spawn(
                lambda: _start_process(other.fileno()), partial(self._kill_workers, self._workers)
            )
        self._handle = os.pidfd_open(self._process.pid)
        watch(self, self._process.pid, self._handle)

    def _kill_workers(self, workers: WeakSet[LaunchedWorker]) -> None:
        """Kill the workers of a process that has ended."""
        with self._lock:
            ending = [*workers]
        for worker in ending:
            worker.kill()

    def close_in_fork(self) -> None:
        """Close the socket in a fork of the host. Only the host itself may hold it, so that its end is noticed."""
        if self._process is not None and os.getpid() != self._owner:
            self._host.close()

    def _end(self) -> str:
        """End the process and its workers. Return the last line that it wrote if it could not start, or nothing."""
        process, self._process = self._process, None
        if process is None:
            return ""
        self._host.close()  # the process ends when this is closed
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
        return _last_line(process)


def start_worker(contexts: Sequence[Path], memory: int) -> LaunchedWorker:
    """Return a confined `python` that waits for its code, with pipes for 0, 1 and 2. Raises `SandboxError`."""
    command = [policy.python() or "", "-s", "-S", "-P", "-c", boot()]
    return _launcher(os.getpid()).start(
        {"policy": policy.policy(contexts), "command": command, "limits": policy.limits(memory)}
    )


def _not_started(why: object) -> SandboxError:
    """Return an error that says why no worker could be started, as far as that is known."""
    opened, most = len(os.listdir("/dev/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if opened + 16 > most:
        why = f"{opened} of {most} file descriptors are open (raise it with ulimit -n)"
    return SandboxError(f"no sandbox could be started: {why} (is there memory, and may this user start processes?)")


def _start_process(fd: int) -> subprocess.Popen[bytes]:
    """Start the process with none of our standard streams, so that its output reaches no terminal."""
    command = [policy.python() or "", "-I", "-S", "-c", PROGRAM, str(os.getpid()), *_roots()]
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, stdin=fd, stdout=null, stderr=pipe, cwd="/", env={}, process_group=0)  # noqa: S603


def _last_line(process: subprocess.Popen[bytes]) -> str:
    """Return the last line that an ended process wrote to standard error."""
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    with process.stderr as stream:
        os.set_blocking(stream.fileno(), False)  # a worker that is still ending may hold the other end
        written = (stream.read(MAX_STDERR_BYTES) or b"").decode("utf-8", "replace")
    return next((line for line in reversed(written.splitlines()) if line.strip()), "")


def _roots() -> list[str]:
    """Return the folders with sandlock and its own code."""
    sandlock = importlib.util.find_spec("sandlock")
    if sandlock is None or sandlock.origin is None:
        raise SandboxError("the cpython sandbox needs sandlock: pip install sandlock, or use sandbox='monty'")
    return [str(Path(sandlock.origin).parents[1]), str(Path(__file__).parent)]


@cache
def _launcher(pid: int) -> Launcher:
    """Return the launcher of this process. A forked process has its own."""
    launcher = Launcher()
    atexit.register(launcher.close)
    os.register_at_fork(after_in_child=launcher.close_in_fork)
    return launcher
