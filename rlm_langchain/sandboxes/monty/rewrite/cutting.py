"""A generator function's body, cut at its yields into blocks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

Loop = tuple[int, int] | None
"""The blocks to go to at `continue` and at `break`."""

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
END = -1
"""The block that a generator goes to when it is over."""


class Uncut(Exception):
    """This generator cannot be cut."""


class Cutting:
    """The blocks of one generator function. The last one begun is being written."""

    def __init__(self) -> None:
        self.blocks: list[list[ast.stmt]] = [[]]
        self.here = 0
        self.iterators: list[str] = []

    def emit(self, statement: ast.stmt) -> None:
        """Add a statement to the block."""
        self.blocks[self.here].append(statement)

    def begin(self, block: int) -> None:
        """Go on writing in another block."""
        self.here = block

    def block(self) -> int:
        """A new block, still empty."""
        self.blocks.append([])
        return len(self.blocks) - 1

    def lower(self, body: list[ast.stmt], loop: Loop) -> None:
        """Write statements, cut at their yields."""
        for statement in body:
            if yields([statement]):
                self._lower_one(statement, loop)
            elif not isinstance(statement, ast.Global | ast.Nonlocal):
                for changed in _Exits(loop).all(statement):
                    self.emit(changed)

    def _lower_one(self, statement: ast.stmt, loop: Loop) -> None:
        match statement:
            case ast.Expr(value=ast.Yield(value=value)):
                self._yield(value, statement)
            case ast.Assign(targets=targets, value=ast.Yield(value=value)) if not _yields_in(targets):
                self._yield(value, statement)
                self.emit(ast.copy_location(ast.Assign(targets, ast.Constant(None)), statement))
            case ast.Expr(value=ast.YieldFrom(value=value)):
                self._for(_each(value, statement))
            case ast.If(test=test) if not _yields_in([test]):
                self._if(statement, loop)
            case ast.While(test=test) if not _yields_in([test]):
                self._while(statement, loop)
            case ast.For(iter=items) if not _yields_in([items]):
                self._for(statement, loop)
            case _:
                raise Uncut

    def _yield(self, value: ast.expr | None, at: ast.stmt) -> None:
        if value is not None and _yields_in([value]):
            raise Uncut
        after = self.block()
        step = ast.Tuple([ast.Constant(after), value or ast.Constant(None)], ast.Load())
        self.emit(returned(step, at))
        self.begin(after)

    def _branch(self, node: ast.stmt, body: list[ast.stmt], way: tuple[int, int], loop: Loop) -> None:
        """Write a part of `node` into a block; `way` is that block, and the one to go on to."""
        self.begin(way[0])
        self.lower(body, loop)
        self.emit(returned(ast.Constant(way[1]), body[-1] if body else node))

    def _if(self, node: ast.If, loop: Loop) -> None:
        body, orelse, after = self.block(), self.block(), self.block()
        self.emit(returned(ast.IfExp(node.test, ast.Constant(body), ast.Constant(orelse)), node))
        self._branch(node, node.body, (body, after), loop)
        self._branch(node, node.orelse, (orelse, after), loop)
        self.begin(after)

    def _while(self, node: ast.While, loop: Loop) -> None:
        head, body, orelse, after = self.block(), self.block(), self.block(), self.block()
        self.emit(returned(ast.Constant(head), node))
        self.begin(head)
        self.emit(returned(ast.IfExp(node.test, ast.Constant(body), ast.Constant(orelse)), node))
        self._branch(node, node.body, (body, head), (head, after))
        self._branch(node, node.orelse, (orelse, after), loop)
        self.begin(after)

    def _for(self, node: ast.For, loop: Loop = None) -> None:
        head, orelse, after = self.block(), self.block(), self.block()
        name = f"_rlm_items{len(self.iterators)}"
        self.iterators.append(name)
        items, end = ast.Name(name, ast.Load()), ast.Name("_rlm_end", ast.Load())
        begun = ast.Call(ast.Name("_rlm_iter", ast.Load()), [node.iter], [])
        self.emit(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], begun), node))
        self.emit(returned(ast.Constant(head), node))
        self.begin(head)
        item = ast.Name("_rlm_item", ast.Store())
        taken = ast.Call(ast.Name("_rlm_next", ast.Load()), [items, end], [])
        self.emit(ast.copy_location(ast.Assign([item], taken), node))
        over = ast.Compare(ast.Name("_rlm_item", ast.Load()), [ast.Is()], [end])
        self.emit(ast.copy_location(ast.If(over, [returned(ast.Constant(orelse), node)], []), node))
        self.emit(ast.copy_location(ast.Assign([node.target], ast.Name("_rlm_item", ast.Load())), node))
        self._branch(node, node.body, (head, head), (head, after))
        self._branch(node, node.orelse, (orelse, after), loop)
        self.begin(after)


def _each(items: ast.expr, at: ast.stmt) -> ast.For:
    """`yield from items` as a loop."""
    step = ast.Expr(ast.Yield(ast.Name("_rlm_each", ast.Load())))
    loop = ast.For(ast.Name("_rlm_each", ast.Store()), items, [ast.copy_location(step, at)], [])
    return ast.copy_location(loop, at)


def returned(value: ast.expr, at: ast.AST) -> ast.Return:
    """A `return`, in the place of another statement."""
    return ast.copy_location(ast.Return(value), at)


class _Exits(ast.NodeTransformer):
    """`return`, and `break` and `continue` of a loop that is cut, as the block to go to."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self._depth = loop, 0

    def all(self, statement: ast.stmt) -> list[ast.stmt]:
        """What the statement becomes."""
        made: Any = self.visit(statement)
        return made if isinstance(made, list) else [made]

    def visit(self, node: ast.AST) -> Any:
        """Change one node."""
        match node:
            case ast.Return(value=value):
                gone = [ast.copy_location(ast.Expr(value), node)] if value is not None else []
                return [*gone, returned(ast.Constant(END), node)]
            case ast.Continue() if self._loop and not self._depth:
                return returned(ast.Constant(self._loop[0]), node)
            case ast.Break() if self._loop and not self._depth:
                return returned(ast.Constant(self._loop[1]), node)
            case ast.For() | ast.While():
                return self._inner_loop(node)
        return node if isinstance(node, (*SCOPES, ast.expr)) else self.generic_visit(node)

    def _inner_loop(self, node: ast.For | ast.While) -> ast.AST:
        """Its body has a loop of its own to leave; its `else` has not."""
        orelse = [changed for statement in node.orelse for changed in self.all(statement)]
        self._depth += 1
        node.body = [changed for statement in node.body for changed in self.all(statement)]
        self._depth -= 1
        node.orelse = orelse
        return node


def inside(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes that belong to the function itself."""
    waiting: list[ast.AST] = [*body]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, SCOPES):
            waiting.extend(ast.iter_child_nodes(node))


def yields(body: list[ast.stmt]) -> bool:
    """Whether there is a yield in the function itself."""
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in inside(body))


def _yields_in(nodes: list[ast.expr]) -> bool:
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for item in nodes for node in ast.walk(item))
