"""What readers get and what they return."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO, Literal, NamedTuple

from rlm_langchain.context.decoding import (
    BLOCK_BYTES,
    SAMPLE_BYTES,
    Decoder,
    odd_sample,
    replace_surrogates,
    replacement_note,
)
from rlm_langchain.context.images import Images
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.errors import InputError, MissingDependency

MAX_VALUE_BYTES = 128 << 20
"""Most bytes of JSON that a file becomes. A sandbox holds it in memory, where it takes about five times as much."""
MAX_UNPACKED_BYTES = 256 << 20
"""Most bytes that all members of an archive have together. They are held in memory."""
MAX_RATIO = 200
"""Most bytes that are unpacked per byte of the archive, beyond the first `FREE_BYTES`."""
FREE_BYTES = 16 << 20
MAX_MEMBERS = 10_000
"""Most members of an archive."""
MAX_DEPTH = 3
"""Most archives and mails inside each other."""

PACKAGES = {
    "pypdfium2": ("pypdfium2", "documents"),
    "pikepdf": ("pikepdf", "documents"),
    "python_calamine": ("python-calamine", "documents"),
    "lxml": ("lxml", "documents"),
    "PIL": ("pillow", "documents"),
    "striprtf": ("striprtf", "documents"),
    "zstandard": ("zstandard", "documents"),
    "charset_normalizer": ("charset-normalizer", "documents"),
    "pyarrow": ("pyarrow", "tables"),
}
"""By module, the package that it comes in, and the extra that installs it."""


class Unreadable(InputError):
    """A file that cannot be read: a format without a reader, a damaged file, a limit."""

    def __init__(self, kind: str, fault: str, way_out: str, name: str = "", more: str = "") -> None:
        self.kind, self.fault, self.way_out, self.more = kind, fault, way_out, more
        what = with_article(f"{fault} {kind}" if fault and " " not in fault else kind)
        clause = f" that {fault}" if " " in fault else ""
        super().__init__(f"{name or 'it'} is {what}{more and f' {more}'}{clause}: {way_out}")

    @property
    def reason(self) -> str:
        """Why it is left out: `damaged PDF`, `archive that unpacks to more than 256 MB`."""
        if " " in self.fault:
            return f"{self.kind} that {self.fault}"
        return f"{self.fault} {self.kind}" if self.fault else self.kind

    def named(self, name: str) -> Unreadable:
        """Return the same error about the file of this name."""
        return Unreadable(self.kind, self.fault, self.way_out, name, self.more)


@dataclass(slots=True)
class Allowance:
    """What may still be unpacked of one archive, and of all that are in it."""

    packed: int
    """Bytes of the archive."""
    unpacked: int = 0
    members: int = 0
    most: int = MAX_UNPACKED_BYTES

    def add(self, size: int) -> None:
        """Count unpacked bytes. Raises `Unreadable` for too many."""
        self.unpacked += size
        ratio = self.unpacked > FREE_BYTES and self.unpacked > MAX_RATIO * max(1, self.packed)
        if ratio or self.unpacked > self.most:
            most = f"{MAX_RATIO} times its size" if ratio else f"{self.most >> 20} MB"
            raise Unreadable(
                "archive", f"unpacks to more than {most}", "unpack what you need of it into a folder, and give that"
            )

    def add_member(self) -> None:
        """Count a member. Raises `Unreadable` for too many."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise Unreadable(
                "archive",
                f"has more than {MAX_MEMBERS:,} members",
                "unpack what you need of it into a folder, and give that",
            )


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read: options of the caller, and what is left of the limits."""

    images: Images
    """Takes the pictures."""
    strict: bool = False
    """Whether to refuse what would be left out, replaced, guessed or repaired."""
    check: Callable[[], object] = lambda: None
    """Called again and again; raises `InputError` when the time is over."""
    encoding: str | None = None
    """The encoding of text. None: found out."""
    depth: int = 0
    """In how many archives or mails the file is."""
    allowance: Allowance | None = None
    """None outside of archives."""

    def inside(self, packed: int) -> Reading:
        """Return how members of an archive of `packed` bytes are read. Raises `Unreadable` for one too deep."""
        if self.depth >= MAX_DEPTH:
            raise Unreadable(
                "archive",
                f"is inside {MAX_DEPTH} others",
                "unpack the outer ones first, and give a folder or the inner one",
            )
        return replace(self, depth=self.depth + 1, allowance=self.allowance or Allowance(packed))


@dataclass(slots=True)
class SourceFile:
    """A file to read: alone, in a folder, or in an archive."""

    stream: BinaryIO
    """At its beginning; can seek."""
    name: str
    """Its name, without folders. Empty for bytes without one."""
    size: int
    reading: Reading
    head: bytes = b""
    """The first bytes."""
    path: str = ""
    """Where it is. Empty for a file in memory."""

    @classmethod
    def of_bytes(cls, data: bytes, name: str, reading: Reading) -> SourceFile:
        """Return a file in memory."""
        return cls(io.BytesIO(data), name, len(data), reading, data[:SAMPLE_BYTES])

    @property
    def suffix(self) -> str:
        """The end of its name, such as `.csv`, in small letters; empty for none."""
        return f".{self.name.rpartition('.')[2].lower()}" if "." in self.name[1:] else ""

    def read(self, most: int = MAX_UNPACKED_BYTES, kind: str = "file") -> bytes:
        """Return all its bytes. Raises `Unreadable` if there are more than `most`."""
        if self.size > most:
            raise _too_much(kind, most)
        self.stream.seek(0)
        parts, left = list[bytes](), most + 1
        while left and (part := self.stream.read(min(left, BLOCK_BYTES * 16))):
            parts.append(part)
            left -= len(part)
            self.reading.check()
        if not left:
            raise _too_much(kind, most)
        return b"".join(parts)

    def blocks(self) -> Iterator[bytes]:
        """Yield its bytes from the beginning."""
        self.stream.seek(0)
        left = self.size
        while left > 0 and (part := self.stream.read(min(BLOCK_BYTES, left))):
            left -= len(part)
            self.reading.check()
            yield part


def _too_much(kind: str, most: int) -> Unreadable:
    return Unreadable(
        kind, f"has more than {most >> 20} MB", "split it, or extract what you need of it into a text file"
    )


class Text:
    """The text of a file, decoded block by block, with a note of what had to be replaced."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self.marks = 0
        """The quotation marks in the text that was read."""
        sample = odd_sample(file.stream, file.size, file.head)
        self._decoder = Decoder(one_line(file.name or "the context"), sample, strict=file.reading.strict)

    def __iter__(self) -> Iterator[str]:
        for block in self._file.blocks():
            text = self._decoder.decode(block)
            self.marks += text.count('"')
            yield text
        yield self._decoder.decode(b"", final=True)

    def lines(self) -> Iterator[str]:
        """Yield its lines, each with its end: a newline, or a carriage return in a file that has no newlines."""
        end = "\r" if b"\r" in self._file.head and b"\n" not in self._file.head else "\n"
        parts, size = list[str](), 0
        for block in self:
            *lines, rest = block.split(end)
            if lines:
                yield f"{''.join(parts)}{lines[0]}{end}"
                yield from (f"{line}{end}" for line in lines[1:])
                parts, size = [], 0
            parts, size = [*parts, rest], size + len(rest)
            if size > MAX_VALUE_BYTES:
                raise TooLong
        if last := "".join(parts):
            yield last

    def whole(self) -> str:
        """Return it in one piece. Raises `Unreadable` if it is too long."""
        parts, total = list[str](), Total()
        for part in self:
            parts.append(part)
            total.add(len(part))
        return "".join(parts)

    def notes(self) -> list[str]:
        """Return what was replaced, after it was read."""
        return self._decoder.notes()


def with_article(kind: str) -> str:
    """Return `a PDF`, `an image`, `an XLSX workbook`."""
    is_spelled = (len(kind) > 1 and kind[1].isupper()) or kind[1:2].isdigit()
    return f"{'an' if kind[0] in ('AEFHILMNORSX' if is_spelled else 'AEIOUaeiou') else 'a'} {kind}"


class TooLong(Exception):
    """A file becomes more than `MAX_VALUE_BYTES` as a value."""


@dataclass(slots=True)
class Total:
    """How much a file becomes as a value, or what is in a file: in characters, or in bytes of JSON."""

    size: int = 0

    def add(self, size: int) -> None:
        """Add to it. Raises `TooLong` for more than a value may have."""
        self.size += size
        if self.size > MAX_VALUE_BYTES:
            raise TooLong


class AsText(NamedTuple):
    """A file stays a text."""

    note: str = ""
    """Why, if its name says otherwise."""


@dataclass(slots=True)
class Parsed:
    """What a file becomes. `value` is JSON; of a long list or text an iterator, which may be read once."""

    kind: str
    """`PDF`, `CSV table`."""
    shape: Literal["str", "list", "dict"]
    value: Any
    """A str, list or dict. Or an iterator: of pieces of a str, or of items of a list."""
    noun: str = "item"
    """What an item of the list or dict is."""
    details: Callable[[], str] | str = ""
    """What else a reader should know, such as the names of columns. A function is called after the items."""
    notes: list[str] = field(default_factory=list)
    """What was left out, replaced, guessed or repaired. Complete when the items have been read."""
    last: Any = None
    """The last item. Known when the items have been read."""
    count: int = 0
    """Characters of a str, items of a list or dict. Known when the items have been read."""

    def whole(self) -> Any:
        """Return the value in memory. Raises `TooLong` before it takes too much of it."""
        if not isinstance(self.value, str | list | dict):
            self.value = "".join(self.value) if self.shape == "str" else self._held(iter(self.value))
        return self.value

    def _held(self, items: Iterator[Any]) -> list[Any]:
        held, total = list[Any](), Total()
        while some := list(islice(items, 1_000)):
            held += some
            total.add(len(dumps(some)))
        return held

    def json(self) -> Iterator[bytes]:
        """Yield its JSON, in the format of the store. Raises `TooLong`."""
        size = replaced = 0
        for piece in self._pieces():
            try:
                data = piece.encode()
            except UnicodeEncodeError:
                clean, count = replace_surrogates(piece)
                data, replaced = clean.encode(), replaced + count
            size += len(data)
            if size > MAX_VALUE_BYTES and self.shape != "str":
                raise TooLong
            yield data
        if replaced:
            self.notes.append(replacement_note(replaced, "lone surrogate"))

    def _pieces(self) -> Iterator[str]:
        if self.shape == "str":
            yield '"'
            for piece in (self.value,) if isinstance(self.value, str) else self.value:
                self.count += len(piece)
                yield dumps(piece)[1:-1]
            yield '"'
        elif self.shape == "list":
            yield "["
            yield from self._items()
            yield "]"
        else:
            self.count = len(self.value)
            yield dumps(self.value)

    def _items(self) -> Iterator[str]:
        waiting, size, separator = list[str](), 0, ""
        for item in self.value:
            self.last = item
            self.count += 1
            waiting.append(dumps(item))
            size += len(waiting[-1])
            if size > BLOCK_BYTES:
                yield separator + ",".join(waiting)
                waiting, size, separator = [], 0, ","
        if waiting:
            yield separator + ",".join(waiting)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, allow_nan=False)


def dumps(value: Any) -> str:
    """Return a value of JSON as the store writes it."""
    return _ENCODER.encode(value)


def library(module: str) -> Any:
    """Return a module of an extra. Raises `MissingDependency` with what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise _missing(module) from error


def check_installed(module: str) -> None:
    """Raise `MissingDependency` for a module of an extra that another process could not import."""
    if find_spec(module) is None:
        raise _missing(module)


def _missing(module: str) -> MissingDependency:
    package, extra = PACKAGES[module.partition(".")[0]]
    return MissingDependency(
        f'this kind of file needs {package}, which is not installed: pip install "rlm-langchain[{extra}]"'
    )
