"""Rewrites a cell so that it works in Monty and means the same as in Python.

Monty has no built-in methods as values, no `del`, no lazy `map`, and lacks some names of its modules. Each
change replaces one node of the syntax tree by a call of a prelude function that does what Python does. The rest
of the text is unchanged, and every line can be mapped back.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from rlm_langchain.sandboxes.monty.rewrite import expressions, statements
from rlm_langchain.sandboxes.monty.rewrite.edits import Edits, Tree


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A rewritten cell."""

    code: str
    origins: tuple[int, ...]
    """The original line of each line. Empty if they are the same."""
    modules: frozenset[str]
    """The modules of our prelude that it imports."""


def rewritten(code: str, tree: ast.Module, echo: bool) -> Rewritten:
    """Return the rewritten cell. With `echo`, it shows the value of its last expression."""
    found = Tree(code, tree)
    edits = Edits(found)
    if echo and tree.body and isinstance(last := tree.body[-1], ast.Expr):
        edits.around(last, "_rlm_echo((", "))")
    modules: set[str] = set()
    for node in found.nodes:
        match node:
            case ast.Attribute(ctx=ast.Load()):
                expressions.attribute(node, edits)
            case ast.Call():
                expressions.call(node, edits)
            case ast.GeneratorExp():
                expressions.generator(node, edits)
            case ast.Import() | ast.ImportFrom():
                modules |= statements.imported(node, edits)
            case ast.Delete():
                statements.deleted(node, edits)
            case ast.Try():
                statements.caught(node, edits)
            case ast.ClassDef():
                statements.defined(node, edits)
    changed, origins = edits.applied()
    return Rewritten(changed, origins, frozenset(modules))
