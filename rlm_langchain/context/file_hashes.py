"""Remembers which file had which content, so that an unchanged file is not hashed again.

Covered: any change that the file system notes in size, times or inode, also when the modification time was
set back. Not covered: who can write to the store or the kernel's clocks can lie to it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rlm_langchain.context.decoding import BLOCK_BYTES

_SETTLED_AFTER = 2_000_000_000
"""Nanoseconds: a file that changed less than this before it was stamped may change once more without a new
stamp, since file systems count time in steps."""


class FileStat(NamedTuple):
    """What the file system knows of a file's content."""

    size: int
    modified: int
    changed: int
    inode: int
    device: int

    @classmethod
    def of_path(cls, path: Path) -> FileStat:
        """The stamp of a regular file, not of what a link leads to. Raises `OSError`."""
        return cls.of_stat(os.lstat(path))

    @classmethod
    def of_stat(cls, found: os.stat_result) -> FileStat:
        """The stamp in what `stat` or `fstat` said."""
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file")
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)

    def is_settled(self, at: int) -> bool:
        """Whether any later change gives another stamp, when it was taken at this time, in nanoseconds.

        Where nobody can set the time of a change, that alone tells: files that claim to be of tomorrow exist.
        """
        latest = self.changed if os.name == "posix" else max(self.modified, self.changed)
        return at - latest >= _SETTLED_AFTER


class FileHashCache:
    """Stamps of files whose hash is known: in memory, and beside the blobs for other processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._remembered: dict[Path, tuple[str, FileStat]] = {}

    def is_remembered(self, path: Path, sha256: str, stamp: FileStat) -> bool:
        """Whether this process has seen the file with this content and this stamp."""
        return self._remembered.get(path) == (sha256, stamp)

    def remember(self, path: Path, sha256: str, stamp: FileStat) -> None:
        """The file had this content at this stamp."""
        self._remembered[path] = (sha256, stamp)

    def is_known(self, path: Path, sha256: str, stamp: FileStat) -> bool:
        """Whether any process sealed the file with this content and this stamp, for a file of others."""
        if self.is_remembered(path, sha256, stamp):
            return True
        with suppress(OSError, ValueError):
            if json.loads(self._entry_path(path, sha256).read_bytes()) == [str(path), *stamp]:
                self.remember(path, sha256, stamp)
                return True
        return False

    def known_stat(self, path: Path, sha256: str) -> FileStat | None:
        """The stamp at which the file is known to have this content; None when it must be hashed to know."""
        known = self._remembered.get(path)
        return known[1] if known is not None and known[0] == sha256 else None

    def save(self, path: Path, sha256: str, stamp: FileStat, at: int) -> None:
        """Remember a file of others, also for other processes, unless it was changing when it was stamped.

        `at` is the time of the stamp, in nanoseconds.
        """
        if not stamp.is_settled(at):
            return
        self.remember(path, sha256, stamp)
        note = self._entry_path(path, sha256)
        with suppress(OSError):  # without the note the file is hashed once more, nothing worse
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            note.write_text(json.dumps([str(path), *stamp]))

    def _entry_path(self, path: Path, sha256: str) -> Path:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return self._folder / sha256[:2] / f"{sha256}.{name}"


def open_regular(path: Path, *, follow: bool = False) -> BinaryIO:
    """A regular file, unbuffered. Never waits, and follows a link only when told to. Raises `OSError`.

    Without O_NONBLOCK, to open a named pipe waits for whoever writes to it.
    """
    flags = os.O_RDONLY | _open_flag("O_NONBLOCK") | _open_flag("O_CLOEXEC") | _open_flag("O_BINARY")
    try:
        handle = os.open(path, flags | (0 if follow else _open_flag("O_NOFOLLOW")))
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "it is a link now") from error
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise OSError(errno.ENXIO, "it is not a regular file") from error
        raise
    try:
        FileStat.of_stat(os.fstat(handle))
        return open(handle, "rb", buffering=0)
    except BaseException:
        os.close(handle)
        raise


def _open_flag(name: str) -> int:
    """A flag of `os.open`, on systems that have it."""
    return int(getattr(os, name, 0))


def hash_file(path: Path) -> str:
    """The sha256 of a regular file, read in blocks."""
    with open_regular(path, follow=True) as file:
        return hash_open_file(file)


def hash_open_file(file: BinaryIO) -> str:
    """The sha256 of an open file as long as it is now: more that is written meanwhile is not waited for."""
    digest, left = hashlib.sha256(), os.fstat(file.fileno()).st_size
    file.seek(0)
    while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
        digest.update(block)
        left -= len(block)
    file.seek(0)
    return digest.hexdigest()
