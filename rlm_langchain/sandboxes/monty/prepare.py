"""Prepares a cell: parses it, checks it, and rewrites what Monty would interpret differently."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from rlm_langchain.sandboxes.monty.rewrite.program import rewritten
from rlm_langchain.sandboxes.reserved_names import (
    RESERVED,
    bindings,
    overwritten,
    parsed,
)

T = TypeVar("T")

STACK = 64 << 20
"""Stack size for parsing, in bytes. A hostile cell can overflow the 512 KB that threads have on some systems."""


@dataclass(frozen=True, slots=True)
class Source:
    """A cell as the model wrote it, with a mapping from the executed lines to its own."""

    cell: int
    lines: tuple[str, ...]
    origins: tuple[int, ...] = ()
    """The original line of each executed line. Empty if they are the same."""

    def line(self, ran: int) -> int:
        """Return the line of the cell for an executed line."""
        return self.origins[ran - 1] if 0 < ran <= len(self.origins) else ran

    def text(self, line: int) -> str:
        """Return the text of a line, without its indentation."""
        return self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cell that may run."""

    code: str
    source: Source
    names: frozenset[str] = frozenset()
    """The names that it binds in the module."""
    modules: frozenset[str] = frozenset()
    """The modules of our prelude that it imports."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A cell that may not run, and the reason."""

    sentence: str


def prepare(code: str, cell: int, echo: bool = True, reserved: frozenset[str] = RESERVED) -> Prepared | Refused:
    """Prepare a cell. Code that this Python cannot parse is not changed, because Monty's grammar may be newer."""
    return _with_large_stack(lambda: _prepare(code.replace("\r\n", "\n").replace("\r", "\n"), cell, echo, reserved))


def _prepare(code: str, cell: int, echo: bool, reserved: frozenset[str]) -> Prepared | Refused:
    lines = tuple(code.split("\n"))
    tree = parsed(code)
    if isinstance(tree, str):
        return Refused(tree)
    if tree is None:
        return Prepared(code, Source(cell, lines))
    if (sentence := overwritten(tree, reserved) or _unsupported(tree)) is not None:
        return Refused(sentence)
    names = frozenset(name for _, name in bindings(tree))
    try:
        run = rewritten(code, tree, echo)
    except (RecursionError, MemoryError, ValueError, SyntaxError):  # nested too deeply for `ast`
        return Prepared(code, Source(cell, lines), names)
    return Prepared(run.code, Source(cell, lines, run.origins), names, run.modules)


UNSUPPORTED_METHODS = frozenset(
    {"__bool__", "__len__", "__new__", "__setattr__", "__delattr__", "__getattribute__", "__format__", "__del__"}
    | {"__get__", "__set__", "__set_name__", "__init_subclass__"}
)
"""Special methods that Monty never calls, without reporting an error."""


def _unsupported(tree: ast.Module) -> str | None:
    """Return an error message for what Monty would silently do differently from Python, or None."""
    if (line := _returns(tree)) is not None:  # Monty would silently end the cell there
        return (
            f"SyntaxError: 'return' outside function (line {line}): print the value, or answer with FINAL(value). "
            "No code of this cell was run."
        )
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    methods = [item for one in classes for item in one.body if isinstance(item, ast.FunctionDef)]
    for method in methods:
        if method.name in UNSUPPORTED_METHODS:
            return (
                f"NotImplementedError: {method.name} of your own classes is never called here (line "
                f"{method.lineno}): give the class a method of another name, and call it. "
                "No code of this cell was run."
            )
    return None


def _returns(tree: ast.Module) -> int | None:
    """Return the line of the first `return` outside a function."""
    waiting: list[ast.AST] = [*reversed(tree.body)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            return node.lineno
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.expr):
            waiting.extend(reversed([*ast.iter_child_nodes(node)]))
    return None


def _with_large_stack(do: Callable[[], T]) -> T:
    """Run `do` in a thread with a large stack. Other threads that start at the same moment may get one, too."""
    done: Future[T] = Future()
    thread = threading.Thread(target=_run_into, args=(done, do), name="rlm-parse", daemon=True)
    with _STACK_SIZE_LOCK:
        before = threading.stack_size(STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if not done.done():  # the thread ended before it ran `do`, so the result would never come
        _run_into(done, do)
    return done.result()


def _run_into(done: Future[T], do: Callable[[], T]) -> None:
    try:
        done.set_result(do())
    except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
        done.set_exception(error)


_STACK_SIZE_LOCK = threading.Lock()
