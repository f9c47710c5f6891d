"""PDF: a list of pages, each `{"page": 1, "text": ...}`."""

from __future__ import annotations

import io
import threading
from typing import Any

from rlm_langchain.context.describe import count
from rlm_langchain.context.formats.parsed import Parsed, SourceFile, Unreadable, library
from rlm_langchain.errors import MissingDependency

_LOCK = threading.Lock()
"""PDFium may be used by one thread at a time."""
_OCR = "for example with `ocrmypdf FILE text.pdf`"
_PASSWORD = 4
"""PDFium's error for a file that needs a password."""
_MAX_NAMED = 8


def read(file: SourceFile) -> Parsed:
    """Read the text of each page. A damaged file is repaired if it can be, and that is said. Raises
    `Unreadable`."""
    data, notes = file.read(kind="PDF"), list[str]()
    pages = _pages(data, file, notes)
    if pages is None:
        pages = _pages(_repaired(data), file, notes)
        notes.insert(0, "repaired: the PDF is damaged, and pages may be missing")
    if not pages:
        raise _damaged()
    empty = [page["page"] for page in pages if not page["text"].strip()]
    if len(empty) == len(pages):
        raise Unreadable("PDF", "has only pictures, no text", f"recognise the text in it first, {_OCR}")
    if empty:
        where = ", ".join(map(str, empty[:_MAX_NAMED])) + (", ..." if len(empty) > _MAX_NAMED else "")
        notes.append(f"left out: {count(len(empty), 'page')} without text, perhaps scanned: {where}; add it {_OCR}")
    return Parsed("PDF", "list", pages, "page", 'dicts with the keys "page", from 1, and "text"', notes)


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
    try:
        page = document[number]
        text_page = page.get_textpage()
        text = text_page.get_text_bounded()
        text_page.close()
        page.close()
    except pdfium.PdfiumError:
        notes.append(f"left out: page {number + 1}, which is damaged")
        text = ""
    return {"page": number + 1, "text": text.replace("\r\n", "\n").replace("\ufffe", "")}


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
