"""Finds the processes below another one, and their states, through /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path
from select import POLLIN, poll

from rlm_langchain.testing.conformance import lifecycle


def descendants(parent: int | str = "self") -> list[int]:
    """Return all descendants that are still running."""
    return [int(pid) for pid in lifecycle.children(str(parent))]


def children(parent: int | str = "self") -> list[int]:
    """Return the descendants except the launcher and the watchdog of sandboxes, which live as long as the host."""
    return [pid for pid in descendants(parent) if not (is_starter(pid) or is_watchdog(pid))]


def state(process: int) -> str:
    """Return the state of a process as the kernel's letter: R runs, S sleeps, T is stopped, Z has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def alive(process: int) -> bool:
    """Return whether a process is still running. A zombie is not."""
    return state(process) != "Z"


def stopped(process: int, seconds: float = 10) -> bool:
    """Return whether all living threads of a process are stopped within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if {state(int(task)) for task in os.listdir(f"/proc/{process}/task")} - {"Z"} == {"T"}:
            return True
        os.sched_yield()
    return False


def gone(process: int, seconds: float = 5) -> bool:
    """Return whether a process ends within this time."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    ended = poll()
    ended.register(handle, POLLIN)
    try:
        return bool(ended.poll(seconds * 1000))
    finally:
        os.close(handle)


def is_starter(pid: int) -> bool:
    """Return whether this is the launcher of `cpython` workers."""
    return b"from launcher_process import main" in _command(pid)


def is_watchdog(pid: int) -> bool:
    """Return whether this is the watchdog, which ends the workers of a host that has ended."""
    return b"watchdog_process.py" in _command(pid)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
