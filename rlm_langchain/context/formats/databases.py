"""SQLite: a dict of tables, each a list of rows, dicts by the names of the columns. Nothing is written."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from rlm_langchain.context.describe import count, list_keys, quoted
from rlm_langchain.context.formats.cells import Cells
from rlm_langchain.context.formats.parsed import MAX_UNPACKED_BYTES, MAX_VALUE_BYTES, Parsed, SourceFile, Unreadable

_STEPS = 100_000
"""Steps of SQLite between two looks at the time."""
_VIRTUAL = re.compile(r"CREATE(?:\s|--[^\n]*\n|/\*.*?\*/)+VIRTUAL\b", re.IGNORECASE | re.DOTALL)
_MAX_TABLES = 8
"""Number of tables that are described."""


def read(file: SourceFile) -> Parsed:
    """Read all tables. Raises `Unreadable` for a damaged database, or one that is too large."""
    data = bytearray(file.read(MAX_UNPACKED_BYTES, "SQLite database"))
    if data[18:20] == b"\2\2":  # what was written to its log is in another file; without this it cannot be opened
        data[18:20] = b"\1\1"
    cells, notes = Cells(), list[str]()
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(bytes(data))
        del data
        database.set_progress_handler(lambda: _checked(file), _STEPS)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cell_size_check = ON")
            names = _tables(database, notes)
            tables = dict(_rows(database, names, cells, file, notes))
        except sqlite3.DatabaseError as error:
            file.reading.check()  # SQLite reports the end of the time as its own error
            raise Unreadable(
                "SQLite database", "damaged", "save what can be read: `sqlite3 FILE .recover > rows.sql`"
            ) from error
    log = _unread_log(file)
    shown = "; ".join(
        f"{quoted(name)}: {count(len(rows), 'row')}, keys {list_keys(rows[0]) if rows else 'none'}"
        for name, rows in list(tables.items())[:_MAX_TABLES]
    )
    return Parsed(
        "SQLite database",
        "dict",
        tables,
        "table",
        f"each a list of dicts; {shown}",
        [*notes, *cells.notes(), *([log] if log else [])],
    )


def _checked(file: SourceFile) -> int:
    """Return 0, by which SQLite goes on."""
    file.reading.check()
    return 0


def _tables(database: sqlite3.Connection, notes: list[str]) -> list[str]:
    """Return the names of the tables. Virtual ones need code that may not be there, so they are left out."""
    found = database.execute("SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    left = [name for name, kind, sql in found if kind == "view" or _VIRTUAL.match(sql or "")]
    if left:
        notes.append(f"left out: {count(len(left), 'view or virtual table')} ({list_keys(left)})")
    return [name for name, _, _ in found if name not in left and not name.startswith("sqlite_")]


def _rows(
    database: sqlite3.Connection, names: list[str], cells: Cells, file: SourceFile, notes: list[str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    size = 0
    for name in names:
        keys, computed = _columns(database, name)
        if computed:
            notes.append(
                f"left out: {count(len(computed), 'computed column')} of {quoted(name)} ({list_keys(computed)})"
            )
        cursor = database.execute(f"SELECT {', '.join(map(_quoted, keys)) or 'NULL'} FROM {_quoted(name)}")  # noqa: S608
        rows = list[dict[str, Any]]()
        for row in cursor:
            rows.append(dict(zip(keys, map(cells.plain, row), strict=True)))
            size += sum(len(key) + len(str(value)) for key, value in rows[-1].items())
            if size > MAX_VALUE_BYTES:
                raise Unreadable(
                    "SQLite database",
                    f"has more than {MAX_VALUE_BYTES >> 20} MB of rows",
                    "select what you need of it: `sqlite3 -header -csv FILE 'SELECT ...' > part.csv`",
                )
        file.reading.check()
        yield name, rows


def _columns(database: sqlite3.Connection, name: str) -> tuple[list[str], list[str]]:
    """Return the columns of a table, and those that are computed when they are read, by what the file says."""
    found = database.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (name,)).fetchall()
    return [name for name, hidden in found if hidden in (0, 3)], [name for name, hidden in found if hidden == 2]


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _unread_log(file: SourceFile) -> str:
    """Return a note if there are changes that are only in the log beside the database."""
    beside = f"{file.path}-wal" if file.path else None
    try:
        size = os.path.getsize(beside) if beside else 0
    except OSError:
        return ""
    if not size:
        return ""
    return (
        f"left out: {size:,} bytes of changes in {quoted(os.path.basename(str(beside)))}, which the program that "
        "writes them has not put into the database yet (`PRAGMA wal_checkpoint` does)"
    )
