"""PDF: a list of pages, each `{"page": 1, "text": ...}`. A process of its own reads them: that can be ended.

A page without text, such as a scan, has an `image`, too. That is a handle: the page is drawn when a model is asked
about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import IO, Any

from rlm_langchain.context.describe import count
from rlm_langchain.context.formats import pdf_process
from rlm_langchain.context.formats.parsed import (
    Parsed,
    SourceFile,
    Total,
    Unreadable,
    check_installed,
)
from rlm_langchain.context.images import MAX_EDGE, MAX_IMAGE_BYTES

_OCR = "for example with `ocrmypdf FILE text.pdf`"
_MAX_NAMED = 8
_SIZE = "size"
"""Key of a page without text on which something is drawn, with its size in points, until it has its handle."""
_MAX_SECONDS = 60.0
"""Most seconds for one page."""
_LOOK = 0.1
"""Seconds between two looks at the time of the run."""
_FOR_LIBRARIES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""The environment of the process. It gets no keys."""


def read(file: SourceFile) -> Parsed:
    """Read the text of each page. A damaged file is repaired if it can be, and that is said. Raises
    `Unreadable`."""
    check_installed("pypdfium2")
    notes, pages = list[str](), list[dict[str, Any]]()
    with closing(_lines(file)) as lines:
        _read(lines, notes, pages)
    empty = [page["page"] for page in pages if not page["text"].strip()]
    pictures = _add_images(pages, file)
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


def drawn(data: bytes, page: int) -> bytes:
    """Return a page as a PNG with a longer side of `MAX_EDGE` pixels. Raises `ValueError` if it cannot be drawn."""
    with tempfile.TemporaryFile() as pdf:
        pdf.write(data)
        pdf.seek(0)
        try:
            done = subprocess.run(  # noqa: S603 - our own file
                [*_command(), str(page), str(MAX_EDGE)],
                stdin=pdf,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                timeout=_MAX_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"page {page} takes more than {_MAX_SECONDS:g} s to draw") from error
    if done.returncode or not done.stdout:
        raise ValueError(f"the PDF has no page {page}, or it is damaged")
    return done.stdout


def _numbers(pages: list[int]) -> str:
    return ", ".join(map(str, pages[:_MAX_NAMED])) + (", ..." if len(pages) > _MAX_NAMED else "")


def _add_images(pages: list[dict[str, Any]], file: SourceFile) -> list[int]:
    """Give the pages on which something is drawn a handle, if the PDF can be kept. Return their numbers."""
    found, images = [(page, page.pop(_SIZE)) for page in pages if _SIZE in page], file.reading.images
    if not found or file.size > MAX_IMAGE_BYTES or not images.has_room(file.size):
        return []
    data = file.read(kind="PDF")
    for page, size in found:
        number, scale = page["page"], MAX_EDGE / max(*size, 1)
        width, height = (round(side * scale) for side in size)
        name = f"{file.name} page {number}".strip()
        page["image"] = images.handle(data, "PDF page", (width, height), name, page=number)
    return [page["page"] for page, _ in found]


def _read(lines: Iterator[dict[str, Any]], notes: list[str], pages: list[dict[str, Any]]) -> None:
    """Add the pages, and what is to be said of them."""
    first: dict[str, Any] = next(lines, {"fault": "damaged"})
    if first.get("fault") == "encrypted":
        raise Unreadable(
            "PDF", "encrypted", "remove its password first: `qpdf --decrypt --password=... FILE open.pdf`"
        )
    if not first.get("pages"):
        raise _damaged()
    if first["repaired"]:
        notes.append("repaired: the PDF is damaged, and pages may be missing")
    total = Total()
    for number, line in enumerate(lines, 1):
        if line["text"] is None:
            notes.append(f"left out: page {number}, which is damaged")
        pages.append({"page": number, **line, "text": line["text"] or ""})
        total.add(len(pages[-1]["text"]) + 20)
    if len(pages) < first["pages"]:  # the process has died
        raise _damaged()


def _lines(file: SourceFile) -> Generator[dict[str, Any], None, None]:
    """Yield what the process writes. Raises `Unreadable` if it takes too long, and as `Reading.check`."""
    with tempfile.TemporaryFile() as data:
        data.write(file.read(kind="PDF"))
        data.seek(0)
        process = subprocess.Popen(  # noqa: S603 - our own file
            _command(), stdin=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
    said: SimpleQueue[bytes] = SimpleQueue()
    reader = threading.Thread(target=_pass_on, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        while line := _next(said, file):
            yield json.loads(line)
    finally:
        process.kill()
        process.wait()
        reader.join()


def _command() -> list[str]:
    return [sys.executable, "-I", str(pdf_process.__file__), json.dumps(sys.path)]


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _FOR_LIBRARIES if name in os.environ}


def _pass_on(stream: IO[bytes], said: SimpleQueue[bytes]) -> None:
    with stream:
        for line in stream:
            said.put(line)
    said.put(b"")


def _next(said: SimpleQueue[bytes], file: SourceFile) -> bytes:
    """Return the next line, or nothing at the end."""
    until = time.monotonic() + _MAX_SECONDS
    while time.monotonic() < until:
        file.reading.check()
        try:
            return said.get(timeout=_LOOK)
        except Empty:
            continue
    raise Unreadable(
        "PDF",
        f"has a page that takes more than {_MAX_SECONDS:g} s",
        "extract its text first: `pdftotext FILE a.txt`",
    )


def _damaged() -> Unreadable:
    return Unreadable("PDF", "damaged", "it is cut or changed: get it again where it came from")
