"""A folder by its path: a dict of its text files, relative path to text, sorted by path.

Left out, and counted: hidden files, caches and virtual environments, what the folder's own `.gitignore`
names, files that are not text, links to folders and out of the folder, what cannot be read. Whether a file is text
is seen in its first bytes; what is none is not read, and what is one goes into the store block by block.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from rlm_langchain.context import about
from rlm_langchain.context.blobs import Writer
from rlm_langchain.context.data import dumps
from rlm_langchain.context.decoding import BLOCK, SAMPLE, Decoder, not_text, replaced
from rlm_langchain.context.intake import Intake, json_ref
from rlm_langchain.context.safe import one_line
from rlm_langchain.context.seals import Stamp
from rlm_langchain.context.streams import reading
from rlm_langchain.context.walk import Keys, Walk, reason_of
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

LARGEST = 1 << 30
"""Bytes of text that are read: a sandbox holds a dict in memory."""
_NAMES = 7
"""Keys that are remembered to be told: one more than are."""


def accepts(value: Any) -> bool:
    """The path of a folder."""
    return isinstance(value, os.PathLike) and os.path.isdir(value)


def refer(value: os.PathLike[Any], intake: Intake) -> ContextRef:
    """A dict of the files. Raises `InputError` for a folder without readable text, or with too much."""
    root = Path(os.path.realpath(os.fsdecode(value)))
    return refer_beneath(root, root, intake)


def refer_beneath(within: Path, root: Path, intake: Intake) -> ContextRef:
    """A dict of the files of a folder below `within`; nothing that is not below it is read. Both are real paths."""
    reader = _Reader(within, root, intake)
    with intake.blobs.writer() as writer:
        reader.write(writer)
        if not reader.characters:
            raise InputError(
                about.line(f"the folder {one_line(reader.root)} holds no readable text", reader.left_out())
            )
        blob = writer.commit()
    return json_ref(blob, reader.files, reader.about())


class _Reader:
    """Writes the files of a folder as one JSON object, one block in memory at a time."""

    def __init__(self, within: Path, root: Path, intake: Intake) -> None:
        self.root, self._intake = root, intake
        self.walk = Walk(within, root, self._check)
        self.names: list[str] = []
        self.files = self.characters = self.size = self.replaced = self.changed = 0

    def write(self, writer: Writer) -> None:
        """All files, in the form in which `data` keeps JSON."""
        files = self.walk.files()
        keys = Keys(name for name, _ in files)
        writer.write(b"{")
        for name, path in files:
            self._check()
            try:
                with self.walk.open(path) as file:
                    self._write_file(writer, file, name, path, keys)
            except OSError as error:
                self.walk.leave_out(name, reason_of(error))
        writer.write(b"}")

    def about(self) -> str:
        """`dict of 799 files: path -> text, 12,600,000 characters in all (about 3,100,000 tokens); ...`."""
        more = sum(self.walk.left_out.values()) > len(self.walk.named) > 0
        named = ", ".join(self.walk.named) + (", ..." if more else "")
        return about.line(
            f"dict of {about.count(self.files, 'file')}: path -> text, "
            f"{self.characters:,} characters in all ({about.tokens(self.size)})",
            f"{about.count(self.changed, 'file')} changed while being read" if self.changed else "",
            named and f"not read: {named}",
            f"{about.first(self.names)}: {about.names(self.names)}",
            self.left_out(),
            replaced(self.replaced),
        )

    def left_out(self) -> str:
        """How much of each sort was not read, most first."""
        sorts = about.tally(self.walk.left_out)
        return sorts and f"left out: {sorts}"

    def _check(self) -> None:
        """Raise `InputError` when the time is over."""
        self._intake.seconds_left(self.root)

    def _write_file(self, writer: Writer, file: BinaryIO, name: str, path: str, keys: Keys) -> None:
        """A file as one more item of the object, or nothing if it is no text. Raises `OSError` before it begins."""
        stamp = Stamp.at(os.fstat(file.fileno()))
        sample = file.read(min(SAMPLE, stamp.size) or 1)
        if sample is None or (sample and not stamp.size):
            self.walk.leave_out(name, "special")  # a file of the kernel, which has no size and need not end
            return
        decoder = Decoder(one_line(path), sample, strict=self._intake.strict)
        if not_text(sample) or (decoder.utf8 and b"\0" in sample):
            self.walk.leave_out(name, "binary")
            return
        self._make_room(name, stamp.size)
        self._begin(writer, keys.key(name))
        with reading(path):
            left, block = stamp.size - len(sample), sample
            while True:
                text = decoder.decode(block, final=not block)
                writer.write(dumps(text)[1:-1].encode())
                self.characters += len(text)
                self._check()
                if not block:
                    break
                block = file.read(min(BLOCK, left)) if left else b""
                left -= len(block)
            self.changed += Stamp.at(os.fstat(file.fileno())) != stamp
        writer.write(b'"')
        self.replaced += decoder.replaced

    def _begin(self, writer: Writer, key: str) -> None:
        writer.write(f'{"," if self.files else ""}{dumps(key)}:"'.encode())
        self.files += 1
        if len(self.names) < _NAMES:
            self.names.append(key)

    def _make_room(self, name: str, size: int) -> None:
        self.size += size
        if self.size > LARGEST:
            raise InputError(
                f"the folder {one_line(self.root)} holds more than {LARGEST >> 30} GB of text: give a folder in "
                f"it, or join its files into one, which may be of any size; it was too much with "
                f"{about.quoted(name)}, of {size:,} bytes, which a .gitignore could leave out"
            )
