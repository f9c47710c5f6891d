"""The processes below one, by what the kernel says."""

from __future__ import annotations

import os
import time
from pathlib import Path
from select import POLLIN, poll

from rlm_langchain.testing.conformance import lifecycle


def descendants(parent: int | str = "self") -> list[int]:
    """All that still run."""
    return [int(pid) for pid in lifecycle.children(str(parent))]


def children(parent: int | str = "self") -> list[int]:
    """The sandboxes and other programs. What starts sandboxes and watches over them lives as long as its host."""
    return [pid for pid in descendants(parent) if not (is_starter(pid) or is_watchdog(pid))]


def state(process: int) -> str:
    """What it does, in the kernel's letter: R runs, S sleeps, T was stopped, Z waits to be buried or is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def alive(process: int) -> bool:
    """Whether a process still runs; one that only waits to be buried does not."""
    return state(process) != "Z"


def stopped(process: int, seconds: float = 10) -> bool:
    """Whether all threads of a process that have not ended are stopped within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if {state(int(task)) for task in os.listdir(f"/proc/{process}/task")} - {"Z"} == {"T"}:
            return True
        os.sched_yield()
    return False


def gone(process: int, seconds: float = 5) -> bool:
    """Whether a process ends within that time."""
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
    """Whether this is what starts the `cpython` workers of a host."""
    return b"from launcher_process import main" in _command(pid)


def is_watchdog(pid: int) -> bool:
    """Whether this is what ends the workers of a host that is gone."""
    return b"watchdog_process.py" in _command(pid)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
