"""Kills all workers when their host ends, however it ends and whatever a cell has done to its process.

Covered: a host that exits, crashes or is killed. Each worker that was given to `watch` is killed at once,
whether it is computing, idle or stopped. On Linux this is done by one small process per host
(`watchdog_process.py`), which holds a descriptor of every worker, so that a reused process id cannot be
confused. If that process itself is killed, the host kills the workers, so they are never unwatched. On macOS
and BSD the same process uses process ids and kqueue, and on Windows the kernel ends a job object with its host.
Both are written but were never tested there.

Not covered: a host and its watchdog that are killed at the same moment. Then a `cpython` worker ends by the
signal that the kernel sends on the death of its parent, and a `monty` worker at its next limit.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.cpython import policy

PROGRAM = Path(__file__).with_name("watchdog_process.py")
TIMEOUT = 60.0
"""Seconds that the process may take to read a message, on a very busy machine."""


class Killable(Protocol):
    """A worker that can be killed."""

    def kill(self) -> None:
        """Kill it. Safe from any thread, and more than once."""


def watch(worker: Killable, pid: int, handle: int = -1) -> None:
    """Have a worker killed when this process ends. Raises `SandboxError`; then the worker must not be used.

    On Linux `handle` is a pidfd of the worker, which the caller keeps.
    """
    if sys.platform == "win32":
        _job().assign(pid)
    else:
        watchdog(os.getpid()).watch(worker, pid, handle)


def spawn(command: Callable[[], subprocess.Popen[bytes]], ended: Callable[[], None]) -> subprocess.Popen[bytes]:
    """Start a process in a thread that lives as long as the process, and call `ended` there after its end.

    The kernel can signal a process at the end of the thread that started it, so that thread must not end
    earlier.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def run() -> None:
        try:
            process = command()
        except BaseException as error:  # noqa: BLE001 - raised again by `started.result()`
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()
        ended()

    threading.Thread(target=run, name="rlm-watch", daemon=True).start()
    return started.result()


class Watchdog:
    """The host's end of the process that watches it."""

    def __init__(self) -> None:
        self._host = os.getpid()
        self._lock = threading.Lock()
        self._watched: WeakSet[Killable] = WeakSet()
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of its process; 0 if there is none."""
        return self._process.pid if self._process else 0

    def watch(self, worker: Killable, pid: int, handle: int) -> None:
        """Watch a worker. Raises `SandboxError`."""
        with self._lock:
            try:
                link = self._link or self._begin()
                try:
                    _send(link, pid, handle)
                except ConnectionError:  # the process has ended, and its workers are killed: start another one
                    _send(self._begin(), pid, handle)
                self._watched.add(worker)
            except OSError as error:
                raise SandboxError(f"the process that watches over sandboxes does not work: {error}") from error

    def close(self) -> None:
        """End the process and all workers."""
        if os.getpid() == self._host:
            with self._lock:
                link, self._link, process = self._link, None, self._process
            if link is not None and process is not None:
                link.close()
                process.wait()

    def close_in_fork(self) -> None:
        """Close the socket in a fork of the host. Only the host itself may hold it, so that its end is noticed."""
        if self._link is not None and os.getpid() != self._host:
            self._link.close()

    def _begin(self) -> socket.socket:
        if self._link is not None:
            self._link.close()
        self._link, other = socket.socketpair()
        self._link.settimeout(TIMEOUT)
        self._watched = WeakSet()
        with other:
            self._process = spawn(lambda: _start_process(other), partial(self._kill, self._watched))
        return self._link

    def _kill(self, watched: WeakSet[Killable]) -> None:
        """Kill workers that are no longer watched."""
        with self._lock:
            workers = [*watched]
        for worker in workers:
            worker.kill()


@cache
def watchdog(pid: int) -> Watchdog:
    """Return the watchdog of this process. A forked process has its own."""
    found = Watchdog()
    atexit.register(found.close)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=found.close_in_fork)
    return found


def _send(link: socket.socket, pid: int, handle: int) -> None:
    if sys.platform == "linux":
        socket.send_fds(link, [b"\n"], [handle], socket.MSG_NOSIGNAL)
    else:
        link.sendall(b"%d\n" % pid)


def _start_process(link: socket.socket) -> subprocess.Popen[bytes]:
    python = policy.python()
    if python is None or getattr(sys, "frozen", False):
        raise FileNotFoundError("it needs the Python interpreter, whose file is not known")
    if sys.platform != "linux":
        return _popen([python, "-I", "-S", str(PROGRAM), str(os.getpid())], link)
    host = os.pidfd_open(os.getpid())
    try:
        return _popen([python, "-I", "-S", str(PROGRAM), str(host)], link, host)
    finally:
        os.close(host)


def _popen(command: list[str], link: socket.socket, *passed: int) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own, so that signals to ours, such as Ctrl-C, do not end it."""
    null = subprocess.DEVNULL
    return subprocess.Popen(  # noqa: S603 - a program of our own
        command,
        stdin=link.fileno(),
        stdout=null,
        stderr=null,
        cwd="/",
        env={},
        process_group=0,
        pass_fds=passed,
    )


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    KILL_ON_JOB_CLOSE, EXTENDED_LIMITS = 0x2000, 9
    PROCESS_TERMINATE, PROCESS_SET_QUOTA = 0x0001, 0x0100

    class _Limits(ctypes.Structure):
        """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

        _fields_ = (
            ("process_time", wintypes.LARGE_INTEGER),
            ("job_time", wintypes.LARGE_INTEGER),
            ("flags", wintypes.DWORD),
            ("least_working_set", ctypes.c_size_t),
            ("most_working_set", ctypes.c_size_t),
            ("processes", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority", wintypes.DWORD),
            ("scheduling", wintypes.DWORD),
            ("io", ctypes.c_uint64 * 6),
            ("process_memory", ctypes.c_size_t),
            ("job_memory", ctypes.c_size_t),
            ("peak_process_memory", ctypes.c_size_t),
            ("peak_job_memory", ctypes.c_size_t),
        )

    class _Job:
        """A job object: the kernel ends its processes when its only handle, which this process has, is closed."""

        def __init__(self) -> None:
            self._kernel = ctypes.WinDLL("kernel32", use_last_error=True)
            for name in ("CreateJobObjectW", "OpenProcess"):
                getattr(self._kernel, name).restype = wintypes.HANDLE
            self._job = wintypes.HANDLE(self._checked(self._kernel.CreateJobObjectW(None, None)))
            limits = _Limits(flags=KILL_ON_JOB_CLOSE)
            size = ctypes.sizeof(limits)
            self._checked(
                self._kernel.SetInformationJobObject(self._job, EXTENDED_LIMITS, ctypes.byref(limits), size)
            )

        def assign(self, pid: int) -> None:
            """Add a process to the job. Raises `SandboxError`."""
            access = PROCESS_TERMINATE | PROCESS_SET_QUOTA
            process = wintypes.HANDLE(self._checked(self._kernel.OpenProcess(access, False, pid)))
            try:
                self._checked(self._kernel.AssignProcessToJobObject(self._job, process))
            finally:
                self._kernel.CloseHandle(process)

        @staticmethod
        def _checked(result: int | None) -> int:
            if not result:
                raise SandboxError(
                    f"Windows does not watch over sandboxes: {ctypes.WinError(ctypes.get_last_error())}"
                )
            return result

    @cache
    def _job() -> _Job:
        return _Job()
