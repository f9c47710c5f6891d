"""Whether a text is a table, by its first lines: small models miscount the columns of one, unless they are told."""

from __future__ import annotations

import json
from typing import NamedTuple

MARKS = ("\t", "|", ";", ",")
LONGEST = 40
"""Characters of a cell of the first line: where they are longer, it is prose."""


class Table(NamedTuple):
    """How a line is cut, and what the first one is cut into."""

    mark: str
    cells: tuple[str, ...]

    def words(self) -> dict[str, str]:
        """Both as they are written in Python."""
        numbered = (f"[{number}] {_quoted(cell)}" for number, cell in enumerate(self.cells))
        return {"mark": _quoted(self.mark), "cells": ", ".join(numbered)}


def table(preview: str) -> Table | None:
    """The table that a text begins with. The last line of a preview may be cut off, and does not count."""
    lines = preview.split("\n")[:-1]
    if len(lines) < 2 or lines[0].startswith(("{", "[", "#")):
        return None
    return next((Table(mark, cells) for mark in MARKS if (cells := _cells(lines, mark))), None)


def _cells(lines: list[str], mark: str) -> tuple[str, ...]:
    """The cells of the first line, when all lines have as many. A few commas are as likely to be prose."""
    counts = {line.count(mark) for line in lines if line}
    if len(counts) != 1 or max(counts) < (1 if len(lines) > 2 else 3):
        return ()
    cells = tuple(lines[0].split(mark))
    unlikely = mark == "," and (not all(cells[1:]) or any(cell[:1] == " " or cell[:1].isdigit() for cell in cells))
    return () if unlikely or max(map(len, cells)) > LONGEST else cells


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
