"""Pictures: a handle with format and size, for `llm_query(prompt, images=[...])`. The bytes stay in the host."""

from __future__ import annotations

from rlm_langchain.context.formats.parsed import Parsed, SourceFile, Unreadable, library
from rlm_langchain.context.images import MAX_IMAGE_BYTES, MAX_PIXELS, kind_and_size

SMALLER = "make it smaller first, for example with `magick FILE -resize 1568x1568 small.png`"
_AGAIN = "it is cut or changed: get it again where it came from"


def read(file: SourceFile) -> Parsed:
    """Store the picture, and return its handle. Raises `Unreadable` for a damaged or a huge one."""
    form, (width, height) = kind_and_size(file.stream)
    kind = f"{form} image"
    if not width * height:
        raise Unreadable(kind, "damaged", _AGAIN)
    if width * height > MAX_PIXELS:
        raise Unreadable(kind, f"has more than {MAX_PIXELS // 1_000_000} million pixels", SMALLER)
    images = file.reading.images
    if file.size > MAX_IMAGE_BYTES:
        raise Unreadable(kind, f"has more than {MAX_IMAGE_BYTES >> 20} MB", SMALLER)
    if not images.has_room(file.size):
        raise Unreadable(kind, "is more than a context may hold of pictures", "give fewer at once")
    library("PIL")  # by which it is scaled down before it is sent
    handle = images.handle(file.read(MAX_IMAGE_BYTES, kind), form, (width, height), file.name)
    return Parsed(kind, "dict", handle, "field", f"{width:,} x {height:,} pixels, a handle for a model that sees")
