"""A text file by its path: used in place, read once in blocks, never loaded.

A sandbox cannot open a file in place if it is not plain UTF-8 (a byte order mark, UTF-16, undecodable bytes) or
if its name is not. In these cases a decoded copy is stored. So is the content of a pipe, up to a limit. Devices
and sockets are refused, because opening one may have an effect and most of them never end.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rlm_langchain.context.blobs import Blob
from rlm_langchain.context.decoding import (
    BLOCK_BYTES,
    SAMPLE_BYTES,
    encoding_of,
    odd_sample,
    why_not_text,
)
from rlm_langchain.context.describe import PREVIEW_BYTES, quoted
from rlm_langchain.context.encodings import guessed
from rlm_langchain.context.file_hashes import FileStat
from rlm_langchain.context.formats.parsed import AsText, SourceFile
from rlm_langchain.context.formats.storing import file_reference, reading
from rlm_langchain.context.places import with_file
from rlm_langchain.context.reference import StoreWriter, text_reference
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.context.sources.pipes import NamedPipe
from rlm_langchain.context.sources.streams import as_input_error, copy_stream
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

SPARSE_CHECK_BYTES = 1 << 30
"""Minimum size for the check that refuses files of which less than a hundredth was ever written."""
MAX_EXTENTS = 1_000
"""Number of extents of a sparse file that are counted."""


class Scan(NamedTuple):
    """The result of one pass over a file."""

    sha256: str
    characters: int


def accepts(value: Any) -> bool:
    """Accept a `pathlib.Path` or another path object. `to_reference` reports a missing file."""
    return isinstance(value, os.PathLike)


def to_reference(value: os.PathLike[Any], store_writer: StoreWriter) -> ContextRef:
    """Return a reference to the file in place, or to a copy if it cannot be opened in place."""
    name = os.fsdecode(value)
    with as_input_error(name), _open_file_or_pipe(name) as file:
        found = os.fstat(file.fileno())
        if stat.S_ISFIFO(found.st_mode):
            return copy_stream(
                NamedPipe(file.fileno(), name, store_writer),
                one_line(name),
                store_writer,
                max_bytes=store_writer.max_stream_bytes,
            )
        return open_file_to_reference(file, Path(os.path.realpath(name)), store_writer)


@contextmanager
def _open_file_or_pipe(name: str) -> Iterator[BinaryIO]:
    """Yield a file or a pipe, without waiting for a writer. Raises `InputError` for a device or a socket."""
    _refuse_special(name, os.stat(name))  # before it is opened: that may rewind a tape
    flags = ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
    handle = os.open(name, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
    with open(handle, "rb", buffering=0) as file:
        _refuse_special(name, os.fstat(handle))
        yield file


def _refuse_special(name: str, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if found.st_rdev and found.st_rdev == os.stat(os.devnull).st_rdev:
        raise InputError(f"{name} is empty: there is nothing to ask about")
    kind = "a socket" if stat.S_ISSOCK(found.st_mode) else "a device"
    raise InputError(
        f"{one_line(name)} is {kind}, and only files, folders and pipes can be read: save what you need of it to a "
        "file first"
    )


def open_file_to_reference(file: BinaryIO, path: Path, store_writer: StoreWriter) -> ContextRef:
    """Return a reference to an open regular file with this real path: in place, or a copy. Raises `OSError`."""
    return with_file(_reference(file, path, store_writer), path.name)


def _reference(file: BinaryIO, path: Path, store_writer: StoreWriter) -> ContextRef:
    shown = one_line(path)
    note = f"from the file {quoted(path.name)}"
    at, stamp = time.time_ns(), FileStat.of_stat(os.fstat(file.fileno()))
    sample = file.read(SAMPLE_BYTES)
    if sample is None:  # some kernel files block until an event
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if wrong := why_sparse(file.fileno(), stamp.size):
        raise InputError(f"{shown} is {wrong}")
    said = ""
    if stamp.size:
        source = SourceFile(file, path.name, stamp.size, reading(store_writer, shown), sample, str(path))
        found = file_reference(source, shown, note, store_writer)
        if not isinstance(found, AsText):
            _refuse_changed(path, stamp)
            return found
        said = found.note
    if wrong := why_not_text(sample):
        raise InputError(f"{shown} is {wrong}")
    file.seek(0)
    if sample and not stamp.size:  # kernel files (/proc, /sys) have no size, and may not end
        return copy_stream(file, shown, store_writer, note, max_bytes=store_writer.max_stream_bytes)
    is_plain = encoding_of(sample) == "utf-8" and guessed(sample) is None
    plain = sample and is_plain and _is_utf8(path)
    scanned = scan(file, stamp.size, lambda: store_writer.seconds_left(path)) if plain else None
    if scanned is None:
        file.seek(0)
        odd = odd_sample(file, stamp.size, sample)
        ref = copy_stream(_FirstBytes(file, stamp.size), shown, store_writer, note, said, sample=odd)
        _refuse_changed(path, stamp)
        return ref
    _refuse_changed(path, stamp)
    store_writer.blobs.file_hashes.save(path, scanned.sha256, stamp, at)
    ref = text_reference(Blob(scanned.sha256, stamp.size, sample[:PREVIEW_BYTES]), scanned.characters, note, said)
    return {**ref, "path": str(path)}


def _refuse_changed(path: Path, stamp: FileStat) -> None:
    if FileStat.of_path(path) != stamp:
        raise InputError(f"{one_line(path)} was written to while it was read: copy it first, or pipe it in")


def _is_utf8(path: Path) -> bool:
    """Return whether a path can be stored in state and sent to a sandbox."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def why_sparse(fd: int, size: int, *, over: int = SPARSE_CHECK_BYTES) -> str | None:
    """Return a description of a file that is almost entirely unwritten, and what to do. None for other files, and
    for those of up to `over` bytes.

    Reading its holes, which are NUL characters, would take as long as reading that much text.
    """
    if size <= over or not hasattr(os, "SEEK_DATA"):
        return None
    at = written = 0
    try:
        for _ in range(MAX_EXTENTS):
            begin = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            written += at - begin
            if written * 100 >= size:
                return None
        return None
    except OSError as error:
        if error.errno != errno.ENXIO:  # raised after the last data
            return None
    return f"{size:,} bytes long, of which {written:,} were written: copy the part that is text to another file"


def scan(file: BinaryIO, size: int, check: Any = lambda: None) -> Scan | None:
    """Return hash and length of `size` bytes of UTF-8, in one pass. None if they are anything else.

    Decoding verifies the encoding and counts characters in half the time that hashing takes, so both run at
    once, with the hash in a separate thread. `check` is called for each block, and may raise to stop.
    """
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    characters, left = 0, size
    with ThreadPoolExecutor(1) as pool:
        try:
            while left and (block := file.read(min(BLOCK_BYTES, left))):
                left -= len(block)
                hashed = pool.submit(digest.update, block)
                characters += len(decoder.decode(block))
                hashed.result()
                check()
            decoder.decode(b"", True)
        except UnicodeDecodeError:
            return None
    return Scan(digest.hexdigest(), characters)


class _FirstBytes:
    """The first bytes of a file, without those that are appended meanwhile."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        """Return at most `size` of the next bytes."""
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data
