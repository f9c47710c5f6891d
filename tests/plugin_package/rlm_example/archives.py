"""Archives as contexts: a `.zip` or `.tar` (also packed) by its path becomes a dict of its texts, path to text.

Nothing is unpacked to disk, links are not followed, and what unpacks to more than `MOST` bytes is refused.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlm_langchain import InputError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BROKEN = (zipfile.BadZipFile, tarfile.TarError)
MOST = 256 << 20
"""Bytes of all texts together."""

Member = tuple[str, IO[bytes]]


class Archives:
    """A `ContextSource`: asked for paths before our own sources are, which refuse what is no text."""

    def accepts(self, value: Any) -> bool:
        """The path of a file that is called like an archive."""
        return isinstance(value, os.PathLike) and os.fspath(value).endswith(ENDINGS) and os.path.isfile(value)

    def read(self, value: Any) -> dict[str, Any]:
        """Its texts. Raises `InputError` for what is no archive, holds no text, or too much."""
        path = Path(value)
        members = zipped if path.name.endswith(".zip") else tarred
        try:
            texts = dict(read(members(path), path))
        except (*BROKEN, OSError, EOFError, RuntimeError) as error:
            raise InputError(f"{path} cannot be read as an archive ({type(error).__name__}): unpack it") from error
        if not texts:
            raise InputError(f"the archive {path} holds no text")
        return texts


def read(members: Iterator[Member], path: Path) -> Iterator[tuple[str, str]]:
    """The members that are text, counted as they unpack: what an archive says of its sizes is not believed."""
    left = MOST
    for name, file in members:
        data = file.read(left + 1)
        left -= len(data)
        if left < 0:
            raise InputError(f"{path} unpacks to more than {MOST:,} bytes: unpack it, and give the folder")
        if b"\0" not in data:
            yield name, data.decode("utf-8", "replace")


def zipped(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as file:
                    yield member.filename, file


def tarred(path: Path) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file
