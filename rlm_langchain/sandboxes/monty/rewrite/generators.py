"""Generator functions for a Python that has none.

The body is cut at each `yield` into blocks: functions of their own that share the variables and say which block
comes next. It is as lazy as the original. What cannot be cut (a `yield` inside `try` or `with`, or as part of an
expression) is left alone, and Monty refuses it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import copy
from typing import Any, cast

from rlm_langchain.sandboxes.monty.rewrite.cutting import (
    END,
    Cutting,
    Uncut,
    inside,
    returned,
    yields,
)
from rlm_langchain.sandboxes.monty.rewrite.edits import Edits, Tree
from rlm_langchain.sandboxes.reserved_names import parse, parsed

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def without_yields(code: str) -> tuple[str, tuple[int, ...]]:
    """The code without generator functions, and for each line the one that it came from (empty: the same)."""
    module = parsed(code)
    if not isinstance(module, ast.Module):
        return code, ()
    edits = Edits(Tree(code, module))
    for node in edits.tree.nodes:
        if isinstance(node, ast.FunctionDef) and yields(node.body):
            _replace(node, edits)
    return edits.applied()


def _replace(node: ast.FunctionDef, edits: Edits) -> None:
    try:
        made = cast(ast.FunctionDef, _Functions().visit(node))
        text = ast.unparse(ast.fix_missing_locations(_bare(made)))
    except Uncut:
        return
    indent = "\n" + " " * node.col_offset
    start, end = edits.tree.span(node)
    edits.replace(start, end, text.replace("\n", indent), _origins(_bare(made), text))


def _bare(node: ast.FunctionDef) -> ast.FunctionDef:
    """Without its decorators, whose text stays."""
    bare = copy(node)
    bare.decorator_list = []
    return bare


def _origins(made: ast.AST, text: str) -> list[int]:
    """For each line of the new text, the line that its statement had."""
    again = parse(text).body[0]
    lines = [0] * (text.count("\n") + 1)
    statements = (n for n in ast.walk(made) if isinstance(n, ast.stmt))
    for before, now in zip(statements, (n for n in ast.walk(again) if isinstance(n, ast.stmt)), strict=False):
        lines[now.lineno - 1] = before.lineno
    for number in range(1, len(lines)):
        lines[number] = lines[number] or lines[number - 1]
    return lines


class _Functions(ast.NodeTransformer):
    """Cuts a generator function and those inside of it."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        return _cut(node) if yields(node.body) else node


def _cut(node: ast.FunctionDef) -> ast.FunctionDef:
    declared = [item for item in inside(node.body) if isinstance(item, ast.Global | ast.Nonlocal)]
    fixed = {name for item in declared for name in item.names}
    cutting = Cutting()
    cutting.lower(node.body, None)
    cutting.emit(returned(ast.Constant(END), node))
    own = {*_bound(node.body), *cutting.iterators} - fixed
    shared = [*declared, *([ast.Nonlocal(sorted(own))] if own else [])]
    blocks = [_block(number, [*shared, *body]) for number, body in enumerate(cutting.blocks)]
    names = ast.Tuple([ast.Name(block.name, ast.Load()) for block in blocks], ast.Load())
    made = ast.Return(ast.Call(ast.Name("_rlm_Generator", ast.Load()), [names], []))
    outer = [item for item in declared if isinstance(item, ast.Nonlocal)]
    node.body = [*outer, *_unbound(own - _parameters(node)), *blocks, made]
    for item in ast.walk(node):
        if isinstance(item, ast.stmt) and not hasattr(item, "lineno"):
            ast.copy_location(item, node)
    return node


def _block(number: int, body: list[ast.stmt]) -> ast.FunctionDef:
    made = cast(ast.FunctionDef, parse(f"def _rlm_{number}(): pass").body[0])
    made.body = body
    made.lineno = body[-1].lineno
    return made


def _unbound(names: set[str]) -> list[ast.stmt]:
    """Make names local to the function without giving them a value."""
    if not names:
        return []
    targets: list[ast.expr] = [ast.Name(name, ast.Store()) for name in sorted(names)]
    return [ast.If(ast.Constant(0), [ast.Assign(targets, ast.Constant(None))], [])]


def _parameters(node: ast.FunctionDef) -> set[str]:
    return {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}


def _bound(body: list[ast.stmt]) -> set[str]:
    """The variables of the function."""
    names: set[str] = set()
    within = {id(n) for item in inside(body) if isinstance(item, _COMPREHENSIONS) for n in _targets(item)}
    for node in inside(body):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if id(node) not in within:
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=asname):
                names.add((asname or name).partition(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
    return names


def _targets(item: Any) -> Iterator[ast.AST]:
    """The names that a comprehension keeps to itself."""
    return (node for part in item.generators for node in ast.walk(part.target))
