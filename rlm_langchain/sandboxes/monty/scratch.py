"""Temporary folders, each owned by one process. The folders of killed processes are removed by the next process.

The owner of a folder holds a lock on it, which the kernel releases when the process ends, however it ends. A folder
is not removed if it is locked, if another user owns it, or if it contains anything but our own file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

PREFIX = "rlm-monty-"
FILE = "monty"
"""The only file in a folder."""

_locks: dict[Path, int] = {}
"""The folders of this process, and the descriptors that keep them locked until it ends."""


def own_folder() -> Path:
    """Return a new folder that this process owns until it ends. Remove abandoned folders before."""
    remove_abandoned()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):  # removed by another process before it was locked
            if _lock(folder):
                return folder


def remove_abandoned() -> None:
    """Remove the folders of this user's processes that have ended."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for path in [entry.path for entry in entries if entry.name.startswith(PREFIX)]:
            with contextlib.suppress(OSError):  # it is locked, or belongs to another user
                _remove(path)


def _lock(folder: Path) -> bool:
    """Lock a folder until this process ends. Return False or raise `FileNotFoundError` if it is being removed."""
    import fcntl

    with contextlib.ExitStack() as undo:
        handle = _opened(folder)
        undo.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the file system has no locks, so no other process removes the folder either
        if os.stat(folder).st_ino != os.fstat(handle).st_ino:
            return False
        undo.pop_all()
    _locks[folder] = handle
    return True


def _remove(path: str) -> None:
    """Remove a folder that no process has locked. Raises `OSError` if one has, and leaves it unchanged."""
    import fcntl

    handle = _opened(path)
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if set(os.listdir(handle)) <= {FILE}:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(FILE, dir_fd=handle)
            os.rmdir(path)
    finally:
        os.close(handle)


def _opened(folder: str | Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
