"""XLSX, XLS and ODS: a dict of sheets, each a list of rows."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

from rlm_langchain.context.describe import count, list_keys, quoted
from rlm_langchain.context.formats.cells import Cells
from rlm_langchain.context.formats.parsed import MAX_UNPACKED_BYTES, Parsed, SourceFile, Unreadable, library

_MAX_SHEETS = 8
"""Number of sheets that are described."""
_MAX_CELLS = 20_000_000
"""Most cells of a sheet, empty ones included. A sheet may claim a billion rows."""


def read(file: SourceFile) -> Parsed:
    """Read all sheets. Raises `Unreadable`."""
    calamine = library("python_calamine")
    data = file.read(kind="workbook")
    kind = _kind(data)
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        cells, notes, shown = Cells(), list[str](), list[str]()
        sheets = {}
        for name in book.sheet_names:
            file.reading.check()
            sheets[name], about = _sheet(book, name, cells)
            shown.append(f"{quoted(name)}: {about}")
    except calamine.PasswordError as error:
        raise Unreadable(kind, "encrypted", "save it without a password first") from error
    except (calamine.CalamineError, zipfile.BadZipFile, OSError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(kind, "damaged", "it is cut or changed: get it again, or save it again") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the library's Rust, which derives from BaseException
            raise
        raise Unreadable(kind, "damaged", "it is cut or changed: get it again, or save it again") from error
    empty = [name for name, rows in sheets.items() if not rows]
    if empty:
        notes.append(f"{count(len(empty), 'sheet')} without cells, an empty list: {list_keys(empty)}")
    more = [f"{count(len(shown) - _MAX_SHEETS, 'more sheet')}"] if len(shown) > _MAX_SHEETS else []
    details = "; ".join([*shown[:_MAX_SHEETS], *more])
    return Parsed(kind, "dict", sheets, "sheet", details, [*notes, *cells.notes()])


def _kind(data: bytes) -> str:
    """Return what the workbook is called. Raises `Unreadable` for one that unpacks to too much."""
    if not data.startswith(b"PK"):
        return "XLS workbook"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise Unreadable("XLSX workbook", "damaged", "get it again where it came from") from error
    kind = "ODS workbook" if "content.xml" in names else "XLSX workbook"
    if size > 4 * MAX_UNPACKED_BYTES:
        raise Unreadable(
            kind, f"unpacks to {size >> 20:,} MB", "save the sheet that you need as CSV, and give that"
        )
    return kind


def _sheet(book: Any, name: str, cells: Cells) -> tuple[list[Any], str]:
    """Return the rows of a sheet, and what they are: dicts if the first row names the columns, else lists."""
    sheet = book.get_sheet_by_name(name)
    if sheet.total_height * max(1, sheet.total_width) > _MAX_CELLS:
        raise Unreadable(
            "workbook",
            f"has the sheet {quoted(name)} with {sheet.total_height:,} rows and {sheet.total_width:,} columns, "
            f"more than {_MAX_CELLS:,} cells",
            "save the part that you need as CSV, and give that",
        )
    rows = [_plain_row(row, cells) for row in sheet.to_python(skip_empty_area=False)]
    while rows and not any(cell is not None for cell in rows[-1]):
        rows.pop()
    if not rows:
        return [], "empty"
    if _is_header(rows[0]) and len(rows) > 1:
        keys = rows[0]
        dicts = [dict(zip(keys, row, strict=True)) for row in rows[1:]]
        return dicts, f"list of {count(len(dicts), 'row')}, dicts with the keys {list_keys(keys)}; [0] is row 2"
    lists = f"list of {count(len(rows), 'row')}, lists of {count(len(rows[0]), 'cell')}; [0][0] is cell A1"
    return rows, lists


def _plain_row(row: list[Any], cells: Cells) -> list[Any]:
    """Return cells as JSON: whole numbers as int, as they are shown; None for an empty cell."""
    return [
        (None if cell == "" else cell)
        if type(cell) is str
        else (int(cell) if cell.is_integer() and abs(cell) < 1e15 else cells.plain(cell))
        if type(cell) is float
        else cells.plain(cell)
        for cell in row
    ]


def _is_header(row: list[Any]) -> bool:
    return len(set(row)) == len(row) > 1 and all(
        isinstance(cell, str) and not re.fullmatch(r"[-\d.,% ]+", cell) for cell in row
    )
