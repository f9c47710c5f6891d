"""Folders for temporary files that belong to a process. What a killed one has left, the next one removes.

A folder belongs to who holds a lock on it, which the kernel frees when that process ends, however it ends. One that
is locked, that another user owns, or that holds anything but our own file, is left alone.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

PREFIX = "rlm-monty-"
FILE = "monty"
"""The one file that may be in a folder."""

_held: dict[Path, int] = {}
"""The folders of this process, and the descriptors that keep them locked until it ends."""


def own_folder() -> Path:
    """A new folder, which is this process' until it ends. First, those of processes that are gone are removed."""
    remove_abandoned()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError):  # removed by another process before it was locked
            if _lock(folder):
                return folder


def remove_abandoned() -> None:
    """Remove the folders of this user's processes that are gone."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for path in [entry.path for entry in entries if entry.name.startswith(PREFIX)]:
            with contextlib.suppress(OSError):  # it is locked, or not ours to remove
                _remove(path)


def _lock(folder: Path) -> bool:
    """Hold a folder until this process ends. False, or `FileNotFoundError`, when another process removes it."""
    import fcntl

    with contextlib.ExitStack() as undo:
        handle = _opened(folder)
        undo.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # there are no locks on this file system, so nobody can remove it either
        if os.stat(folder).st_ino != os.fstat(handle).st_ino:
            return False
        undo.pop_all()
    _held[folder] = handle
    return True


def _remove(path: str) -> None:
    """Remove a folder that nobody holds. Raises `OSError` when that is not so, and leaves it as it is."""
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
