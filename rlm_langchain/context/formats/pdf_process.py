"""The process that reads a PDF: its pages go out as lines of JSON, or one of them as a picture.

PDFium cannot be interrupted, and a page of a few bytes may keep it busy for years. This file is run, not imported.
It gets the PDF as its standard input, and what `sys.path` should be as its argument. To draw a page, its number and
the pixels of the longer side follow.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

MAX_MEMORY = 4 << 30
"""Most bytes of address space, where the system can limit it."""
DRAWINGS = (2, 3, 4, 5)
"""PDFium's numbers of objects on a page that are no text: paths, images, shadings, forms."""
PASSWORD = 4
"""PDFium's error for a file that needs a password."""


def main() -> None:
    """Write a line for the file, `{"pages": ...}` or `{"fault": ...}`, and one for each page; or the picture of a
    page."""
    sys.path[:] = json.loads(sys.argv[1])
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with suppress(ImportError, ValueError, OSError):  # Windows; a limit that is lower already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    data, repaired = sys.stdin.buffer.read(), False
    document = _opened(data)
    if document is None:
        document, repaired = _opened(_repaired(data)), True
    if document is None:
        _fail("damaged")
    if len(sys.argv) > 2:
        number, edge = map(int, sys.argv[2:])
        _draw(document, number, edge)
        return
    _say({"pages": len(document), "repaired": repaired})
    for number in range(len(document)):
        _say(_page(document, number))


def _end_with(parent: int) -> None:
    """End when the process that asked has ended, in the middle of a page too."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _say(line: Any) -> None:
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n")
    sys.stdout.buffer.flush()


def _fail(fault: str) -> None:
    _say({"fault": fault})
    sys.exit()


def _opened(data: bytes | None) -> Any:
    import pypdfium2

    if not data:
        return None
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == PASSWORD or "password" in str(error).lower():
            _fail("encrypted")
        return None


def _page(document: Any, number: int) -> dict[str, Any]:
    """Return the text of a page, None if it is damaged; and its size, if it has no text but something is drawn on
    it."""
    import pypdfium2

    try:
        page = document[number]
        text_page = page.get_textpage()
        text: str = text_page.get_text_bounded()
        text_page.close()
        is_drawn = not text.strip() and next(page.get_objects(DRAWINGS, max_depth=1), None) is not None
        size = {"size": page.get_size()} if is_drawn else {}
        page.close()
    except pypdfium2.PdfiumError:
        return {"text": None}
    return {"text": text.replace("\r\n", "\n").replace("\ufffe", ""), **size}


def _draw(document: Any, number: int, edge: int) -> None:
    """Write a page, counted from 1, as a PNG."""
    if not 1 <= number <= len(document):
        sys.exit(1)
    page = document[number - 1]
    picture = page.render(scale=edge / max(*page.get_size(), 1)).to_pil()
    picture.save(sys.stdout.buffer, format="PNG")


def _repaired(data: bytes) -> bytes | None:
    """Return the file with a new table of its objects, or None if nothing of it can be saved."""
    try:
        import pikepdf
    except ImportError:
        return None
    try:
        with pikepdf.open(io.BytesIO(data), suppress_warnings=True) as opened:
            saved = io.BytesIO()
            opened.save(saved)
            return saved.getvalue()
    except (pikepdf.PdfError, ValueError, RuntimeError, RecursionError):
        return None


if __name__ == "__main__":
    main()
