"""Changes to a cell that mean the same in Python, and work in Monty."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """Text that takes the place of other text."""

    start: int
    end: int
    text: str


def rewritten(code: str, tree: ast.Module, echo: bool) -> tuple[str, tuple[int, ...]]:
    """The code to run, and for each of its lines the line that it came from (empty: the same)."""
    place = Places(code)
    edits: list[Edit] = []
    if echo and tree.body and isinstance(last := tree.body[-1], ast.Expr):
        edits += place.wrap(last, "_rlm_echo((", "))")
    return applied(code, edits), ()


class Places:
    """Where nodes are in the text: `ast` counts lines and UTF-8 bytes."""

    def __init__(self, code: str) -> None:
        self._lines = code.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def offset(self, line: int, column: int) -> int:
        """The character at a place."""
        text = self._lines[line - 1]
        before = column if text.isascii() else len(text.encode()[:column].decode())
        return self._starts[line - 1] + before

    def wrap(self, node: ast.stmt | ast.expr, before: str, after: str) -> list[Edit]:
        """Edits that put text around a node."""
        start = self.offset(node.lineno, node.col_offset)
        end = self.offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
        return [Edit(start, start, before), Edit(end, end, after)]


def applied(code: str, edits: list[Edit]) -> str:
    """The code with all edits made."""
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        code = code[: edit.start] + edit.text + code[edit.end :]
    return code
