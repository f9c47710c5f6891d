"""Compiles and runs one cell, and shows its last expression."""

from __future__ import annotations

import _ast as ast

from rlm_langchain.sandboxes.reserved_names import parse
from rlm_langchain.sandboxes.worker.repl.answers import ANSWER_GIVEN
from rlm_langchain.sandboxes.worker.repl.tracebacks import remember, shortened

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    Namespace = dict[str, Any]

SHOWN = 20_000
"""Characters of the last expression that are shown."""

CO_COROUTINE = 0x80
"""As in `inspect`, which would be slow to import."""


def run(code: str, name: str, names: Namespace) -> None:
    """Run a cell. Exceptions of the cell are passed on."""
    tree = parse(code, name)
    remember(name, code)
    _reraise_answers(tree)
    last = _pop_last_expression(tree)
    body = _compiled(tree, name, "exec")
    show = last and _compiled(ast.Expression(last.value), name, "eval")
    _evaluate(body, names)
    if show:
        _show(_evaluate(show, names), as_text=_is_call_of(last, "SHOW_VARS"))


def _pop_last_expression(tree: ast.Module) -> ast.Expr | None:
    """Remove the last statement from the tree and return it, if it is an expression."""
    match tree.body:
        case [*_, ast.Expr() as last]:
            tree.body.pop()
            return last
    return None


def _reraise_answers(tree: ast.Module) -> None:
    """Add a handler at the start of every `try` that passes on the end of an answered cell. A bare `except:`
    around `FINAL` would catch it, and a loop could continue for ever."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Try) and node.handlers:
            at = {name: getattr(node.handlers[0], name) for name in _POSITION}
            kind = ast.Name(ANSWER_GIVEN, ast.Load(), **at)
            node.handlers.insert(0, ast.ExceptHandler(kind, None, [ast.Raise(None, None, **at)], **at))
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            children = getattr(node, field, None)
            waiting += children if isinstance(children, list) else []


_POSITION = ("lineno", "col_offset", "end_lineno", "end_col_offset")


def _compiled(tree: ast.AST, name: str, mode: str) -> CodeType:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compile(tree, name, mode, flags=flags, dont_inherit=True)  # type: ignore[call-overload, no-any-return]


def _evaluate(code: CodeType, names: Namespace) -> Any:
    result = eval(code, names)  # noqa: S307 - running the cell is what this is for
    if code.co_flags & CO_COROUTINE:
        import asyncio

        return asyncio.run(result)
    return result


def _show(value: Any, as_text: bool) -> None:
    if value is not None:
        print(shortened(str(value) if as_text else repr(value), SHOWN))


def _is_call_of(node: ast.Expr | None, name: str) -> bool:
    """Return whether an expression is a call of this function by name."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id=called))):
            return called == name
    return False
