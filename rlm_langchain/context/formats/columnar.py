"""Parquet, Arrow and Feather: a list of rows, dicts by the names of the columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rlm_langchain.context.describe import count, list_keys, quoted
from rlm_langchain.context.formats.cells import Cells
from rlm_langchain.context.formats.parsed import Parsed, SourceFile, Unreadable, library

_ROWS = 10_000
"""Rows that are read at once."""
_MAX_TYPES = 12


def read_parquet(file: SourceFile) -> Parsed:
    """Read a Parquet file, a group of rows at a time. Raises `Unreadable`."""
    parquet = library("pyarrow.parquet")
    try:
        opened = parquet.ParquetFile(file.stream)
        return _table("Parquet table", opened.schema_arrow, opened.iter_batches(_ROWS))
    except _errors() as error:
        raise _damaged("Parquet file", error) from error


def read_arrow(file: SourceFile) -> Parsed:
    """Read an Arrow or Feather file. Raises `Unreadable`."""
    library("pyarrow")
    ipc, feather = library("pyarrow.ipc"), library("pyarrow.feather")
    try:
        if file.head.startswith(b"FEA1"):
            table = feather.read_table(file.stream)
            return _table("Feather table", table.schema, table.to_batches(_ROWS))
        opened = ipc.open_file(file.stream)
        batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
        return _table("Arrow table", opened.schema, batches)
    except _errors() as error:
        raise _damaged("Arrow file", error) from error


def _table(kind: str, schema: Any, batches: Iterable[Any]) -> Parsed:
    cells, notes = Cells(), list[str]()
    names = _unique(schema.names)

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in batches:
                columns = [[cells.plain(value) for value in column.to_pylist()] for column in batch.columns]
                yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
        except _errors() as error:
            raise _damaged(kind, error) from error
        notes.extend(cells.notes())

    types = ", ".join(
        f"{quoted(name)} {str(one)[:40]}"
        for name, one in zip(names[:_MAX_TYPES], schema.types[:_MAX_TYPES], strict=True)
    )
    more = ", ..." if len(names) > _MAX_TYPES else ""
    return Parsed(kind, "list", rows(), "row", f"dicts with {count(len(names), 'key')}: {types}{more}", notes)


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise Unreadable(
            "table", f"has two columns of one name ({list_keys(names)})", "save it with a name for each"
        )
    return names


def _errors() -> tuple[type[Exception], ...]:
    return (library("pyarrow").ArrowException, OSError, ValueError)


def _damaged(kind: str, error: Exception) -> Unreadable:
    if isinstance(error, Unreadable):
        return error
    return Unreadable(kind, "damaged", "get it again where it came from, or save it again")
