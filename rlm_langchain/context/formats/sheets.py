"""XLSX, XLS and ODS: a dict of sheets, each a list of rows."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from typing import IO, Any

from rlm_langchain.context.decoding import BLOCK_BYTES
from rlm_langchain.context.describe import count, list_keys, quoted
from rlm_langchain.context.formats.cells import Cells
from rlm_langchain.context.formats.parsed import MAX_UNPACKED_BYTES, Parsed, SourceFile, Unreadable, library

_TEXTS = "xl/sharedStrings.xml"
_MAX_SHEETS = 8
"""Number of sheets that are described."""
_MAX_CELLS = 10_000_000
"""Most cells of a sheet, empty ones included, which the library keeps in memory too."""
_FAR = re.compile(rb"""R=["'](?:([A-Z]{2,})(\d+)|[A-Z]?(\d{5,}))["']""")
"""A cell or a row of a sheet that is far from its beginning: beyond column Z, or beyond row 9,999."""
_SHARED = re.compile(rb"V>([^<]+)<")
"""What is in a cell: if that is a text, its number among the texts that all cells share."""
_BLANKS, _OVERLAP = b" \t\r\n", 10_000
"""Bytes of a block that are looked at again with the next one, because its end may cut a match."""


def read(file: SourceFile) -> Parsed:
    """Read all sheets. Raises `Unreadable`."""
    calamine = library("python_calamine")
    data = file.read(kind="workbook")
    kind = _kind(data, _Extent(file))
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        cells, shown = Cells(), list[str]()
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
    more = [f"{count(len(shown) - _MAX_SHEETS, 'more sheet')}"] if len(shown) > _MAX_SHEETS else []
    details = "; ".join([*shown[:_MAX_SHEETS], *more])
    return Parsed(kind, "dict", sheets, "sheet", details, cells.notes())


def _kind(data: bytes, extent: _Extent) -> str:
    """Return what the workbook is called. Raises `Unreadable` for one that unpacks to too much."""
    if not data.startswith(b"PK"):
        return "XLS workbook"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if "xl/workbook.bin" in names:
                raise Unreadable("XLSB workbook", "", "save it as .xlsx first: `soffice --convert-to xlsx FILE`")
            kind = "ODS workbook" if "content.xml" in names else "XLSX workbook"
            if _TEXTS in names and archive.getinfo(_TEXTS).file_size <= MAX_UNPACKED_BYTES:
                with archive.open(_TEXTS) as member:
                    extent.share(member.read(MAX_UNPACKED_BYTES))
            for name in names:
                with archive.open(name) as member:
                    extent.check(member, kind)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise Unreadable("XLSX workbook", "damaged", "get it again where it came from") from error
    return kind


class _Extent:
    """Looks through the parts of a workbook before the library does, which ends the process if memory is short."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._size = self._shown = 0
        self._lengths: list[int] = []
        """Bytes of the texts that cells share. Each cell gets a copy."""

    def share(self, texts: bytes) -> None:
        """Take the part of a workbook that has these texts."""
        self._lengths = [*map(len, texts.split(b"</si>"))]

    def check(self, member: IO[bytes], kind: str) -> None:
        """Raise `Unreadable` for a part that unpacks to too much, or a sheet with a cell that is too far away."""
        rows, columns, rest = 0, b"A", b""
        while block := member.read(BLOCK_BYTES * 4):
            self._file.reading.check()
            self._size += len(block)
            block = block.translate(None, _BLANKS).upper()
            if self._size > 2 * MAX_UNPACKED_BYTES:
                raise Unreadable(kind, "unpacks to too much", "save the sheet that you need as CSV, and give that")
            for found in _FAR.finditer(rest + block):
                columns = max(columns, found[1] or b"", key=lambda letters: (len(letters), letters))
                rows = max(rows, int(found[2] or found[3]))
            for letter in range(ord("Z"), columns[0], -1) if len(columns) == 1 else ():
                if b'R="%c' % letter in block or b"R='%c" % letter in block:
                    columns = bytes([letter])
                    break
            self._count(rest, block, kind)
            rest = block[-_OVERLAP:]
            if rows * _number(columns) > _MAX_CELLS:
                raise Unreadable(
                    kind,
                    f"has a sheet of {rows:,} rows and {_number(columns):,} columns",
                    f"more than {_MAX_CELLS:,} cells cannot be read; save the part that you need as CSV",
                )

    def _count(self, rest: bytes, block: bytes, kind: str) -> None:
        """Count the bytes of shared texts that cells show. Raises `Unreadable` for too many."""
        if not self._lengths:
            return
        for found in _SHARED.finditer(rest[-20:] + block):
            number = found[1]
            if not number.isdigit():
                self._shown += max(self._lengths) if b"&" in number else 0
            elif len(number) < 8 and int(number) < len(self._lengths):
                self._shown += self._lengths[int(number)]
        if self._shown > 4 * MAX_UNPACKED_BYTES:
            raise Unreadable(
                kind, "repeats its texts too often", "save the sheet that you need as CSV, and give that"
            )


def _number(letters: bytes) -> int:
    """Return the number of a column: 27 for AA."""
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _sheet(book: Any, name: str, cells: Cells) -> tuple[list[Any], str]:
    """Return the rows of a sheet, and what they are: dicts if the first row names the columns, else lists."""
    sheet = book.get_sheet_by_name(name)
    rows = [_plain_row(row, cells) for row in sheet.to_python(skip_empty_area=False)]
    while rows and not any(cell is not None for cell in rows[-1]):
        rows.pop()
    if not rows:
        return [], "an empty list, because it has no cells"
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
