"""How the host has workers started: by one small process, which lives as long as the host does (see `starting.py`).

Either dies by itself when the other is gone, and the workers with them.
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
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from select import POLLIN, poll
from typing import Any

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes import policy
from rlm_langchain.sandboxes.bundle import boot

PROGRAM = "import sys; sys.path += sys.argv[2:]; from starting import main; main()"
PATIENCE = 60.0
"""Seconds that a worker may take to be started, on a machine that is very busy."""
END = 5.0
"""Seconds that it has to end by itself before it is killed."""
LAST_WORDS = 4000
"""Bytes that are read of what it wrote before it served requests."""
PIPES_AND_HANDLE = 4


class Started:
    """A worker: its number, its pipes, and a handle that is never mistaken for another process."""

    def __init__(self, pid: int, fds: Sequence[int]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr, self._handle = self._fds = tuple(fds)
        self._turn = threading.Lock()
        self._host = os.getpid()

    def kill(self) -> None:
        """End it now. Safe from any thread, and more than once; a fork of the host does nothing to it."""
        with self._turn, contextlib.suppress(ProcessLookupError):
            if self._fds and os.getpid() == self._host:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def close(self, seconds: float) -> None:
        """Kill it, wait until it has ended, and let go of it. Safe twice. Raises `SandboxError`."""
        self.kill()
        with self._turn:
            if not self._fds:
                return
            ended = poll()
            ended.register(self._handle, POLLIN)
            if os.getpid() == self._host and not ended.poll(seconds * 1000):
                raise SandboxError(f"a sandbox (process {self.pid}) is there {seconds:g} s after it was killed")
            for fd in self._fds:
                os.close(fd)
            self._fds = ()


class Starter:
    """The host's end of the process that starts workers."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        # The kernel ends a process together with the thread that started it: this one lives as long as the host.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlm-starter")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, request: dict[str, Any]) -> Started:
        """Have a worker started. Raises `SandboxError`."""
        data = json.dumps(request).encode() + b"\n"
        with self._turn:
            try:
                return self._asked(data)
            except (ConnectionError, EOFError):  # somebody has ended it: another does as well
                self._end()
            except OSError as error:
                self._end()
                raise _not_started(error) from error
            try:
                return self._asked(data)
            except (OSError, EOFError) as error:
                raise _not_started(self._end() or error) from error

    def close(self) -> None:
        """End the process, and all workers with it."""
        with self._turn:
            self._end()

    def _asked(self, data: bytes) -> Started:
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
        if len(fds) < PIPES_AND_HANDLE:  # there was no room for more; without its pipes it ends by itself
            for fd in fds:
                os.close(fd)
            raise _not_started("the worker cannot be reached")
        return Started(answer["pid"], fds)

    def _begin(self) -> None:
        self._host, other = socket.socketpair()
        with other:
            self._host.settimeout(PATIENCE)
            self._process = self._thread.submit(_spawned, other.fileno()).result()

    def _end(self) -> str:
        """End it, and its workers. The last line that it wrote when it could not begin, or nothing."""
        process, self._process = self._process, None
        if process is None:
            return ""
        self._host.close()  # which it waits for
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return _last_line(process)


def started(contexts: Sequence[Path], memory: int) -> Started:
    """A confined `python` that waits for its code, with pipes for 0, 1 and 2. Raises `SandboxError`."""
    command = [policy.python() or "", "-s", "-S", "-P", "-c", boot()]
    return _starter(os.getpid()).start(
        {"policy": policy.policy(contexts), "command": command, "limits": policy.limits(memory)}
    )


def _not_started(why: object) -> SandboxError:
    """Why no worker could be started, as far as it can be told."""
    opened, most = len(os.listdir("/dev/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if opened + 16 > most:
        why = f"{opened} of {most} file descriptors are open (raise it with ulimit -n)"
    return SandboxError(f"no sandbox could be started: {why} (is there memory, and may this user start processes?)")


def _spawned(fd: int) -> subprocess.Popen[bytes]:
    """Start it, with nothing of ours for its standard streams: what it writes there, no terminal shows."""
    command = [policy.python() or "", "-I", "-S", "-c", PROGRAM, str(os.getpid()), *_roots()]
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, stdin=fd, stdout=null, stderr=pipe, cwd="/", env={}, process_group=0)  # noqa: S603


def _last_line(process: subprocess.Popen[bytes]) -> str:
    """What a process that has ended wrote last to standard error."""
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    with process.stderr as stream:
        os.set_blocking(stream.fileno(), False)  # a worker that is still ending may hold the other end
        written = (stream.read(LAST_WORDS) or b"").decode("utf-8", "replace")
    return next((line for line in reversed(written.splitlines()) if line.strip()), "")


def _roots() -> list[str]:
    """Where it finds sandlock and its own code."""
    sandlock = importlib.util.find_spec("sandlock")
    if sandlock is None or sandlock.origin is None:
        raise SandboxError("the cpython sandbox needs sandlock: pip install sandlock, or use sandbox='monty'")
    return [str(Path(sandlock.origin).parents[1]), str(Path(__file__).parent)]


@cache
def _starter(pid: int) -> Starter:
    """That of this process: one that was forked has its own."""
    starter = Starter()
    atexit.register(starter.close)
    return starter
