"""Analyses the code of a run: tokens for highlighting, lines that may have made a batch of calls, turn titles."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

MAX_HIGHLIGHTED_CHARS = 2_000_000
"""Maximum characters of code that a page highlights. If there is more, the page says so."""
KINDS = ("", "keyword", "string", "comment", "number", "name")
"""Kinds of tokens. The page has a colour for each, except for the first."""
MAX_TITLE_CHARS = 72
"""Maximum characters of a turn's title."""
_HOST_FUNCTIONS: Mapping[str, tuple[str, bool]] = {
    "llm_query": ("llm", False),
    "llm_query_batched": ("llm", True),
    "rlm_query": ("rlm", False),
    "rlm_query_batched": ("rlm", True),
    "recursive_lm": ("rlm", False),
    "search": ("search", False),
    "budget": ("budget", False),
}
"""Functions of the REPL that call the host, with the kind of call and whether they make a batch."""
_MIN_PREFIX_CHARS = 6
"""Minimum length of a string literal that identifies a prompt by its beginning."""


class Batch(NamedTuple):
    """A batch of calls made by a cell."""

    kind: str
    size: int
    prefix: str
    """Beginning of the first prompt."""


@dataclass(frozen=True, slots=True)
class CallSite:
    """An expression in the code of a cell that may call the host."""

    line: int
    kind: str | None
    """Kind of call. None: a function of unknown kind."""
    batched: bool
    literals: tuple[str, ...]
    """String literals in its arguments that may begin a prompt."""

    def fits(self, batch: Batch) -> bool:
        """Return whether this call site may have made the batch."""
        return self.kind is None or (self.kind == batch.kind and (self.batched or batch.size == 1))


@cache
def _kind_of_token(token: Any) -> int:
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    kinds = ((Comment, 3), (String, 2), (Number, 4), (Keyword, 1), (Operator.Word, 1))
    found = next((kind for parent, kind in kinds if token in parent), 0)
    named = token in Name.Builtin or token in Name.Function or token in Name.Class or token in Name.Decorator
    return 5 if named and not found else found


@cache
def _lexer() -> Any:
    from pygments.lexers import PythonLexer

    return PythonLexer(stripnl=False, ensurenl=False)


def tokens(code: str) -> list[int]:
    """Return the tokens of Python code as a flat list of lengths and kinds (indices of `KINDS`), alternating."""
    found: list[int] = []
    for _, token, text in _lexer().get_tokens_unprocessed(code):
        kind = _kind_of_token(token)
        if found and found[-1] == kind:
            found[-2] += len(text)
        else:
            found += [len(text), kind]
    return found if found[1:] != [0] else []


class Lines:
    """Finds the lines of a run's cells that may have made its batches of calls. Pass the cells in order.

    Records do not say which line made a call. If several lines match, all of them are returned.
    """

    def __init__(self) -> None:
        self._defined: dict[str, list[CallSite]] = {}
        """Functions defined by earlier cells, with the call sites inside them."""

    def of(self, code: str, batches: Iterable[Batch]) -> list[list[int]]:
        """Return for each batch of a cell the line numbers that may have made it, from 1."""
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return [[] for _ in batches]
        sites = [*self._sites(tree)]
        self._defined |= {name: inner for name, inner in self._functions(tree) if inner}
        return [_lines(sites, batch) for batch in batches]

    def _functions(self, tree: ast.AST) -> Iterator[tuple[str, list[CallSite]]]:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, [*self._sites(node)]

    def _sites(self, tree: ast.AST) -> Iterator[CallSite]:
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        given = {
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        texts = {
            node.targets[0].id: _literals(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        for node in sorted(calls, key=lambda node: node.lineno):
            name = node.func.id  # type: ignore[attr-defined]
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            literals = tuple(text for one in arguments for text in (*_literals(one), *_of_name(one, texts)))
            if name in _HOST_FUNCTIONS:
                yield CallSite(node.lineno, *_HOST_FUNCTIONS[name], literals)
            elif name in self._defined:
                for inner in self._defined[name]:
                    yield CallSite(node.lineno, inner.kind, inner.batched, inner.literals)
            elif name not in own | given and not hasattr(builtins, name) and name not in ("FINAL", "FINAL_VAR"):
                yield CallSite(node.lineno, None, True, literals)


def _literals(node: ast.AST) -> tuple[str, ...]:
    """Return string literals with which the value of this expression may begin."""
    first = (one.values[0] for one in ast.walk(node) if isinstance(one, ast.JoinedStr) and one.values)
    plain = (one for one in ast.walk(node) if isinstance(one, ast.Constant))
    texts = (one.value for one in (*first, *plain) if isinstance(one, ast.Constant) and isinstance(one.value, str))
    return tuple(text for text in texts if len(text) >= _MIN_PREFIX_CHARS)


def _of_name(node: ast.AST, texts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return texts.get(node.id, ()) if isinstance(node, ast.Name) else ()


def _lines(sites: list[CallSite], batch: Batch) -> list[int]:
    known = [site for site in sites if site.fits(batch) and site.kind is not None]
    fitting = known or [site for site in sites if site.fits(batch)]
    matching = [site for site in fitting if any(batch.prefix.startswith(text[:200]) for text in site.literals)]
    return sorted({site.line for site in matching or fitting})


def title(cells: list[str], text: str) -> str:
    """Return a title for a turn: its first comment, or what its code does, or the beginning of the reply."""
    code = "\n".join(cells)
    if not code.strip():
        return _short(text) or "(an empty reply)"
    if comment := re.search(r"^[ \t]*#[ \t]*(\S.{2,})$", code, re.MULTILINE):
        return _short(comment[1])
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _short(code)
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {function.id for function in functions if isinstance(function, ast.Name)}
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    does = [
        f"defines {', '.join(defined[:3])}" if defined else "",
        *(text for names, text in _ACTIONS if called & names),
    ]
    return _short(", ".join(filter(None, does))) or _short(code)


_ACTIONS: tuple[tuple[set[str], str], ...] = (
    ({"search"}, "searches"),
    ({"llm_query", "llm_query_batched"}, "asks models"),
    ({"rlm_query", "rlm_query_batched", "recursive_lm"}, "starts child runs"),
    ({"FINAL", "FINAL_VAR"}, "gives the answer"),
)


def _short(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "").strip("#*> ")
    line = line[:1].upper() + line[1:] if line[:1].isalpha() and "(" not in line.split(" ")[0] else line
    return line if len(line) <= MAX_TITLE_CHARS else f"{line[: MAX_TITLE_CHARS - 1].rstrip()}…"
