"""Changes to a cell that mean the same in Python, and work in Monty.

Monty has no built-in methods as values, no `del`, no lazy `map`; it lacks some names of modules that it has. Each
change is made at one place of the syntax tree and calls a function of the prelude that does what Python does.
The rest of the text stays as it is, and every line can be found again.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from rlm_langchain.sandboxes.monty.rewrite import expressions, statements
from rlm_langchain.sandboxes.monty.rewrite.edits import Edits, Tree


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A cell as it is run."""

    code: str
    origins: tuple[int, ...]
    """For each of its lines the line that it came from; empty when they are the same."""
    modules: frozenset[str]
    """The modules of our library that it imports."""


def rewritten(code: str, tree: ast.Module, echo: bool) -> Rewritten:
    """The cell with all changes made. `echo`: show the value of its last expression."""
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
