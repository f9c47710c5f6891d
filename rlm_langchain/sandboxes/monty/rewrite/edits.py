"""A cell as text and syntax tree, and edits that keep track of the original lines."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass

from rlm_langchain.sandboxes.reserved_names import parse

_EXACT_IN_FSTRINGS = sys.version_info >= (3, 12)


class Tree:
    """Positions of nodes in the text (`ast` counts lines and UTF-8 bytes), and their parents."""

    def __init__(self, code: str, module: ast.Module) -> None:
        self.code = code
        self.nodes = _in_order(module)
        self._parents = {id(child): node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self._lines = code.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self.names = frozenset(_names(self.nodes))

    def parent(self, node: ast.AST) -> ast.AST | None:
        """Return the parent of a node."""
        return self._parents.get(id(node))

    def span(self, node: ast.expr | ast.stmt | ast.alias | ast.ExceptHandler) -> tuple[int, int]:
        """Return the range of a node in characters; the end is exclusive."""
        return (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno or node.lineno, node.end_col_offset or 0),
        )

    def text(self, node: ast.expr) -> str:
        """Return the source of a node."""
        start, end = self.span(node)
        return self.code[start:end]

    def line_start(self, offset: int) -> int:
        """Return the offset of the first character of the line."""
        return self.code.rfind("\n", 0, offset) + 1

    def has_line_to_itself(self, start: int, end: int) -> bool:
        """Return whether the lines of this range contain nothing else but a comment."""
        rest = self.code[end:].partition("\n")[0].strip()
        return not self.code[self.line_start(start) : start].strip(" ") and (not rest or rest.startswith("#"))

    def is_placed(self, node: ast.expr | ast.stmt) -> bool:
        """Return whether the range is reliable. Before 3.12 it may be wrong inside f-strings, so it is checked
        there."""
        if _EXACT_IN_FSTRINGS or not self._in_fstring(node):
            return True
        start, end = self.span(node)
        try:
            there = parse(self.code[start:end].strip()).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return [ast.dump(part) for part in there] == [f"Expr(value={ast.dump(node)})"]

    def _in_fstring(self, node: ast.AST) -> bool:
        around: ast.AST | None = node
        while around is not None and not isinstance(around, ast.JoinedStr | ast.stmt):
            around = self.parent(around)
        return isinstance(around, ast.JoinedStr)

    def _offset(self, line: int, column: int) -> int:
        text = self._lines[line - 1]
        return self._starts[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))


def _in_order(module: ast.Module) -> list[ast.AST]:
    """Return all nodes, outer before inner."""
    nodes: list[ast.AST] = [module]
    for node in nodes:
        nodes.extend(ast.iter_child_nodes(node))
    return nodes


def _names(nodes: list[ast.AST]) -> set[str]:
    """Return every name that the cell binds anywhere. A built-in of that name may be something else here."""
    names: set[str] = set()
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=asname):
                names.add(asname or name)
    return names


@dataclass(frozen=True, slots=True)
class Edit:
    """Text that replaces the characters from `start` to `end`."""

    start: int
    end: int
    text: str
    closes: bool
    """Whether it ends a node that started earlier."""


class Edits:
    """Edits of one cell. Those of outer nodes are added first."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._edits: list[Edit] = []

    def around(self, node: ast.expr | ast.stmt, before: str, after: str) -> None:
        """Insert text before and after a node."""
        if self.tree.is_placed(node):
            start, end = self.tree.span(node)
            self._edits += [Edit(start, start, before, False), Edit(end, end, after, True)]

    def instead(self, node: ast.expr | ast.stmt | ast.alias, text: str) -> None:
        """Replace a node by text."""
        if isinstance(node, ast.alias) or self.tree.is_placed(node):
            self._edits.append(Edit(*self.tree.span(node), text, False))

    def replace(self, start: int, end: int, text: str) -> None:
        """Replace a range by text. Edits inside the range are ignored."""
        if start == end and not text:
            return
        self._edits.append(Edit(start, end, text, False))

    def bound(self, node: ast.Attribute) -> None:
        """Replace `x.name` by `_rlm_method(x, 'name')`."""
        start, end = self.tree.span(node)
        dot = self.tree.code.rfind(".", start, end)
        if self.tree.is_placed(node) and self.tree.code[dot + 1 : end].strip() == node.attr:
            self._edits.append(Edit(start, start, "_rlm_method(", False))
            self._edits.append(Edit(dot, end, f", {node.attr!r})", True))

    def applied(self) -> tuple[str, tuple[int, ...]]:
        """Return the edited code, and the original line of each of its lines (empty if nothing moved)."""
        code, pieces, at = self.tree.code, [], 0
        origins, line = [1], 1
        for edit in self._ordered():
            if edit.start < at:
                continue  # inside of what was replaced
            kept = code[at : edit.start]
            line += kept.count("\n")
            origins += range(line - kept.count("\n") + 1, line + 1)
            origins += [line] * edit.text.count("\n")
            line += code.count("\n", edit.start, edit.end)
            pieces += [kept, edit.text]
            at = edit.end
        origins += range(line + 1, line + 1 + code.count("\n", at))
        pieces.append(code[at:])
        moved = origins != list(range(1, len(origins) + 1))
        return "".join(pieces), tuple(origins) if moved else ()

    def _ordered(self) -> list[Edit]:
        """Return the edits by position. At the same position: ends, inner before outer, then starts, outer
        before inner."""
        numbered = list(enumerate(self._edits))
        numbered.sort(key=lambda item: (item[1].start, not item[1].closes, -item[0] if item[1].closes else item[0]))
        return [edit for _, edit in numbered]
