"""Archives: a dict of paths, each with what its file becomes. Nothing is unpacked onto the disk.

Bounded: bytes that are unpacked, their ratio to those of the archive, members, and archives inside each other. See
the constants in `parsed.py`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, cast

from rlm_langchain.context.decoding import BLOCK_BYTES, SAMPLE_BYTES, why_not_text
from rlm_langchain.context.describe import count, list_keys
from rlm_langchain.context.formats.left_out import LeftOut
from rlm_langchain.context.formats.parsed import (
    AsText,
    Parsed,
    Reading,
    SourceFile,
    Text,
    Total,
    Unreadable,
    dumps,
    library,
    with_article,
)
from rlm_langchain.errors import InputError

_AGAIN = "it is cut or changed: get it again where it came from"
_Member = tuple[str, Callable[[], IO[bytes]]]
_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
)
"""What the libraries raise for damaged archives."""


def read_zip(file: SourceFile) -> Parsed:
    """Read the files of a ZIP archive. Raises `Unreadable`."""
    with zipfile.ZipFile(file.stream) as archive:

        def members(left: LeftOut) -> Iterator[_Member]:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                if stat.S_ISLNK(member.external_attr >> 16):
                    left.add("link", member.filename)
                elif member.flag_bits & 1:
                    left.add("encrypted file", member.filename)
                else:
                    yield member.filename, lambda member=member: archive.open(member)  # type: ignore[misc]

        return _read(file, "ZIP archive", members)


def read_tar(file: SourceFile) -> Parsed:
    """Read the files of a tar archive. Raises `Unreadable`."""
    file.stream.seek(0)
    return _read_tar(file, "tar archive", file.stream, file.reading.inside(file.size))


def _read_tar(file: SourceFile, kind: str, stream: BinaryIO, reading: Reading) -> Parsed:
    def members(left: LeftOut) -> Iterator[_Member]:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isreg():
                    yield member.name, lambda member=member: cast("IO[bytes]", archive.extractfile(member))  # type: ignore[misc]
                elif not member.isdir():
                    left.add("link or device", member.name)

    return _read(file, kind, members, reading)


def _read(
    file: SourceFile, kind: str, members: Callable[[LeftOut], Iterator[_Member]], reading: Reading | None = None
) -> Parsed:
    """Read all members as values. What cannot be read is left out, and named; a limit ends it all."""
    from rlm_langchain.context.formats.table import value_of

    reading = reading or file.reading.inside(file.size)
    value, left, notes, kinds = dict[str, Any](), LeftOut(reading.strict), list[str](), dict[str, int]()
    again, total = Counter[str](), Total()
    try:
        for name, open_member in members(left):
            _allowance(reading).add_member()
            key = _key(name, value, again)
            if _is_hidden(key):
                left.add("hidden file", key)
                continue
            data = _member(open_member, reading, left, key)
            if data is None:
                continue
            with left.out_if_unreadable(key):
                value[key], parsed = value_of(SourceFile.of_bytes(data, key.rpartition("/")[2], reading))
                total.add(len(dumps(value[key])))
                kinds[parsed.kind if parsed else "text"] = kinds.get(parsed.kind if parsed else "text", 0) + 1
                notes += [f"{key}: {note}" for note in (parsed.notes if parsed else [])]
    except (*_ERRORS, InputError) as error:
        if _is_limit(error):
            raise
        if not value or reading.strict:
            raise _damaged(kind) from error
        notes.insert(0, f"damaged: the {kind} is cut, and nothing is read after {count(len(value), 'file')}")
    notes += left.notes()
    if not value and left.error:
        raise left.error
    if not value:
        raise Unreadable(kind, "has no file that can be read", "; ".join(left.notes()) or "give something else")
    held = ", ".join(f"{number:,} {name}" for name, number in kinds.items())
    return Parsed(kind, "dict", value, "file", f"path -> value: {held}; keys: {list_keys(value)}", notes)


def _member(open_member: Callable[[], IO[bytes]], reading: Reading, left: LeftOut, name: str) -> bytes | None:
    """Return the bytes of a member, or None if it is damaged. Raises `Unreadable` at a limit."""
    parts = list[bytes]()
    try:
        with open_member() as member:
            while part := member.read(BLOCK_BYTES):
                _allowance(reading).add(len(part))
                reading.check()
                parts.append(part)
    except (*_ERRORS, InputError) as error:
        if _is_limit(error):
            raise
        left.add("damaged file", name)
        return None
    return b"".join(parts)


def _is_limit(error: Exception) -> bool:
    """Return whether an archive is too large, rather than damaged."""
    return isinstance(error, InputError) and not (isinstance(error, Unreadable) and error.fault == "damaged")


def _allowance(reading: Reading) -> Any:
    return reading.allowance


def _key(name: str, taken: dict[str, Any], again: Counter[str]) -> str:
    """Return the path of a member as a key: without a leading `./` or `/`, and each once. `again` counts them."""
    key = name.encode("utf-8", "replace").decode().replace("\\", "/").removeprefix("./").lstrip("/")
    wanted = key
    while key in taken:
        again[wanted] += 1
        key = f"{wanted} ({again[wanted] + 1})"
    return key


def _is_hidden(key: str) -> bool:
    """Return whether a member is one of those that a folder would leave out, such as `__MACOSX/._a.txt`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in key.split("/"))


def read_gz(file: SourceFile) -> Parsed | AsText:
    """Read what is in a gzip file."""
    return _unpacked(file, "gzip file", gzip.GzipFile(fileobj=_Watched(file)))


def read_bz2(file: SourceFile) -> Parsed | AsText:
    """Read what is in a bzip2 file."""
    return _unpacked(file, "bzip2 file", bz2.BZ2File(_Watched(file)))


def read_xz(file: SourceFile) -> Parsed | AsText:
    """Read what is in an xz file."""
    return _unpacked(file, "xz file", lzma.LZMAFile(cast("IO[bytes]", _Watched(file))))


def read_zst(file: SourceFile) -> Parsed | AsText:
    """Read what is in a Zstandard file."""
    return _unpacked(
        file, "Zstandard file", library("zstandard").ZstdDecompressor().stream_reader(_Watched(file), closefd=False)
    )


class _Watched(io.RawIOBase):
    """A compressed file that looks at the time whenever it is read: millions of empty parts give nothing."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        file.stream.seek(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        return self._file.stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        self._file.reading.check()
        data = self._file.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Bounded(io.RawIOBase):
    """An unpacked stream that counts what it gives. Raises `Unreadable` at a limit, or if it is damaged."""

    def __init__(self, stream: Any, kind: str, reading: Reading) -> None:
        self._stream, self._kind, self._reading = stream, kind, reading

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        try:
            data: bytes = self._stream.read1(len(buffer))
        except InputError:
            raise
        except _ERRORS as error:
            raise _damaged(self._kind) from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise _damaged(self._kind) from error
        _allowance(self._reading).add(len(data))
        self._reading.check()
        buffer[: len(data)] = data
        return len(data)


def _damaged(kind: str) -> Unreadable:
    return Unreadable(kind, "damaged", _AGAIN)


def _unpacked(file: SourceFile, kind: str, stream: Any) -> Parsed | AsText:
    """Read the file in a compressed one. A long text is read bit by bit, and may have any length."""
    from rlm_langchain.context.formats.table import parsed_of

    reading = file.reading.inside(file.size)
    unpacked = io.BufferedReader(_Bounded(stream, kind, reading), BLOCK_BYTES)
    head = unpacked.peek(SAMPLE_BYTES)[:SAMPLE_BYTES]
    while len(head) < SAMPLE_BYTES and (more := unpacked.peek(SAMPLE_BYTES)) and len(more) > len(head):
        head = more[:SAMPLE_BYTES]
    if head[257:262] == b"ustar":
        return _read_tar(file, f"tar archive in a {kind}", cast("BinaryIO", unpacked), reading)
    data = unpacked.read()
    inner = SourceFile.of_bytes(data, _inner_name(file.name), reading)
    found = parsed_of(inner)
    if isinstance(found, AsText):
        if why_not_text(inner.head):
            raise Unreadable(kind, "holds no text", "unpack it, and export what you need of it as text first")
        text = Text(inner)
        whole = text.whole()
        if not whole:
            raise Unreadable(kind, "empty", "there is nothing to ask about")
        return Parsed(
            f"text in a {kind}", "str", whole, notes=[*([found.note] if found.note else []), *text.notes()]
        )
    found.kind = f"{found.kind} in {with_article(kind)}"
    return found


def _inner_name(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.tar" if dot and suffix.lower() in ("tgz", "tbz", "tbz2", "txz", "tzst") else stem
