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
from rlm_langchain.errors import RLMError


class Format(NamedTuple):
    """A format of files."""

    module: str
    function: str
    version: int = 1
    """Changed whenever the reader makes something else of the same file."""
    is_text: bool = False
    """Whether a file that is too long, or not what its name says, is read as text."""


FORMATS = {
    "csv": Format("delimited", "read_csv", 2, is_text=True),
    "tsv": Format("delimited", "read_tsv", 2, is_text=True),
    "json": Format("json_files", "read_json", is_text=True),
    "jsonl": Format("json_files", "read_lines", is_text=True),
    "ipynb": Format("json_files", "read_notebook", is_text=True),
    "html": Format("markup", "read_html", 2, is_text=True),
    "eml": Format("mail", "read_eml", 2, is_text=True),
    "mbox": Format("mail", "read_mbox", 2, is_text=True),
    "chat": Format("mail", "read_chat", 2, is_text=True),
    "rtf": Format("markup", "read_rtf"),
    "epub": Format("markup", "read_epub"),
    "pdf": Format("pdf", "read", 2),
    "docx": Format("office", "read_docx", 2),
    "pptx": Format("office", "read_pptx", 2),
    "odt": Format("office", "read_odt", 2),
    "odp": Format("office", "read_odp", 2),
    "sheets": Format("sheets", "read"),
    "parquet": Format("columnar", "read_parquet"),
    "arrow": Format("columnar", "read_arrow"),
    "sqlite": Format("databases", "read", 2),
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
    except (RLMError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything for files that are made to mislead them
        return misread(key, error)
    return parsed


def misread(key: str, error: Exception) -> AsText:
    """Return the note of a file that its reader fails on, and which is read as text instead. Raises `Unreadable`
    for formats that are no text."""
    if FORMATS[key].is_text:
        return AsText(f"it cannot be read as {key} ({type(error).__name__}), so it is read as text")
    raise Unreadable(f"{key} file", "damaged", "get it again where it came from, or save it again") from error


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
