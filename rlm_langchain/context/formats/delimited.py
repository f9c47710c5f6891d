"""CSV and TSV: a list of rows, dicts by the names of the columns."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

from rlm_langchain.context.describe import count, list_keys, quoted
from rlm_langchain.context.formats.parsed import AsText, Parsed, SourceFile, Text

MAX_CELL = 64 << 20
"""Most characters of a cell."""
EXTRA = "_extra"
"""The key of a list of the cells that a row has too many."""
_NUMBER = re.compile(r"[-+]?[\d.,]*\d%?")


def read_csv(file: SourceFile) -> Parsed | AsText:
    """Read comma-separated values; the delimiter is found out."""
    return _read(file, "CSV table", None)


def read_tsv(file: SourceFile) -> Parsed | AsText:
    """Read tab-separated values."""
    return _read(file, "TSV table", "\t")


def _read(file: SourceFile, kind: str, delimiter: str | None) -> Parsed | AsText:
    text = Text(file)
    lines = text.lines()
    sample = list(islice(lines, 50))
    notes = list[str]()
    if sample and (declared := re.fullmatch(r"sep=([^\r\n\"])\r?\n?", sample[0])):  # as Excel writes and reads
        delimiter, sample = declared[1], sample[1:]
    if delimiter is None:
        delimiter = _delimiter(sample)
    csv.field_size_limit(MAX_CELL)
    rows = csv.reader(chain(sample, lines), delimiter=delimiter)
    try:
        first = next((row for row in rows if any(cell.strip() for cell in row)), None)
    except csv.Error as error:
        return AsText(f"it is no CSV ({error}), so it is read as text")
    if first is None:
        return AsText("it has no rows, so it is read as text")
    names = _names(first, notes)
    is_header = names is not None
    names = names or [f"column_{number}" for number in range(1, len(first) + 1)]
    separated = "" if delimiter in (",", "\t") else f"; separated by {quoted(delimiter)}"
    table = _Rows(rows, names, text, notes)
    return Parsed(
        kind,
        "list",
        table.dicts([] if is_header else [first]),
        "row",
        f"dicts with {count(len(names), 'key')}: {list_keys(names)}; all values are str{separated}",
        table.notes,
    )


class _Rows:
    """The rows of a table, with a count of the ragged ones."""

    def __init__(self, rows: Iterator[list[str]], names: list[str], text: Text, notes: list[str]) -> None:
        self._rows, self._names, self._text, self.notes = rows, names, text, notes
        self._long = self._short = 0
        self._first = 0

    def dicts(self, before: list[list[str]]) -> Iterator[dict[str, str | list[str] | None]]:
        """Yield each row as a dict. Adds notes at the end."""
        number, width = 0, len(self._names)
        try:
            for number, row in enumerate(chain(before, self._rows), 1):
                if len(row) == width:
                    yield dict(zip(self._names, row, strict=True))
                elif row:
                    yield self._ragged(row, number)
        except csv.Error as error:
            self.notes.append(f"damaged: nothing is read after row {number:,} ({error})")
        if self._long or self._short:
            self.notes.append(
                f"{count(self._long + self._short, 'ragged row')}, the first is row {self._first:,}: "
                f"{self._short:,} with missing cells, which are None, {self._long:,} with cells too many, "
                f"which are a list under {quoted(EXTRA)}"
            )
        if self._text.marks % 2:
            self.notes.append("damaged: a quotation mark is not closed, so several rows may have become one")
        self.notes += self._text.notes()

    def _ragged(self, row: list[str], number: int) -> dict[str, str | list[str] | None]:
        self._first = self._first or number
        self._short += len(row) < len(self._names)
        self._long += len(row) > len(self._names)
        cells: list[str | None] = [*row, *[None] * (len(self._names) - len(row))]
        found: dict[str, str | list[str] | None] = dict(zip(self._names, cells, strict=False))
        if extra := row[len(self._names) :]:
            found[EXTRA] = extra
        return found


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter that gives most lines the same number of cells, and more than one."""

    def score(delimiter: str) -> tuple[float, int]:
        try:
            widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        except csv.Error:
            return 0.0, 0
        wide = [(number, width) for width, number in widths.items() if width > 1]
        number, width = max(wide, default=(0, 0))
        return number / max(1, sum(widths.values())), width

    return max((",", ";", "\t", "|"), key=score)


def _names(row: list[str], notes: list[str]) -> list[str] | None:
    """Return the names of columns, each once, or None if the row is no header."""
    if any(_NUMBER.fullmatch(cell.strip()) for cell in row):
        notes.append(f"guessed: there is no header, so the columns are column_1 to column_{len(row)}")
        return None
    names, changed, again = dict[str, None](), list[str](), Counter[str]()
    for number, cell in enumerate(row, 1):
        wanted = name = cell.strip() or f"column_{number}"
        while name in names:
            again[wanted] += 1
            name = f"{wanted}_{again[wanted] + 1}"
        if name != cell.strip():
            changed.append(name)
        names[name] = None
    if changed:
        notes.append(f"guessed: columns without a name of their own are {list_keys(changed)}")
    return [*names]
