"""Pictures of contexts. The REPL has a handle of each, plain JSON; the bytes stay here, in the host.

The `image` of a handle is a hash of the bytes with the key of this home (`signing.py`): it names the content, and a
program cannot make it up, so that it can name no picture but those that its contexts gave it.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

from rlm_langchain.context.atomic import ABANDONED_AFTER, UNFINISHED, remove_if_older, storing, write_file
from rlm_langchain.context.signing import keyed_hash

MAX_IMAGE_BYTES = 64 << 20
"""Most bytes of a picture, or of a PDF with scanned pages."""
MAX_CONTEXT_BYTES = 1 << 30
"""Most bytes that the pictures of a context have together, because each is copied into the store."""
MAX_PIXELS = 51_000_000
"""Most pixels of a picture, enough for any telephone. It is unpacked in memory, with four bytes for each."""
MAX_IMAGES = 20
"""Most pictures in one question: of more, providers scale each down further."""
MAX_EDGE = 1_568
"""Pixels of the longer side to which a picture is scaled down before it is sent. Providers do the same."""

_ID = re.compile("[0-9a-f]{32}")
_HANDLE = re.compile(rb'"image": ?"([0-9a-f]{32})"')
_BLOCK_BYTES = 1 << 20
_MAX_SEGMENTS = 10_000
"""Most segments of a JPEG before its size: there are about ten, and a hundred with a large colour profile."""


class ImageStore:
    """The pictures of one home, by their ids. Nothing is created before the first write."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.folder = home / "images"

    def put(self, data: bytes) -> str:
        """Store a picture, and return its id. Raises `JournalError` if it cannot be written."""
        image = keyed_hash(data, self._home)
        if self.read(image) is not None:
            return image
        path = self._path(image)
        with storing("a picture", self.folder):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(path, data, self.folder)
        return image

    def read(self, image: str) -> bytes | None:
        """Return the bytes of a picture, and mark it as used. None if it is not here.

        A damaged one is removed: it is stored again when its context is passed again.
        """
        if not _ID.fullmatch(image):
            return None
        path = self._path(image)
        with suppress(OSError):
            data = path.read_bytes()
            if keyed_hash(data, self._home) == image and self.touch(image):
                return data
            path.unlink()
        return None

    def touch(self, image: str) -> bool:
        """Mark a picture as used. Return whether it is here."""
        try:
            os.utime(self._path(image))
        except OSError:
            return False
        return True

    def collect(self, older_than: float, contexts: Iterable[Path], *, dry_run: bool = False) -> tuple[int, int]:
        """Remove pictures that were not used for `older_than` seconds and that none of these contexts names.

        Return their number and their bytes. With `dry_run`, nothing is removed.
        """
        before = time.time() - older_than
        old = [path for path in self.folder.glob("*/*") if _last_use(path) < before]
        named = _named_in(contexts) if old else set()
        removed = [remove_if_older(path, before, dry_run=dry_run) for path in old if path.name not in named]
        abandoned = time.time() - ABANDONED_AFTER
        rest = [
            remove_if_older(path, abandoned, dry_run=dry_run) or 0 for path in self.folder.glob(f"{UNFINISHED}*")
        ]
        sizes = [size for size in removed if size is not None]
        return len(sizes), sum(sizes) + sum(rest)

    def _path(self, image: str) -> Path:
        return self.folder / image[:2] / image


class Images:
    """The pictures that a context is found to have while it is read."""

    def __init__(self, store: ImageStore) -> None:
        self._store, self._size = store, 0
        self.ids: dict[str, None] = {}
        self.count = 0
        """Handles that were made."""

    def has_room(self, size: int) -> bool:
        """Return whether a picture of `size` bytes does not take the context past `MAX_CONTEXT_BYTES`."""
        return self._size + size <= MAX_CONTEXT_BYTES

    def handle(self, data: bytes, kind: str, size: tuple[int, int], name: str, **more: Any) -> dict[str, Any]:
        """Store a picture, and return its handle for the REPL."""
        image = self._store.put(data)
        self._size += 0 if image in self.ids else len(data)
        self.ids[image] = None
        self.count += 1
        return {"image": image, "format": kind, "width": size[0], "height": size[1], "name": name, **more}


def handles_in(context: Any) -> list[Any]:
    """Return what a call says that its pictures are. Code may say anything."""
    images = context.get("images") if isinstance(context, dict) else None
    return images if isinstance(images, list) else []


def count_handles(data: bytes) -> int:
    """Return the number of handles in JSON."""
    return len(_HANDLE.findall(data)) if b'"image":' in data else 0


def _named_in(contexts: Iterable[Path]) -> set[str]:
    """Return the ids in contexts. One of several gigabytes is never held in memory."""
    found = set[str]()
    for path in contexts:
        with suppress(OSError), path.open("rb") as file:
            found.update(_ids_in(file))
    return found


def _ids_in(file: BinaryIO) -> Iterator[str]:
    tail = b""
    while block := file.read(_BLOCK_BYTES):
        data = tail + block
        yield from (match.decode() for match in _HANDLE.findall(data))
        tail = data[-64:]  # longer than a handle's `image`, which may lie across two blocks


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return inf


def kind_and_size(stream: BinaryIO) -> tuple[str, tuple[int, int]]:
    """Return the format of a picture and its width and height, by its first bytes. 0 x 0 for a damaged one."""
    stream.seek(0)
    head = stream.read(32)
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "JPEG")
    try:
        width, height = _size(kind, head, stream)
    except struct.error:
        width = height = 0
    return kind, (width, abs(height)) if width > 0 and height else (0, 0)  # a BMP from top to bottom is negative


_MAGIC = {b"\x89PNG": "PNG", b"GIF": "GIF", b"BM": "BMP", b"RIFF": "WebP"}


def _size(kind: str, head: bytes, stream: BinaryIO) -> tuple[int, int]:
    match kind:
        case "PNG":
            width, height = struct.unpack(">II", head[16:24])
        case "GIF":
            width, height = struct.unpack("<HH", head[6:10])
        case "BMP":
            width, height = struct.unpack("<ii", head[18:26])
        case "WebP":
            width, height = _webp_size(head)
        case _:
            width, height = _jpeg_size(stream)
    return width, height


def _webp_size(head: bytes) -> tuple[int, int]:
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(stream: BinaryIO) -> tuple[int, int]:
    """Return the size from the first frame, which comes after other segments."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        stream.seek(at)
        start, marker, length, _, height, width = struct.unpack(">BBHBHH", stream.read(9))
        if start != 0xFF:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return width, height
        at += 1 if marker == 0xFF else 2 + length  # 0xFF may be repeated before a marker
    return 0, 0
