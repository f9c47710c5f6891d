"""The ZIP files that documents are kept in, and the XML in them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from rlm_langchain.context.formats.parsed import (
    FREE_BYTES,
    MAX_RATIO,
    MAX_UNPACKED_BYTES,
    SourceFile,
    Unreadable,
    library,
)

_AGAIN = "it is cut or changed: get it again where it came from"


class Package:
    """A document in a ZIP file. Everything that it raises is `Unreadable`."""

    def __init__(self, file: SourceFile, kind: str) -> None:
        self._kind, self._file = kind, file
        library("lxml")
        try:
            self._archive = zipfile.ZipFile(file.stream)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise Unreadable(kind, "damaged", _AGAIN) from error
        self.names = frozenset(self._archive.namelist())
        self._size = 0

    def __enter__(self) -> Package:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def read(self, name: str) -> bytes:
        """Return a part."""
        try:
            with self._archive.open(name) as part:
                data = part.read(MAX_UNPACKED_BYTES - self._size + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError, KeyError) as error:
            raise Unreadable(self._kind, "damaged", _AGAIN) from error
        self._file.reading.check()
        self._size += len(data)
        bomb = self._size > FREE_BYTES and self._size > MAX_RATIO * self._file.size
        if self._size > MAX_UNPACKED_BYTES or bomb:
            raise Unreadable(
                self._kind, "unpacks to too much", "save it again, or give the part that you need as text"
            )
        return data

    def xml(self, name: str) -> Any:
        """Return the root element of a part. Nothing outside of it is read, and entities are not expanded."""
        etree = library("lxml.etree")
        try:
            parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
            return etree.fromstring(self.read(name), parser)
        except etree.XMLSyntaxError as error:
            raise Unreadable(self._kind, "damaged", _AGAIN) from error

    def xml_or_none(self, name: str) -> Any:
        """Return the root element of a part, or None if there is no such part."""
        return self.xml(name) if name in self.names else None

    def targets(self, name: str) -> dict[str, tuple[str, str]]:
        """Return the parts that a part refers to: by their number, the end of their type and their name."""
        folder, _, base = name.rpartition("/")
        found = self.xml_or_none(f"{folder}/_rels/{base}.rels")
        if found is None:
            return {}
        return {
            one.get("Id"): (one.get("Type", "").rpartition("/")[2], _joined(folder, one.get("Target", "")))
            for one in found
            if one.get("TargetMode") != "External"
        }


def nearest(parent: Any, *tags: str) -> Iterator[Any]:
    """Yield the elements of these tags below another. Who reads one of them reads those that are in it."""
    for child in parent:
        if child.tag in tags:
            yield child
        else:
            yield from nearest(child, *tags)


def _joined(folder: str, target: str) -> str:
    if target.startswith("/"):
        return target[1:]
    parts = folder.split("/")
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts = [*parts, part]
    return "/".join(filter(None, parts))
