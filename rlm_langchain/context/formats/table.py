"""The formats that are read, and their readers. A reader is imported when a file of its format is read."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from rlm_langchain.context.decoding import why_not_text
from rlm_langchain.context.formats.detect import format_of
from rlm_langchain.context.formats.parsed import (
    MAX_VALUE_BYTES,
    AsText,
    Parsed,
    SourceFile,
    Text,
    TooLong,
    Unreadable,
)


class Format(NamedTuple):
    """A format of files."""

    module: str
    function: str
    version: int = 1
    """Changed whenever the reader makes something else of the same file."""
    is_text: bool = False
    """Whether a file that is too long, or not what its name says, is read as text."""


FORMATS = {
    "csv": Format("delimited", "read_csv", is_text=True),
    "tsv": Format("delimited", "read_tsv", is_text=True),
    "json": Format("json_files", "read_json", is_text=True),
    "jsonl": Format("json_files", "read_lines", is_text=True),
    "ipynb": Format("json_files", "read_notebook", is_text=True),
    "html": Format("markup", "read_html", is_text=True),
    "eml": Format("mail", "read_eml", is_text=True),
    "mbox": Format("mail", "read_mbox", is_text=True),
    "chat": Format("mail", "read_chat", is_text=True),
    "rtf": Format("markup", "read_rtf"),
    "epub": Format("markup", "read_epub"),
    "pdf": Format("pdf", "read", version=2),
    "docx": Format("office", "read_docx"),
    "pptx": Format("office", "read_pptx"),
    "odt": Format("office", "read_odt"),
    "odp": Format("office", "read_odp"),
    "sheets": Format("sheets", "read"),
    "parquet": Format("columnar", "read_parquet"),
    "arrow": Format("columnar", "read_arrow"),
    "sqlite": Format("databases", "read"),
    "zip": Format("archives", "read_zip"),
    "tar": Format("archives", "read_tar"),
    "gz": Format("archives", "read_gz"),
    "bz2": Format("archives", "read_bz2"),
    "xz": Format("archives", "read_xz"),
    "zst": Format("archives", "read_zst"),
    "image": Format("images", "read"),
}
"""By the key that `detect.format_of` returns."""


def parsed_of(file: SourceFile) -> Parsed | AsText:
    """Return what a file becomes. Raises `Unreadable` and `MissingDependency`."""
    key = format_of(file)
    if key is None:
        return AsText()
    return read_as(file, key)


def read_as(file: SourceFile, key: str) -> Parsed | AsText:
    """Return what a file of this format becomes. Raises as `parsed_of`."""
    found = FORMATS[key]
    file.stream.seek(0)
    try:
        read = getattr(import_module(f"rlm_langchain.context.formats.{found.module}"), found.function)
        parsed: Parsed | AsText = read(file)
    except TooLong:
        return too_long(file, found)
    return parsed


def too_long(file: SourceFile, found: Format) -> AsText:
    """Return the note of a text that is too long for its format. Raises `Unreadable` for other formats."""
    if found.is_text:
        return AsText(f"it is more than {MAX_VALUE_BYTES >> 20} MB as a value, so it is read as text")
    raise Unreadable(
        "file", f"is more than {MAX_VALUE_BYTES >> 20} MB as a value", "split it, or give the part that you need"
    )


def value_of(file: SourceFile) -> tuple[Any, Parsed | None]:
    """Return what a file becomes as a value in memory, and its description; of a text, None. Raises as
    `parsed_of`."""
    parsed = parsed_of(file)
    if isinstance(parsed, Parsed):
        return parsed.whole(), parsed
    if why_not_text(file.head):
        raise Unreadable("binary file", "", "export what you need of it as text first")
    text = Text(file)
    whole = text.whole()
    notes = [*([parsed.note] if parsed.note else []), *text.notes()]
    return whole, Parsed("text", "str", whole, notes=notes) if notes else None
