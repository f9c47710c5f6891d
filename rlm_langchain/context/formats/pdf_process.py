"""The process that reads a PDF: its pages go out as lines of JSON.

PDFium cannot be interrupted, and a page of a few bytes may keep it busy for years. This file is run, not imported.
It gets the PDF as its standard input, and what `sys.path` should be as its argument.
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
PASSWORD = 4
"""PDFium's error for a file that needs a password."""


def main() -> None:
    """Write a line for the file, `{"pages": ...}` or `{"fault": ...}`, and one for each page."""
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
    _say({"pages": len(document), "repaired": repaired})
    for number in range(len(document)):
        _say({"text": _text(document, number)})


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


def _text(document: Any, number: int) -> str | None:
    """Return the text of a page, or None if it is damaged."""
    import pypdfium2

    try:
        page = document[number]
        text_page = page.get_textpage()
        text: str = text_page.get_text_bounded()
        text_page.close()
        page.close()
    except pypdfium2.PdfiumError:
        return None
    return text.replace("\r\n", "\n").replace("\ufffe", "")


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
