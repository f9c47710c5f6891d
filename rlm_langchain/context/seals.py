"""Remembers which file had which content, so that an unchanged file is not hashed again.

Covered: any change that the file system notes in size, times or inode, also when the modification time was
set back. Not covered: who can write to the store or the kernel's clocks can lie to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rlm_langchain.context.decoding import blocks

_SETTLED = 2_000_000_000
"""Nanoseconds: a file that changed less than this before it was stamped may change once more without a new
stamp, since file systems count time in steps."""


class Stamp(NamedTuple):
    """What the file system knows of a file's content."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The stamp of a regular file. Raises `OSError`."""
        return cls.at(os.stat(path))

    @classmethod
    def at(cls, found: os.stat_result) -> Stamp:
        """The stamp in what `stat` or `fstat` said."""
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file")
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class Seals:
    """Stamps of files whose hash is known: in memory, and beside the blobs for other processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[str, Stamp]] = {}

    def remembers(self, path: Path, sha256: str, stamp: Stamp) -> bool:
        """Whether this process has seen the file with this content and this stamp."""
        return self._known.get(path) == (sha256, stamp)

    def remember(self, path: Path, sha256: str, stamp: Stamp) -> None:
        """The file had this content at this stamp."""
        self._known[path] = (sha256, stamp)

    def holds(self, path: Path, sha256: str, stamp: Stamp) -> bool:
        """Whether any process sealed the file with this content and this stamp, for a file of others."""
        if self.remembers(path, sha256, stamp):
            return True
        with suppress(OSError, ValueError):
            return bool(json.loads(self._note(path, sha256).read_bytes()) == [str(path), *stamp])
        return False

    def seal(self, path: Path, sha256: str, stamp: Stamp, at: int) -> None:
        """Remember a file of others, also for other processes, unless it was changing when it was stamped.

        `at` is the time of the stamp, in nanoseconds.
        """
        if at - max(stamp.modified, stamp.changed) < _SETTLED:
            return
        self.remember(path, sha256, stamp)
        note = self._note(path, sha256)
        with suppress(OSError):  # without the note the file is hashed once more, nothing worse
            note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            note.write_text(json.dumps([str(path), *stamp]))

    def _note(self, path: Path, sha256: str) -> Path:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return self._folder / sha256[:2] / f"{sha256}.{name}"


def hash_of(path: Path) -> str:
    """The sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for block in blocks(file):
            digest.update(block)
    return digest.hexdigest()
