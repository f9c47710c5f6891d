"""Things on the host that a program could change, remove or read without opening a file.

`belongings` creates them next to the secret file, and they are compared before and after a program: mode, owner,
times, number of links, extended attributes and flags of files; the target of a symbolic link; a POSIX message
queue; shared memory, a message queue and semaphores of System V. Each contains a secret if it can hold one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

PLACES = ("link", "attribute", "queue", "shared")
"""Places of the secrets: the target of a link, an extended attribute, a message, and shared memory."""

MADE = "-PWNED"
"""Suffix of the name of a queue that a program tries to create. For System V objects, it tries the next key."""

FS_IOC_GETFLAGS = 0x80086601
IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0
SIZE = 256
"""Size of a message and of the shared memory, in bytes."""

STATUS_TEXT = 2
"""Columns at the end of /proc/sysvipc/shm that the kernel changes by itself: resident and swapped pages."""

State = dict[str, object]


@contextlib.contextmanager
def belongings(folder: Path, words: dict[str, str]) -> Iterator[None]:
    """Create all of them for the duration of the block. `secret.txt` must exist."""
    os.symlink(words["link"], folder / "link")
    if sys.platform != "linux":
        yield
        return
    with contextlib.suppress(OSError):  # not supported by the file system; then their control fails
        os.setxattr(folder / "secret.txt", "user.canary", words["attribute"].encode())
    with _queue(folder, words["queue"]), _system_v(folder, words["shared"]):
        yield


def state(folder: Path) -> State:
    """Return everything that is compared, by its description."""
    found: State = {"the names in the folder": sorted(os.listdir(folder))}
    for path in (folder, folder / "secret.txt", folder / "link"):
        with contextlib.suppress(FileNotFoundError):
            found |= {f"the {what} of {path.name}": value for what, value in _of(path)}
    if sys.platform == "linux":
        found |= {f"the queue{end}": _queue_state(queue_name(folder) + end) for end in ("", MADE)}
        found["the objects of System V"] = _system_v_state(folder)
    return found


def changes(before: State, after: State) -> Iterator[str]:
    """Yield a sentence for each difference."""
    for what in before | after:
        if before.get(what) != after.get(what):
            yield f"{what} changed on the host: {before.get(what)} -> {after.get(what)}"


def queue_name(folder: Path) -> str:
    """Return the name of the POSIX message queue."""
    return f"/{folder.name}"


def key(folder: Path) -> int:
    """Return the key of the System V objects. A program that creates new ones uses the next key."""
    return zlib.crc32(folder.name.encode()) & 0x7FFFFFFE


def _of(path: Path) -> Iterator[tuple[str, object]]:
    status = path.lstat()
    yield "mode", oct(status.st_mode)
    yield "owner", (status.st_uid, status.st_gid)
    is_file = stat.S_ISREG(status.st_mode)  # reading a folder or link changes its access time
    yield "times", (status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns if is_file else None)
    yield "number of links", status.st_nlink
    if is_file:
        yield "size", status.st_size
    if stat.S_ISLNK(status.st_mode):
        yield "target", os.readlink(path)
    elif sys.platform == "linux":
        yield "extended attributes", _attributes(path)
        yield "flags", _flags(path)


def _attributes(path: Path) -> dict[str, bytes]:
    if sys.platform != "linux":
        return {}
    with contextlib.suppress(OSError):
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return {}


def _flags(path: Path) -> int | None:
    """Return the flags that `lsattr` shows, or None if the file system has none or the file can no longer be
    opened."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4], sys.byteorder)
    except OSError:
        return None
    finally:
        os.close(fd)


@cache
def _libc() -> ctypes.CDLL:
    """Return the C library, or on old systems the part of it that contains the message queues."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mq_open"):
        libc = ctypes.CDLL("librt.so.1")
    libc.shmat.restype = ctypes.c_void_p
    libc.shmdt.argtypes = [ctypes.c_void_p]
    return libc


@contextlib.contextmanager
def _queue(folder: Path, word: str) -> Iterator[None]:
    name = queue_name(folder)
    attributes = (ctypes.c_long * 8)(0, 1, SIZE)  # at most one message
    fd = _libc().mq_open(name.encode(), os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o600, attributes)
    if fd >= 0:
        _libc().mq_send(fd, word.encode(), len(word), 0)
        os.close(fd)
    try:
        yield
    finally:
        for end in ("", MADE):
            _libc().mq_unlink((name + end).encode())


def _queue_state(name: str) -> object:
    """Return mode, owner and fill state of a queue, or None if it does not exist."""
    fd = _libc().mq_open(name.encode(), os.O_RDONLY | os.O_NONBLOCK)
    if fd < 0:
        return None
    try:
        status = os.fstat(fd)
        return oct(status.st_mode), status.st_uid, status.st_gid, os.read(fd, 200).strip()
    finally:
        os.close(fd)


@contextlib.contextmanager
def _system_v(folder: Path, word: str) -> Iterator[None]:
    libc, new = _libc(), IPC_CREAT | IPC_EXCL | 0o600
    memory = libc.shmget(key(folder), SIZE, new)
    libc.msgget(key(folder), new)
    libc.semget(key(folder), 1, new)
    if memory >= 0:
        address = libc.shmat(memory, None, 0)
        ctypes.memmove(address, word.encode(), len(word))
        libc.shmdt(address)
    try:
        yield
    finally:
        for number in (key(folder), key(folder) + 1):
            libc.shmctl(libc.shmget(number, 0, 0), IPC_RMID, None)
            libc.msgctl(libc.msgget(number, 0), IPC_RMID, None)
            libc.semctl(libc.semget(number, 0, 0), 0, IPC_RMID)


def _system_v_state(folder: Path) -> dict[str, list[list[str]]]:
    """Return the kernel's entries for these objects: owner, mode, last users and times."""
    mine = {str(key(folder)), str(key(folder) + 1)}
    found = {}
    for kind in ("shm", "msg", "sem"):
        table = Path("/proc/sysvipc", kind)
        lines = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
        kept = [line for line in lines if line and line[0] in mine]
        found[kind] = [line[:-STATUS_TEXT] if kind == "shm" else line for line in kept]
    return found


class ErrorStream:
    """Redirects the standard error of this process to a file while a program is tried."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as what inherits it
        self._seen = 0

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Redirect standard error for the duration of the block. Processes started in it keep the redirection."""
        sys.stderr.flush()
        shown = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)

    def new(self) -> bytes:
        """Return what any process has written there since the last call."""
        size = os.fstat(self._file.fileno()).st_size
        written, self._seen = os.pread(self._file.fileno(), size - self._seen, self._seen), size
        return written
