"""PDF: a list of pages, each `{"page": 1, "text": ...}`. A process of its own reads them: that can be ended."""

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
from rlm_langchain.context.formats.parsed import MAX_VALUE_BYTES, Parsed, SourceFile, TooLong, Unreadable, library

_OCR = "for example with `ocrmypdf FILE text.pdf`"
_MAX_NAMED = 8
_MAX_SECONDS = 60.0
"""Most seconds for one page."""
_LOOK = 0.1
"""Seconds between two looks at the time of the run."""
_FOR_LIBRARIES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""The environment of the process. It gets no keys."""


def read(file: SourceFile) -> Parsed:
    """Read the text of each page. A damaged file is repaired if it can be, and that is said. Raises
    `Unreadable`."""
    library("pypdfium2")
    notes, pages = list[str](), list[dict[str, Any]]()
    with closing(_lines(file)) as lines:
        _read(lines, notes, pages)
    empty = [page["page"] for page in pages if not page["text"].strip()]
    if len(empty) == len(pages):
        raise Unreadable("PDF", "has only pictures, no text", f"recognise the text in it first, {_OCR}")
    if empty:
        where = ", ".join(map(str, empty[:_MAX_NAMED])) + (", ..." if len(empty) > _MAX_NAMED else "")
        notes.append(f"left out: {count(len(empty), 'page')} without text, perhaps scanned: {where}; add it {_OCR}")
    return Parsed("PDF", "list", pages, "page", 'dicts with the keys "page", from 1, and "text"', notes)


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
    size = 0
    for number, line in enumerate(lines, 1):
        if line["text"] is None:
            notes.append(f"left out: page {number}, which is damaged")
        pages.append({"page": number, "text": line["text"] or ""})
        size += len(pages[-1]["text"]) + 20
        if size > MAX_VALUE_BYTES:
            raise TooLong
    if len(pages) < first["pages"]:  # the process has died
        raise _damaged()


def _lines(file: SourceFile) -> Generator[dict[str, Any], None, None]:
    """Yield what the process writes. Raises `Unreadable` if it takes too long, and as `Reading.check`."""
    command = [sys.executable, "-I", str(pdf_process.__file__), json.dumps(sys.path)]
    environment = {name: os.environ[name] for name in _FOR_LIBRARIES if name in os.environ}
    with tempfile.TemporaryFile() as data:
        data.write(file.read(kind="PDF"))
        data.seek(0)
        process = subprocess.Popen(  # noqa: S603 - our own file
            command, stdin=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
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
