"""Pictures as they are sent to a model: scaled down, and encoded again without what cameras write into them."""

from __future__ import annotations

import io
import threading
from typing import Any, NamedTuple

from rlm_langchain.context.formats.parsed import library
from rlm_langchain.context.images import MAX_EDGE, MAX_PIXELS

MAX_PNG_BYTES = 1 << 20
"""Largest picture that is sent as PNG, which keeps every pixel; a larger one is sent as JPEG."""
JPEG_QUALITY = 85
MAX_SCANS = 100
"""Most scans of a JPEG: progressive ones have about ten."""
_SCAN = b"\xff\xda"
_HEAD = 1_024
"""Bytes among which a PDF begins: there may be white space before it."""
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
_LOCK = threading.Lock()
"""One picture is unpacked at a time, because a large one takes 500 MB until it is scaled down."""


class ScaledImage(NamedTuple):
    """A picture to send."""

    data: bytes
    mime_type: str


def scaled(data: bytes, page: int | None = None) -> ScaledImage:
    """Return a picture, or a page of a PDF, with at most `MAX_EDGE` pixels on its longer side. Of an animation, the
    first picture. May take a second.

    Raises `ValueError` for one that is damaged or too large, with the reason.
    """
    if data[:_HEAD].lstrip().startswith(b"%PDF-") != (page is not None):
        raise ValueError("only the handle of a page of a PDF has a page: pass it unchanged")
    if page is not None:
        from rlm_langchain.context.formats.pdf import drawn

        data = drawn(data, page)
    with _LOCK:
        picture, is_jpeg = _opened(data)
        return _encoded(picture, is_jpeg=is_jpeg)


def _opened(data: bytes) -> tuple[Any, bool]:
    """Return a picture in RGB, and whether it was a JPEG."""
    pillow, operations = library("PIL.Image"), library("PIL.ImageOps")
    if data.startswith(b"\xff\xd8") and data.count(_SCAN) > MAX_SCANS:
        raise ValueError(f"it is a JPEG of more than {MAX_SCANS} scans, each of which goes through all pixels")
    try:
        picture = pillow.open(io.BytesIO(data), formats=_FORMATS)
        size, is_jpeg = picture.width * picture.height, picture.format == "JPEG"
        if size <= MAX_PIXELS:  # known before a pixel is unpacked
            picture.draft("RGB", (MAX_EDGE, MAX_EDGE))  # a large JPEG is unpacked at a half, a quarter, an eighth
            picture = _to_scale(picture)
            picture.thumbnail((MAX_EDGE, MAX_EDGE), pillow.Resampling.LANCZOS)
            return _on_white(operations.exif_transpose(picture)), is_jpeg
    except pillow.DecompressionBombError:
        pass
    except Exception as error:
        raise ValueError("it is damaged") from error  # decoders raise whatever they like for damaged bytes
    raise ValueError(f"it has more than {MAX_PIXELS:,} pixels")


def _to_scale(picture: Any) -> Any:
    """Return a picture in a mode that can be scaled: RGBA if parts of it may be transparent, or else RGB."""
    if picture.mode.startswith("I"):  # 16 bits for each pixel, of which a conversion would cut the upper ones
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    is_transparent = picture.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    mode = "RGBA" if is_transparent else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)  # not copied in vain: it may be large


def _on_white(picture: Any) -> Any:
    """Return a picture in RGB. What is transparent becomes white: a model may take it for black."""
    if picture.mode != "RGBA":
        return picture
    white = library("PIL.Image").new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white.convert("RGB")


def _encoded(picture: Any, *, is_jpeg: bool) -> ScaledImage:
    """Return a picture as PNG, unless that is large, or it was a JPEG, which cannot become sharper."""
    if not is_jpeg:
        png = _saved(picture, format="PNG")
        if len(png) <= MAX_PNG_BYTES:
            return ScaledImage(png, "image/png")
    return ScaledImage(_saved(picture, format="JPEG", quality=JPEG_QUALITY), "image/jpeg")


def _saved(picture: Any, **options: Any) -> bytes:
    saved = io.BytesIO()
    picture.info = {}  # where a photograph was taken, and by whom
    picture.save(saved, **options)
    return saved.getvalue()
