"""DataFrames of pandas and polars: a list of rows, dicts by the names of the columns.

They are known by the name of their module, so that neither library need be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlm_langchain.context import describe
from rlm_langchain.context.formats.cells import Cells
from rlm_langchain.context.reference import StoreWriter, json_reference, with_notes
from rlm_langchain.context.sources.json_values import store_json
from rlm_langchain.types import ContextRef


def accepts(value: Any) -> bool:
    """Accept a DataFrame of pandas or polars."""
    kind = type(value)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("pandas", "polars")


def to_reference(value: Any, store_writer: StoreWriter) -> ContextRef | None:
    """Return a reference to the rows, or None if there are none."""
    cells = Cells()
    rows = [{str(name): cells.plain(cell) for name, cell in row.items()} for row in _rows(value)]
    if not rows:
        return None
    blob, note = store_json(rows, store_writer)
    keys = describe.list_keys(rows[0])
    line = f"list of {describe.count(len(rows), 'row')} of a DataFrame ({describe.tokens(blob.size)} as JSON)"
    ref = json_reference(blob, "list", len(rows), describe.join_parts(line, f"dicts with the keys {keys}"))
    return with_notes(ref, [*cells.notes(), note])


def _rows(value: Any) -> Iterator[dict[Any, Any]]:
    """Yield the rows. An index of pandas that says something is columns, too."""
    if hasattr(value, "iter_rows"):
        yield from value.iter_rows(named=True)
        return
    frame = value if type(value.index).__name__ == "RangeIndex" else value.reset_index()
    yield from frame.astype(object).where(frame.notna(), None).to_dict("records")
