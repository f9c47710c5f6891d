"""Images: recognised with their size. Only a model that sees could read them, so they are left out."""

from __future__ import annotations

import struct

from rlm_langchain.context.formats.parsed import Parsed, SourceFile, Unreadable

_WAY_OUT = "recognise the text in it first, for example with `tesseract FILE stdout`, and give that"


def read(file: SourceFile) -> Parsed:
    """Raise `Unreadable` with the kind and the size of the picture."""
    kind, size = _kind_and_size(file)
    if kind == "damaged":
        raise Unreadable("image", "damaged", f"only text can be read: {_WAY_OUT}")
    more = f"of {size[0]:,} x {abs(size[1]):,} pixels" if size and all(size) else ""
    raise Unreadable(f"{kind} image", "", f"only text can be read: {_WAY_OUT}", more=more)


def _kind_and_size(file: SourceFile) -> tuple[str, tuple[int, int] | None]:
    head = file.head
    try:
        if head.startswith(b"\x89PNG"):
            return "PNG", struct.unpack(">II", head[16:24])
        if head.startswith(b"GIF"):
            return "GIF", struct.unpack("<HH", head[6:10])
        if head.startswith(b"BM"):
            return "BMP", struct.unpack("<ii", head[18:26])
        if head.startswith(b"RIFF"):
            return "WebP", _webp_size(head)
        return "JPEG", _jpeg_size(head)
    except struct.error:
        return "damaged", None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Return the size from the first frame, or None if it comes after the first bytes."""
    at = 2
    while at + 9 < len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
