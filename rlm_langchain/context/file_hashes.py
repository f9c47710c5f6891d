"""Caches the hashes of files, so that an unchanged file is not hashed again.

Covered: every change that the file system shows in size, times or inode, even if the modification time was
reset. Not covered: anyone who can write to the store or make the kernel's clocks lie.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rlm_langchain.context.decoding import BLOCK_BYTES

_SETTLED_AFTER = 2_000_000_000
"""Nanoseconds. A file that changed less than this before its stat was taken may change again without a visible
difference, because file systems have a limited time resolution."""


class FileStat(NamedTuple):
    """The metadata of a file that shows whether its content changed."""

    size: int
    modified: int
    changed: int
    inode: int
    device: int

    @classmethod
    def of_path(cls, path: Path) -> FileStat:
        """Return the stat of a regular file; links are not followed. Raises `OSError`."""
        return cls.of_stat(os.lstat(path))

    @classmethod
    def of_stat(cls, found: os.stat_result) -> FileStat:
        """Convert the result of `stat` or `fstat`."""
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file")
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)

    def is_settled(self, at: int) -> bool:
        """Return whether any later change would give a different stat, if this one was taken at time `at`
        (nanoseconds).

        Only the change time is used where nobody can set it, because files may claim to be from the future.
        """
        latest = self.changed if os.name == "posix" else max(self.modified, self.changed)
        return at - latest >= _SETTLED_AFTER


class FileHashCache:
    """Stats of files whose hash is known: in memory, and next to the blobs for other processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._remembered: dict[Path, tuple[str, FileStat]] = {}

    def is_remembered(self, path: Path, sha256: str, stamp: FileStat) -> bool:
        """Return whether this process has seen the file with this content and this stat."""
        return self._remembered.get(path) == (sha256, stamp)

    def remember(self, path: Path, sha256: str, stamp: FileStat) -> None:
        """Record that the file had this content at this stat."""
        self._remembered[path] = (sha256, stamp)

    def is_known(self, path: Path, sha256: str, stamp: FileStat) -> bool:
        """Return whether any process has recorded the file with this content and this stat. For files of the
        user."""
        if self.is_remembered(path, sha256, stamp):
            return True
        with suppress(OSError, ValueError):
            if json.loads(self._entry_path(path, sha256).read_bytes()) == [str(path), *stamp]:
                self.remember(path, sha256, stamp)
                return True
        return False

    def known_stat(self, path: Path, sha256: str) -> FileStat | None:
        """Return the stat at which the file is known to have this content, or None if it must be hashed."""
        known = self._remembered.get(path)
        return known[1] if known is not None and known[0] == sha256 else None

    def save(self, path: Path, sha256: str, stamp: FileStat, at: int) -> None:
        """Record a file of the user, also for other processes, unless it was changing when its stat was taken.

        `at` is the time of the stat, in nanoseconds.
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
    """Open a regular file, unbuffered. Never blocks, and follows a link only with `follow`. Raises `OSError`.

    Without O_NONBLOCK, opening a named pipe would wait for a writer.
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
    """Return a flag of `os.open`, or 0 on systems that lack it."""
    return int(getattr(os, name, 0))


def hash_file(path: Path) -> str:
    """Return the sha256 of a regular file, read in blocks."""
    with open_regular(path, follow=True) as file:
        return hash_open_file(file)


def hash_open_file(file: BinaryIO) -> str:
    """Return the sha256 of an open file up to its current size, ignoring data that is appended meanwhile."""
    digest, left = hashlib.sha256(), os.fstat(file.fileno()).st_size
    file.seek(0)
    while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
        digest.update(block)
        left -= len(block)
    file.seek(0)
    return digest.hexdigest()


def hash_stream(blocks: Iterable[bytes]) -> str:
    """Return the sha256 of bytes that come in blocks."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
