"""What a program could change, remove or read on a host without opening a file.

Laid out beside the secret file, and compared before and after a program: mode, owner, times, number of links,
extended attributes and flags of files; what a symbolic link points to; a POSIX message queue; shared memory, a
message queue and semaphores of System V. Each holds a secret where it can hold one.
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
"""Where the secrets are: the target of a link, an extended attribute, a message, shared memory."""

MADE = "-PWNED"
"""The end of the name of a queue that a program makes when it can. Of objects of System V: the next key."""

FS_IOC_GETFLAGS = 0x80086601
IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0
SIZE = 256
"""Bytes of a message, and of the shared memory."""

STATUS_TEXT = 2
"""Columns at the end of /proc/sysvipc/shm that the kernel changes by itself: what is resident, what is swapped."""

State = dict[str, object]


@contextlib.contextmanager
def belongings(folder: Path, words: dict[str, str]) -> Iterator[None]:
    """Lay them out, until the end of the block. `secret.txt` is there already."""
    os.symlink(words["link"], folder / "link")
    if sys.platform != "linux":
        yield
        return
    with contextlib.suppress(OSError):  # a file system without them; then their control fails
        os.setxattr(folder / "secret.txt", "user.canary", words["attribute"].encode())
    with _queue(folder, words["queue"]), _system_v(folder, words["shared"]):
        yield


def state(folder: Path) -> State:
    """Everything that can be compared, each with what it is called."""
    found: State = {"the names in the folder": sorted(os.listdir(folder))}
    for path in (folder, folder / "secret.txt", folder / "link"):
        with contextlib.suppress(FileNotFoundError):
            found |= {f"the {what} of {path.name}": value for what, value in _of(path)}
    if sys.platform == "linux":
        found |= {f"the queue{end}": _queue_state(queue_name(folder) + end) for end in ("", MADE)}
        found["the objects of System V"] = _system_v_state(folder)
    return found


def changes(before: State, after: State) -> Iterator[str]:
    """What is different, a sentence each."""
    for what in before | after:
        if before.get(what) != after.get(what):
            yield f"{what} changed on the host: {before.get(what)} -> {after.get(what)}"


def queue_name(folder: Path) -> str:
    """The name of the POSIX message queue."""
    return f"/{folder.name}"


def key(folder: Path) -> int:
    """The key of the objects of System V. A program that makes new ones takes the next."""
    return zlib.crc32(folder.name.encode()) & 0x7FFFFFFE


def _of(path: Path) -> Iterator[tuple[str, object]]:
    status = path.lstat()
    yield "mode", oct(status.st_mode)
    yield "owner", (status.st_uid, status.st_gid)
    is_file = stat.S_ISREG(status.st_mode)  # looking at others changes when they were looked at
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
    """Those that `lsattr` shows; None where the file system has none, and when it may not be opened any more."""
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
    """The C library, or the part of an old one that has the queues."""
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
    """Its mode, owner and how full it is; None when there is none."""
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
    """The lines of the kernel about these objects: owner, mode, who used them last, and when."""
    mine = {str(key(folder)), str(key(folder) + 1)}
    found = {}
    for kind in ("shm", "msg", "sem"):
        table = Path("/proc/sysvipc", kind)
        lines = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
        kept = [line for line in lines if line and line[0] in mine]
        found[kind] = [line[:-STATUS_TEXT] if kind == "shm" else line for line in kept]
    return found


class ErrorStream:
    """The standard error of this process, kept in a file instead of shown while a program is tried."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as what inherits it
        self._seen = 0

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Put the file in its place, until the end of the block. Processes that are started meanwhile keep it."""
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
        """What was written since the last look, by whoever holds it."""
        size = os.fstat(self._file.fileno()).st_size
        written, self._seen = os.pread(self._file.fileno(), size - self._seen, self._seen), size
        return written
