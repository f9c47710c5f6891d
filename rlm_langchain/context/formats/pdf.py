"""PDF: a list of pages, each `{"page": 1, "text": ...}`. A page without text, such as a scan, has an `image`, too.

That is a handle: the page is drawn when a model is asked about it."""

from __future__ import annotations

import io
import threading
from typing import Any

from rlm_langchain.context.describe import count
from rlm_langchain.context.formats.parsed import Parsed, SourceFile, Unreadable, library
from rlm_langchain.context.images import MAX_EDGE, MAX_IMAGE_BYTES
from rlm_langchain.errors import MissingDependency

_LOCK = threading.Lock()
"""PDFium may be used by one thread at a time."""
_OCR = "for example with `ocrmypdf FILE text.pdf`"
_PASSWORD = 4
"""PDFium's error for a file that needs a password."""
_MAX_NAMED = 8
_DRAWINGS = (2, 3, 4, 5)
"""PDFium's numbers of objects on a page that are no text: paths, images, shadings, forms."""
_DRAWN = "drawn"
"""Key of a page without text on which something is drawn, with its size, until it has its handle."""


def read(file: SourceFile) -> Parsed:
    """Read the text of each page. A damaged file is repaired if it can be, and that is said. Raises
    `Unreadable`."""
    data, notes = file.read(kind="PDF"), list[str]()
    pages = _pages(data, file, notes)
    if pages is None:
        data = _repaired(data)
        pages = _pages(data, file, notes)
        notes.insert(0, "repaired: the PDF is damaged, and pages may be missing")
    if not pages:
        raise _damaged()
    empty = [page["page"] for page in pages if not page["text"].strip()]
    pictures = _add_images(pages, data, file)
    if len(empty) == len(pages) and not pictures:
        raise Unreadable("PDF", "has only pictures, no text", f"recognise the text in it first, {_OCR}")
    if pictures:
        notes.append(
            f"left out: the text of {count(len(pictures), 'page')} that may be scanned: {_numbers(pictures)}; each "
            f'has an "image" for a model that sees, or add the text {_OCR}'
        )
    if rest := sorted({*empty} - {*pictures}):
        where = f"without text, perhaps scanned: {_numbers(rest)}"
        notes.append(f"left out: {count(len(rest), 'page')} {where}; add it {_OCR}")
    keys = '"page", from 1, and "text"' + (', and of pages without text "image"' if pictures else "")
    return Parsed("PDF", "list", pages, "page", f"dicts with the keys {keys}", notes)


def image(data: bytes, page: int) -> Any:
    """Draw a page as a Pillow image with a longer side of `MAX_EDGE` pixels. Raises `ValueError` if it cannot."""
    pdfium = library("pypdfium2")
    with _LOCK:
        try:
            document = pdfium.PdfDocument(data)
            try:
                if not 1 <= page <= len(document):
                    raise ValueError(f"the PDF has the pages 1 to {len(document):,}, not {page}")
                drawn = document[page - 1]
                scale = MAX_EDGE / max(*drawn.get_size(), 1)
                return drawn.render(scale=scale).to_pil().copy()  # the bitmap ends with the document
            finally:
                document.close()
        except pdfium.PdfiumError as error:
            raise ValueError(f"page {page} is damaged") from error


def _numbers(pages: list[int]) -> str:
    return ", ".join(map(str, pages[:_MAX_NAMED])) + (", ..." if len(pages) > _MAX_NAMED else "")


def _add_images(pages: list[dict[str, Any]], data: bytes, file: SourceFile) -> list[int]:
    """Give the pages on which something is drawn a handle, if the PDF can be kept. Return their numbers."""
    drawn = [(page, page.pop(_DRAWN)) for page in pages if _DRAWN in page]
    images = file.reading.images
    if len(data) > MAX_IMAGE_BYTES or not images.has_room(len(data)) or not drawn:
        return []
    for page, size in drawn:
        number = page["page"]
        page["image"] = images.handle(data, "PDF page", size, f"{file.name} page {number}".strip(), page=number)
    return [page["page"] for page, _ in drawn]


def _pages(data: bytes, file: SourceFile, notes: list[str]) -> list[dict[str, Any]] | None:
    """Return the pages, or None if the file is damaged. Raises `Unreadable` for an encrypted one."""
    pdfium = library("pypdfium2")
    with _LOCK:
        try:
            document = pdfium.PdfDocument(data)
        except pdfium.PdfiumError as error:
            if getattr(error, "err_code", None) == _PASSWORD or "password" in str(error).lower():
                raise Unreadable(
                    "PDF", "encrypted", "remove its password first: `qpdf --decrypt --password=... FILE open.pdf`"
                ) from error
            return None
        try:
            return [_page(document, number, file, notes) for number in range(len(document))]
        finally:
            document.close()


def _page(document: Any, number: int, file: SourceFile, notes: list[str]) -> dict[str, Any]:
    pdfium = library("pypdfium2")
    file.reading.check()
    drawn: dict[str, Any] = {}
    try:
        page = document[number]
        text_page = page.get_textpage()
        text = text_page.get_text_bounded()
        text_page.close()
        if not text.strip() and next(page.get_objects(_DRAWINGS, max_depth=1), None) is not None:
            width, height = page.get_size()
            scale = MAX_EDGE / max(width, height, 1)
            drawn = {_DRAWN: (round(width * scale), round(height * scale))}
        page.close()
    except pdfium.PdfiumError:
        notes.append(f"left out: page {number + 1}, which is damaged")
        text = ""
    return {"page": number + 1, "text": text.replace("\r\n", "\n").replace("\ufffe", ""), **drawn}


def _repaired(data: bytes) -> bytes:
    """Return the file with a new table of its objects. Raises `Unreadable` if nothing of it can be saved."""
    try:
        pikepdf = library("pikepdf")
    except MissingDependency:
        raise _damaged() from None
    try:
        with pikepdf.open(io.BytesIO(data), suppress_warnings=True) as opened:
            saved = io.BytesIO()
            opened.save(saved)
            return saved.getvalue()
    except (pikepdf.PdfError, ValueError, RuntimeError, RecursionError) as error:
        raise _damaged() from error


def _damaged() -> Unreadable:
    return Unreadable("PDF", "damaged", "it is cut or changed: get it again where it came from")
