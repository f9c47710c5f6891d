"""The process of Monty's interpreter: finding, starting, watching and killing it."""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.monty.scratch import FILE, own_folder
from rlm_langchain.sandboxes.watchdog import watch
from rlm_langchain.types import Limits

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontySession, SyncSnapshot

LAUNCHER = """#!/bin/sh
cd / && unset PWD OLDPWD && ulimit -c 0 && ulimit -f 0 && ulimit -n 64 && ulimit -t 7200 || exit 1
exec {program} "$@" 2>/dev/null
"""
"""The script that starts Monty: without core files (they would contain the context), without writing files, with
few open files, without the path of our folder, and with a CPU limit even for an unwatched worker. Its standard
error is discarded, because a worker that reaches its memory limit would print to the user's terminal."""


@cache
def binary() -> Path | None:
    """Return the path of the program. PATH and MONTY_BIN are ignored."""
    try:
        installed = files("pydantic-monty-runtime") or []
    except PackageNotFoundError:
        return None
    for file in installed:
        path = Path(str(file.locate()))
        if file.stem == "monty" and path.parent.name in {"bin", "Scripts"} and path.is_file():
            return path.resolve()
    return None


def launcher() -> Path | None:
    """Return the command that starts it: a script if there is a shell, else the program itself."""
    script = _script()
    if script is not None and not script.exists():  # the folder for temporary files was cleaned up
        _script.cache_clear()
        script = _script()
    return script


@cache
def _script() -> Path | None:
    program = binary()
    if program is None or not os.access("/bin/sh", os.X_OK):
        return program
    folder = own_folder()
    atexit.register(_remove, folder, os.getpid())
    script = folder / FILE
    # Another process writes it: while a fork of ours has it open, it could not be run ("text file busy").
    subprocess.run(  # noqa: S603 - a program of our own
        ["/bin/sh", "-c", 'umask 077 && cat > "$0" && chmod 700 "$0"', script],
        input=LAUNCHER.format(program=shlex.quote(str(program))).encode(),
        check=True,
    )
    return script if os.access(script, os.X_OK) else program


def _remove(folder: Path, maker: int) -> None:
    """Remove the folder at the end of the process that created it, but not of one that was forked from it."""
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)


GRACE = 0.75
"""Seconds after which a worker that exceeds its time and does not stop by itself is killed."""

NO_LIMIT = 1_000_000_000
"""No limit on suspensions: the budget limits how many calls a cell makes."""


class Worker:
    """A process with one REPL. `start` and the snapshots it returns block; `kill` may be called from any thread."""

    def __init__(self, limits: Limits) -> None:
        """Start the process. Raises `SandboxError`."""
        self.feeds = 0
        """Number of pieces of code fed so far. Monty numbers the sources in its tracebacks this way."""
        self._resources = contextlib.ExitStack()
        _check_process()
        try:
            pool = self._resources.enter_context(_pool(limits))
            self._session = self._resources.enter_context(_session(pool, limits))
            self.pid = self._session.worker_pid or 0
            self._kill = _kill_function(self.pid)
            watch(self, self.pid, self._kill.fileno() if isinstance(self._kill, _Descriptor) else -1)
        except Exception as error:
            self._resources.close()
            raise SandboxError(f"the monty worker does not start: {error}") from error

    def start(self, code: str, printed: Callable[[str, str], None], **inputs: Any) -> SyncSnapshot:
        """Feed code to the REPL. It runs to its end or to the first call."""
        self.feeds += 1
        counted = code if code.strip() else "None"  # Monty does not number an empty feed
        return self._session.feed_start(counted, print_callback=printed, inputs=inputs)

    def kill(self) -> None:
        """Kill the process, whatever it does."""
        self._kill()

    def close(self) -> None:
        """Kill the process and release everything. Waits until a call in another thread has noticed."""
        self._kill()
        self._resources.close()
        self._kill = _do_nothing


_users: set[int] = set()
"""Ids of the processes that have used Monty: this one, and those that it was forked from."""


def _check_process() -> None:
    """Raise `SandboxError` in a process that was forked after Monty was used, where Monty would wait for ever."""
    _users.add(os.getpid())
    if len(_users) > 1:
        raise SandboxError(
            "this process was forked from one that had used Monty, whose threads are not here: fork before the "
            "first run, start processes with `spawn`, or use sandbox='cpython'"
        )


def _pool(limits: Limits) -> Monty:
    from pydantic_monty import Monty

    return Monty(
        binary_path=launcher(),
        min_processes=1,
        max_processes=1,
        request_timeout=limits.seconds + 2 * GRACE,
        feed_duration_limit_grace=GRACE,
        turn_duration_limit_grace=GRACE,
    )


def _session(pool: Monty, limits: Limits) -> MontySession:
    return pool.checkout(
        limits={
            "max_feed_duration_secs": limits.seconds,
            "max_turn_duration_secs": limits.seconds,
            "max_memory": limits.memory,
            "max_suspensions": NO_LIMIT,
        },
        assert_message_annotations=False,
        os_policy={
            "datetime": datetime.fromtimestamp(limits.clock, UTC),
            "timezone": "utc",
            "sleep": "zero",
            "process_time": "zero",
            "random_start": {"seed": limits.seed},
        },
    )


def _kill_function(pid: int) -> Callable[[], None]:
    """Return a function that kills the process, by a descriptor if possible, because its process id may be
    reused."""
    if sys.platform != "linux":
        return lambda: _kill(pid)
    return _Descriptor(pid)


class _Descriptor:
    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._fd

    def __call__(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def __del__(self) -> None:
        os.close(self._fd)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _do_nothing() -> None:
    """Do nothing: a closed worker needs no kill."""
