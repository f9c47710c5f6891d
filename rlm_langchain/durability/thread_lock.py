"""Locks on threads, so that only one process at a time works on a thread."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rlm_langchain.durability.checkpointer import HELD_IN_DATABASE, as_journal_error
from rlm_langchain.errors import JournalError, ThreadBusy

ACQUIRE_TIMEOUT = 0.2
"""Seconds to wait for a lock: a process that only checks whether a thread is locked holds its lock for a moment."""


@contextmanager
def thread_lock(home: Path, thread: str, name: str | None = None) -> Iterator[None]:
    """Lock a thread within the block. `name` is the thread's name in messages; None means `thread`.

    Raises `ThreadBusy`, or `JournalError` if the disk is full.
    """
    lock = _lock_path(home, thread)
    holder = lock.with_suffix(".json")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_abandoned(lock.parent, os.getpid())
        file_lock = _acquire(lock)
    except Timeout as busy:
        who = _describe_holder(holder)
        raise ThreadBusy(f"{who[0]} works on the thread {name or thread!r}{who[1]}; wait for it") from busy
    except OSError as error:
        raise _unwritable_error(lock, error) from error
    try:
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        except OSError as error:
            raise _unwritable_error(holder, error) from error
        yield
    finally:
        _release(lock, file_lock)


def _unwritable_error(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"no thread can be locked: {path} cannot be written ({error.strerror}): make room, or set RLM_HOME to "
        "another folder"
    )


def _acquire(lock: Path) -> FileLock:
    """Lock a file, and return the lock once the file exists. Raises `Timeout`."""
    while True:
        file_lock = FileLock(lock, timeout=ACQUIRE_TIMEOUT, poll_interval=ACQUIRE_TIMEOUT / 4, thread_local=False)
        file_lock.acquire()
        if lock.exists():
            return file_lock
        file_lock.release()  # the file was removed after it was opened and before it was locked


def _release(lock: Path, file_lock: FileLock) -> None:
    """Release a lock and delete its files. On Windows an open file stays, and the lock removes it by itself."""
    try:
        for path in (lock.with_suffix(".json"), lock):
            with suppress(OSError):
                path.unlink()
    finally:
        file_lock.release()


@cache
def _remove_abandoned(leases: Path, process: int) -> None:
    """Remove the locks of this user's killed processes. Each process does this once."""
    for lock in leases.glob("*.lock"):
        with suppress(OSError):
            if not hasattr(os, "geteuid") or lock.stat().st_uid == os.geteuid():
                _is_locked(lock)


def is_held(home: Path, thread: str) -> bool:
    """Return whether another process or task holds the lock on a thread."""
    return _is_locked(_lock_path(home, thread))


def oldest_lock_time(home: Path) -> float | None:
    """Return when the oldest lock that is still held was taken (Unix time), or None if none is held."""
    locks = [lock for lock in (home / "leases").glob("*.lock") if _is_locked(lock)]
    return min((_locked_at(lock.with_suffix(".json")) for lock in locks), default=None)


def _lock_path(home: Path, thread: str) -> Path:
    return home / "leases" / f"{hashlib.sha256(thread.encode()).hexdigest()[:32]}.lock"


def _is_locked(lock: Path) -> bool:
    if not lock.exists():
        return False
    file_lock = FileLock(lock, blocking=False, thread_local=False)
    try:
        file_lock.acquire()
    except Timeout:
        return True
    _release(lock, file_lock)
    return False


def _locked_at(holder: Path) -> float:
    """Return when a lock was taken (Unix time), or 0 if its note cannot be read."""
    try:
        return float(json.loads(holder.read_text())["since"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0


def _describe_holder(holder: Path) -> tuple[str, str]:
    """Return who holds a lock, and details in parentheses, for messages. The note may be wrong."""
    try:
        note = json.loads(holder.read_text())
        minutes = (time.time() - note["since"]) / 60
        is_this = (note["pid"], note["host"]) == (os.getpid(), socket.gethostname())
        more = f" (process {note['pid']} on {note['host']}, for {minutes:.0f} min)"
        return ("another call in this process" if is_this else "another process"), more
    except (OSError, ValueError, TypeError, KeyError):
        return "another process", ""


POSTGRES_MODULE = "langgraph.checkpoint.postgres"

LOCK_SETTINGS = (
    "set local lock_timeout = '1s'",  # a process that was killed a moment ago may not be gone yet
    "set local idle_in_transaction_session_timeout = 0",
    "set local tcp_keepalives_idle = 20",
    "set local tcp_keepalives_interval = 10",
    "set local tcp_keepalives_count = 4",
)


KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
}
"""The same on this side: when the network is gone, both sides learn of it after about a minute."""


@contextmanager
def database_thread_lock(saver: Any, thread: str) -> Iterator[None]:
    """Lock a thread in the database of a Postgres saver. Does nothing for other savers.

    Raises `ThreadBusy` if the thread is locked, `JournalError` if the database cannot be reached.
    """
    if not any(kind.__module__.startswith(POSTGRES_MODULE) for kind in type(saver).__mro__):
        yield
        return
    with as_journal_error("read"):
        connection = _new_connection(saver.conn)
    key = (id(saver.conn), thread)
    try:
        with as_journal_error("read"):
            _take_advisory_lock(connection, thread)
        HELD_IN_DATABASE[key] = connection
        yield
    finally:
        HELD_IN_DATABASE.pop(key, None)
        connection.close()


def _take_advisory_lock(connection: Any, thread: str) -> None:
    from psycopg.errors import LockNotAvailable

    number = int.from_bytes(hashlib.sha256(f"rlm {thread}".encode()).digest()[:8], signed=True)
    for setting in LOCK_SETTINGS:
        connection.execute(setting)
    try:
        connection.execute("select pg_advisory_xact_lock(%s)", (number,))
    except LockNotAvailable as busy:
        raise ThreadBusy(
            f"another process works on the thread {thread!r}, with the same database; wait for it"
        ) from busy


def _new_connection(ours: Any) -> Any:
    """Open another connection to the database of a connection or a pool."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    if isinstance(ours, psycopg.Connection | psycopg.AsyncConnection):
        return psycopg.connect(make_conninfo(ours.info.dsn, password=ours.info.password or None, **KEEPALIVES))
    options = {key: value for key, value in (ours.kwargs or {}).items() if key not in ("autocommit", "row_factory")}
    return psycopg.connect(make_conninfo(ours.conninfo, **KEEPALIVES), **options)
