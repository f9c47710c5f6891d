"""A folder of blobs, each named by the sha256 of its content.

Guaranteed: a blob is complete or absent, even if the writing process is killed; a blob is verified before it is
returned; equal content is stored once; only the owner can read the folder.

Not guaranteed: that a blob survives a power failure right after it was written, because nothing is flushed to
the disk. Such a blob fails its check, and is written again when the context is passed again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rlm_langchain.context.atomic import ABANDONED_AFTER, UNFINISHED, remove_if_older, storing
from rlm_langchain.context.describe import PREVIEW_BYTES
from rlm_langchain.context.file_hashes import (
    FileHashCache,
    FileStat,
    hash_open_file,
    open_regular,
)
from rlm_langchain.errors import JournalError

_TOUCH_INTERVAL = 3600
"""Seconds between two updates of a blob's time of use, so that most uses write nothing."""


class Blob(NamedTuple):
    """A blob in the store."""

    sha256: str
    size: int
    head: bytes
    """The first bytes, for a preview."""


class Collected(NamedTuple):
    """The result of a garbage collection."""

    removed: tuple[str, ...]
    """The sha256 of each removed context."""
    size: int
    """Bytes that were freed, including those of unfinished writes."""


class BlobStore:
    """The blobs in one folder. Nothing is created before the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file_hashes = FileHashCache(folder)

    def path(self, sha256: str) -> Path:
        """Return the path of the blob, whether or not it exists."""
        return self.folder / sha256[:2] / sha256

    def put(self, data: bytes) -> Blob:
        """Store these bytes. A complete copy that exists already is left alone."""
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data), data[:PREVIEW_BYTES])
        if not self.reuse(blob):
            with self.writer() as writer:
                writer.append(data)
                writer.publish(blob)
        return blob

    def reuse(self, blob: Blob) -> bool:
        """Return whether a complete copy exists, and if so mark it as used."""
        with suppress(OSError):
            if self._is_intact(self.path(blob.sha256), blob.sha256, blob.size):
                self._touch(blob.sha256)
                return True
        return False

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Yield a writer for bytes that come in pieces: `write` them, then `commit`. Without `commit` nothing
        is stored."""
        with self.as_journal_error():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self.folder)
        try:
            with open(handle, "wb", buffering=0) as file:
                yield BlobWriter(self, file, Path(name))
        finally:
            Path(name).unlink(missing_ok=True)

    def open(self, sha256: str, size: int) -> Path:
        """Return the path of a verified blob. Raises `JournalError` if it is missing or damaged."""
        path = self.path(sha256)
        remedy = "pass the context again to store it again"
        try:
            intact = self._is_intact(path, sha256, size)
        except OSError as error:
            raise JournalError(f"the stored context {path} cannot be read ({error.strerror}): {remedy}") from error
        if not intact:
            raise JournalError(f"the stored context {path} is damaged: {remedy}")
        self._touch(sha256)
        return path

    def collect(self, older_than: float, keep: Collection[str], *, dry_run: bool = False) -> Collected:
        """Remove blobs that were not used for `older_than` seconds, except those in `keep`, and the remains of
        crashes.

        With `dry_run`, only report what would be removed.
        """
        now, removed, size = time.time(), [], 0
        for path in sorted(self.folder.glob("*/*")):
            sha256 = path.name.partition(".")[0]
            if (
                sha256 not in keep
                and (freed := remove_if_older(path, now - older_than, dry_run=dry_run)) is not None
            ):
                size += freed
                removed += [sha256] if path.name == sha256 else []
        for path in self.folder.glob(f"{UNFINISHED}*"):
            size += remove_if_older(path, now - max(older_than, ABANDONED_AFTER), dry_run=dry_run) or 0
        return Collected(tuple(removed), size)

    def as_journal_error(self) -> AbstractContextManager[None]:
        """Turn operating system errors of a write into a `JournalError`."""
        return storing("a context", self.folder)

    def _is_intact(self, path: Path, sha256: str, size: int) -> bool:
        stamp = FileStat.of_path(path)
        if stamp.size != size:
            return False
        if self.file_hashes.is_remembered(path, sha256, stamp):
            return True
        with open_regular(path) as file:
            if hash_open_file(file) != sha256:
                return False
        self.file_hashes.remember(path, sha256, stamp)
        return True

    def _touch(self, sha256: str) -> None:
        """Mark a blob as used. Its age counts from its last use."""
        path = self.path(sha256)
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _TOUCH_INTERVAL:
                os.utime(path)
                self.file_hashes.remember(path, sha256, FileStat.of_path(path))


class BlobWriter:
    """A blob that is being written: a temporary file until `commit` renames it."""

    def __init__(self, blobs: BlobStore, file: BinaryIO, path: Path) -> None:
        self._blobs, self._file, self._path = blobs, file, path
        self._digest = hashlib.sha256()
        self._size = 0
        self._head = b""

    def write(self, data: bytes) -> None:
        """Add bytes. Raises `JournalError` if they cannot be written."""
        self.append(data)
        self._digest.update(data)
        self._size += len(data)
        if len(self._head) < PREVIEW_BYTES:
            self._head = (self._head + data)[:PREVIEW_BYTES]

    def commit(self) -> Blob:
        """Store what was written. A complete copy that exists already is left alone."""
        blob = Blob(self._digest.hexdigest(), self._size, self._head)
        if not self._blobs.reuse(blob):
            self.publish(blob)
        return blob

    def append(self, data: bytes) -> None:
        """Add bytes whose hash the caller knows. The caller then calls `publish`."""
        with self._blobs.as_journal_error():
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def publish(self, blob: Blob) -> None:
        """Rename the file to its final name, which makes the blob visible."""
        path = self._blobs.path(blob.sha256)
        with self._blobs.as_journal_error():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._file.close()
            os.replace(self._path, path)
            self._blobs.file_hashes.remember(path, blob.sha256, FileStat.of_path(path))
