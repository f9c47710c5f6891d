"""Finds the names of the REPL that a cell would overwrite, before the cell runs.

This protects a root model from its own mistakes (`context = context[:1000]`, `budget = 5`). It is not a
security boundary: a cell can still reach a name through `globals()` or `exec`. Nothing relies on that, because
answers and calls are read on the host's side only.

Standard library only: this file is also loaded inside the confined worker.
"""

from __future__ import annotations

import _ast as ast  # what `ast` has of this, without the modules that it loads: a third of a worker's first cell
import warnings

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Iterator

RESERVED = frozenset(
    {
        "FINAL",
        "FINAL_VAR",
        "LLMError",
        "SHOW_VARS",
        "_host_call",
        "budget",
        "context",
        "llm_query",
        "llm_query_batched",
        "recursive_lm",
        "rlm_query",
        "rlm_query_batched",
    }
)
"""The names that every REPL defines. `answer` is not among them, because cells may assign it."""

LONGEST = 100_000
"""Longest cell in characters. Parsing takes about 10 us and 1 KB for each of the smallest statements."""

_FILENAME = "<cell>"

_SILENT = [("ignore", None, kind, None, 0) for kind in (SyntaxWarning, DeprecationWarning)]
"""The filters with which a worker starts. It has no other warnings to silence."""

_NOTHING_RAN = "No code of this cell was run."


class _Scope:
    """Where a binding would take effect."""

    MODULE = 0
    COMPREHENSION = 1
    """A comprehension at module level: its targets are local, but `:=` binds in the module."""
    INNER = 2


def refused(code: str, reserved: frozenset[str] = RESERVED) -> str | None:
    """Return a sentence for the model if the cell would bind a reserved name or cannot be parsed, else None.

    Parameters and the local names of functions, lambdas, classes and comprehensions may be called anything.
    Code with a syntax error passes, because the sandbox that runs it reports the error. Never raises. Parsing
    needs the 8 MB stack of a main thread: a hostile cell can overflow the 512 KB that some systems give to
    other threads.
    """
    tree = parsed(code)
    if not isinstance(tree, ast.Module):
        return tree
    return overwritten(tree, reserved)


def overwritten(tree: ast.Module, reserved: frozenset[str] = RESERVED) -> str | None:
    """Return a sentence about the first reserved name that this code would bind, or None."""
    hits = sorted((line, name) for line, name in bindings(tree) if name in reserved)
    if not hits:
        return None
    line, name = hits[0]
    if any(_fetches(node, name) for node, _ in _nodes(tree) if getattr(node, "lineno", 0) == line):
        return f"Line {line} imports `{name}`, which is there already: leave the import out. {_NOTHING_RAN}"
    return _sentence(line, name)


def _fetches(node: ast.AST, name: str) -> bool:
    """Return whether a node takes `name` from a module: `from rlm import name`, `name = rlm.name`."""
    match node:
        case ast.alias(name=imported, asname=alias):
            return imported == name and alias in (None, name)
        case ast.Assign(value=ast.Attribute(attr=attribute)):
            return attribute == name
    return False


def parsed(code: str) -> ast.Module | str | None:
    """Return the syntax tree; a sentence for the model if there can be none; None for a syntax error."""
    if len(code) > LONGEST:
        return f"This cell has {len(code):,} characters; at most {LONGEST:,} are read. {_NOTHING_RAN}"
    _hush()
    try:
        return parse(code, _FILENAME)
    except SyntaxError:
        return None
    except (RecursionError, MemoryError):
        return f"This cell is nested too deeply to be read; write it in steps. {_NOTHING_RAN}"
    except ValueError:
        return f"This cell holds NUL or half a surrogate pair, which no program may. {_NOTHING_RAN}"


def parse(code: str, filename: str = "<unknown>") -> ast.Module:
    """Do what `ast.parse` does, safely with threads. In Python 3.11 they share a depth counter, and it may
    report a false error if others parse or collect garbage meanwhile; then it is tried again."""
    for _ in range(100):
        try:
            return _tree(code, filename)
        except SystemError:
            continue
    return _tree(code, filename)


def _tree(code: str, filename: str) -> ast.Module:
    return compile(code, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)  # type: ignore[return-value]


def _hush() -> None:
    r"""Silence warnings about cells ("\d" is common in them), which would reach the user or be raised as errors.

    `catch_warnings` is not used: it replaces the filters of all threads, and may restore the wrong ones.
    """
    if warnings.filters[:2] == _SILENT:
        return
    first = warnings.filters[0][3] if warnings.filters else None
    if getattr(first, "pattern", None) != _FILENAME:
        warnings.filterwarnings("ignore", module=_FILENAME)


def _sentence(line: int, name: str) -> str:
    refused = f"Line {line} would change `{name}`, a name that the REPL itself needs."
    way_out = f"Use another name, such as `my_{name.strip('_').lower()}`."
    if name == "context":  # What cells mean to do with it is to make something of it.
        way_out = "Use `context` as it is, and give what you make of it another name, such as `data`."
    return f"{refused} {way_out} {_NOTHING_RAN}"


def bindings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of each binding in the module, in no order. It is a loop, so deep nesting is safe."""
    for node, scope in _nodes(tree):
        yield from ((getattr(node, "lineno", 1), name) for name in _bound(node, scope) if name)


def _nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, int]]:
    """Yield all nodes, each with its scope."""
    waiting: list[tuple[ast.AST, int]] = [(tree, _Scope.MODULE)]
    while waiting:
        node, scope = waiting.pop()
        yield node, scope
        waiting += _children(node, scope)


def _bound(node: ast.AST, scope: int) -> list[str | None]:
    """Return the names that this one node binds in the module."""
    match node:
        case ast.Global(names=names):
            return [*names]
        case ast.NamedExpr(target=ast.Name(id=name)) if scope != _Scope.INNER:
            return [name]
    return _bound_by_statement(node) if scope == _Scope.MODULE else []


def _bound_by_statement(node: ast.AST) -> list[str | None]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.alias(name=name, asname=asname):
            return [asname or name.partition(".")[0]]
        case ast.ExceptHandler(name=caught) | ast.MatchAs(name=caught) | ast.MatchStar(name=caught):
            return [caught]
        case ast.MatchMapping(rest=rest):
            return [rest]
    return []


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _children(node: ast.AST, scope: int) -> Iterator[tuple[ast.AST, int]]:
    """Yield the children of a node, each with its scope."""
    inside = scope
    if isinstance(node, _COMPREHENSIONS) and scope == _Scope.MODULE:
        inside = _Scope.COMPREHENSION
    for field in node._fields:
        value = getattr(node, field, None)
        own = isinstance(node, _SCOPES) and field in {"body", "type_params"}
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, _Scope.INNER if own else inside
