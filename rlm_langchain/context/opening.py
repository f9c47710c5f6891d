"""Opens the content of a reference after verifying that it is unchanged.

All host code that reads a context uses this module. A file is identified by its content: one that was touched,
or replaced by a copy, can be read; one that was overwritten, truncated, extended, removed, or replaced by a
link, a pipe or another text is a `JournalError`. The content is checked before it is read and again afterwards.
Not covered: a program that writes through a memory map, which file systems notice late.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rlm_langchain.context.blobs import BlobStore
from rlm_langchain.context.file_hashes import (
    FileHashCache,
    FileStat,
    hash_open_file,
    open_regular,
)
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.errors import JournalError
from rlm_langchain.types import ContextFile, ContextRef

_MAX_REMEMBERED = 1_000
"""Number of files whose stats are remembered after they were hashed again."""


def open_reference(ref: ContextRef, blobs: BlobStore) -> ContextFile:
    """Return the verified file. Raises `JournalError` if it is missing, damaged or changed."""
    path = _verified_path(Path(ref["path"]), ref, blobs.file_hashes) if "path" in ref else _stored_path(ref, blobs)
    stamp = blobs.file_hashes.known_stat(path, ref["sha256"])
    return ContextFile(path, ref["kind"], ref["length"], ref["size"], ref["sha256"], stamp)


@contextmanager
def open_context(file: ContextFile) -> Iterator[BinaryIO]:
    """Yield a context, opened at its beginning. Raises `JournalError` if it has changed.

    The change may be detected only at the end, so use what was read only if nothing was raised.
    """
    with _as_journal_error(file), open_regular(file.path, follow=not file.sha256) as stream:
        verify(stream, file)
        try:
            yield stream
        except Exception:
            verify(stream, file)  # a changed text may be the cause of the error
            raise
        verify(stream, file)


def read_context(file: ContextFile) -> bytes:
    """Return all bytes of a context. Raises `JournalError` if it has changed."""
    with _as_journal_error(file), open_regular(file.path, follow=not file.sha256) as stream:
        before = FileStat.of_stat(os.fstat(stream.fileno()))
        if not file.sha256:
            return stream.read()
        parts, left = list[bytes](), file.size
        while left > 0 and (part := stream.read(left)):
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        after = FileStat.of_stat(os.fstat(stream.fileno()))
        if after.size != file.size or left:
            raise _changed_error(file)
        if not before == after == file.stamp and hashlib.sha256(data).hexdigest() != file.sha256:
            raise _changed_error(file)
        return data


def verify(stream: BinaryIO, file: ContextFile) -> None:
    """Raise `JournalError` unless the open file has the content of the context. It is hashed if its stat is
    different."""
    stamp = FileStat.of_stat(os.fstat(stream.fileno()))
    if not file.sha256:  # made by hand: there is nothing to compare it with
        return
    if stamp.size != file.size:
        raise _changed_error(file)
    if stamp == file.stamp or _verified.has(file, stamp):
        return
    at = time.time_ns()
    if hash_open_file(stream) != file.sha256:
        raise _changed_error(file)
    if stamp.is_settled(at):
        _verified.add(file, stamp)


def is_stored(file: ContextFile) -> bool:
    """Return whether the file is a copy in the store, and not a file of the user that others may write to."""
    return file.path.name == file.sha256


class WatchedFiles:
    """Files of the user that a sandbox reads during a session. They are held open, so that changes are noticed."""

    def __init__(self, files: Iterable[ContextFile]) -> None:
        self._open: list[tuple[ContextFile, BinaryIO]] = []
        try:
            for file in files:
                if file.sha256 and not is_stored(file):
                    with _as_journal_error(file):
                        self._open.append((file, open_regular(file.path)))
            self.check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> WatchedFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raise `JournalError` if one of them has changed."""
        for file, stream in self._open:
            with _as_journal_error(file):
                verify(stream, file)

    def check_paths(self) -> None:
        """Raise `JournalError` if their paths no longer lead to the same content."""
        for file, _ in self._open:
            with open_context(file):
                pass

    def identity(self, file: ContextFile) -> list[int]:
        """Return device and inode of a watched file, by which a worker verifies that it opened the same one.
        Empty for other files."""
        for watched, stream in self._open:
            if watched is file:
                found = os.fstat(stream.fileno())
                return [found.st_dev, found.st_ino]
        return []

    def close(self) -> None:
        """Close the files. Safe to call twice."""
        while self._open:
            self._open.pop()[1].close()


class _VerifiedStats:
    """Stats at which files were hashed in this process, most recent last."""

    def __init__(self) -> None:
        self._stamps: OrderedDict[tuple[Path, str], FileStat] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, file: ContextFile, stamp: FileStat) -> bool:
        with self._lock:
            return self._stamps.get((file.path, file.sha256)) == stamp

    def add(self, file: ContextFile, stamp: FileStat) -> None:
        with self._lock:
            self._stamps[file.path, file.sha256] = stamp
            while len(self._stamps) > _MAX_REMEMBERED:
                self._stamps.popitem(last=False)


_verified = _VerifiedStats()


@contextmanager
def _as_journal_error(file: ContextFile) -> Iterator[None]:
    """Turn operating system errors of a read into a `JournalError`."""
    try:
        yield
    except OSError as error:
        if not file.sha256:
            raise
        raise _unreadable_error(file, error) from error


def _stored_path(ref: ContextRef, blobs: BlobStore) -> Path:
    return blobs.open(ref["sha256"], ref["size"])


def _verified_path(path: Path, ref: ContextRef, hashes: FileHashCache) -> Path:
    file = ContextFile(path, ref["kind"], ref["length"], ref["size"], ref["sha256"])
    at = time.time_ns()
    with _as_journal_error(file):
        stamp = FileStat.of_path(path)
        if not hashes.is_known(path, ref["sha256"], stamp):
            with open_regular(path) as stream:
                stamp = FileStat.of_stat(os.fstat(stream.fileno()))
                if stamp.size != ref["size"] or hash_open_file(stream) != ref["sha256"]:
                    raise _changed_error(file)
    hashes.save(path, ref["sha256"], stamp, at)
    return path


def _changed_error(file: ContextFile) -> JournalError:
    if is_stored(file):
        return JournalError(
            f"the stored context {one_line(file.path)} is damaged: pass the context again to store it again"
        )
    return JournalError(f"{_name(file)} has changed since the run began: {_WAY_OUT}")


def _unreadable_error(file: ContextFile, error: OSError) -> JournalError:
    return JournalError(f"{_name(file)} cannot be read ({error.strerror or error}): {_WAY_OUT}")


def _name(file: ContextFile) -> str:
    return f"the file {one_line(file.path)}, which is the context of this run,"


_WAY_OUT = "restore it, or ask again in a new run (with a copy, if the file is still being written)"
