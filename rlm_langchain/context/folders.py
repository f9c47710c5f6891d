"""A folder by its path: a dict of its text files, relative path to text, sorted by path.

Left out, and counted: hidden files, caches and virtual environments, what the folder's own `.gitignore`
names, files that are not text, links to folders and out of the folder, what cannot be read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rlm_langchain.context import about
from rlm_langchain.context.beneath import opened_file, resolved
from rlm_langchain.context.blobs import Writer
from rlm_langchain.context.data import dumps
from rlm_langchain.context.decoding import SAMPLE, Decoder, not_text, replaced, scrub
from rlm_langchain.context.intake import Intake, json_ref
from rlm_langchain.context.walk import Walk
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

LARGEST = 1 << 30
"""Bytes of text that are read: a sandbox holds a dict in memory."""


def accepts(value: Any) -> bool:
    """The path of a folder."""
    return isinstance(value, os.PathLike) and os.path.isdir(value)


def refer(value: os.PathLike[Any], intake: Intake) -> ContextRef:
    """A dict of the files. Raises `InputError` for a folder without readable text, or with too much."""
    root = Path(os.fsdecode(value)).resolve()
    return refer_beneath(root, root, intake)


def refer_beneath(within: Path, root: Path, intake: Intake) -> ContextRef:
    """A dict of the files of a folder below `within`; nothing that is not below it is read. Both are real paths."""
    reader = _Reader(within, root, strict=intake.strict)
    with intake.blobs.writer() as writer:
        reader.write(writer)
        if not reader.characters:
            raise InputError(about.line(f"the folder {reader.root} holds no readable text", reader.left_out()))
        blob = writer.commit()
    return json_ref(blob, len(reader.names), reader.about())


class _Reader:
    """Writes the files of a folder as one JSON object, one file in memory at a time."""

    def __init__(self, within: Path, root: Path, *, strict: bool) -> None:
        self.within, self.root, self.strict = within, root, strict
        self.walk = Walk(within, root)
        self.names: list[str] = []
        self.characters = self.size = self.replaced = 0

    def write(self, writer: Writer) -> None:
        """All files, in the form in which `data` keeps JSON."""
        writer.write(b"{")
        for name, path in self.walk.files():
            text = self._text(path)
            if text is not None:
                comma = "," if self.names else ""
                self._count(name, text)
                writer.write(f"{comma}{dumps(scrub(name)[0])}:{dumps(text)}".encode())
        writer.write(b"}")

    def about(self) -> str:
        """`dict of 799 files: path -> text, 12,600,000 characters in all (about 3,100,000 tokens); ...`."""
        return about.line(
            f"dict of {about.count(len(self.names), 'file')}: path -> text, "
            f"{self.characters:,} characters in all ({about.tokens(self.size)})",
            f"{about.first(self.names)}: {about.names(self.names)}",
            self.left_out(),
            replaced(self.replaced),
        )

    def left_out(self) -> str:
        """How much of each sort was not read, most first."""
        sorts = about.tally(self.walk.left_out)
        return sorts and f"left out: {sorts}"

    def _text(self, path: str) -> str | None:
        """The text of a file; None, counted, if it is none."""
        try:
            resolved(self.root, Path(path))
            with opened_file(self.within, Path(path)) as file:
                data = file.read()
        except OSError:
            self.walk.left_out["unreadable"] += 1
            return None
        sample = data[:SAMPLE]
        decoder = Decoder(path, sample, strict=self.strict)
        if not_text(sample) or (decoder.utf8 and b"\0" in sample):
            self.walk.left_out["binary"] += 1
            return None
        text = decoder.decode(data, final=True)
        self.replaced += decoder.replaced
        self.size += len(data)
        return text

    def _count(self, name: str, text: str) -> None:
        if self.size > LARGEST:
            raise InputError(
                f"the folder {self.root} holds more than {LARGEST >> 30} GB of text: give a folder in it, "
                "or join its files into one, which may be of any size"
            )
        self.names.append(name)
        self.characters += len(text)
