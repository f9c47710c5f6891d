"""Rewrites expressions that Monty would interpret differently.

Among them are the methods of Python's own types: Monty can call most of them, but cannot use them as values.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, deque
from functools import cache

from rlm_langchain.sandboxes.monty.rewrite.edits import Edits

OWNERS: dict[str, type] = {
    "str": str,
    "list": list,
    "dict": dict,
    "set": set,
    "frozenset": frozenset,
    "tuple": tuple,
    "bytes": bytes,
    "int": int,
    "float": float,
    "Counter": Counter,
    "deque": deque,
    "Pattern": re.Pattern,
    "Match": re.Match,
}
"""Types by the names that `type(x).__name__` returns in Monty."""

SPECIAL = {
    "__getitem__": "lambda k: o[k]",
    "__contains__": "lambda x: x in o",
    "__len__": "lambda: len(o)",
    "__str__": "lambda: str(o)",
    "__repr__": "lambda: repr(o)",
}
"""Special methods that are passed as values."""

LACKING = frozenset(
    {"translate", "maketrans", "format_map", "is_integer", "bit_length", "bit_count"}
    | {"intersection_update", "difference_update", "symmetric_difference_update"}
)
"""Methods that Monty lacks and the prelude provides."""

HELPED = frozenset({"union", "intersection", "difference"})
"""Methods that Monty supports partly."""

DATA = frozenset({"real", "imag", "numerator", "denominator", "conjugate", "maxlen"})
"""Attributes that are not methods, or that nobody passes as values."""


def _methods(owner: type) -> list[str]:
    named = (name for name in dir(owner) if not name.startswith("_") and name not in DATA)
    return sorted(name for name in named if callable(getattr(owner, name)))


_ALL = frozenset(name for owner in OWNERS.values() for name in _methods(owner))

VALUES = _ALL | frozenset(SPECIAL)
"""Attributes that may be methods passed as values."""


@cache
def tables() -> str:
    """Return code that tells the prelude which type has which method, and how to make a value of one."""
    owned = ", ".join(f"{kind!r}: {[*_methods(owner), *SPECIAL]!r}" for kind, owner in OWNERS.items())
    simple = sorted(_ALL - LACKING - HELPED)
    makers = [f"{name!r}: lambda o: lambda *a, **k: o.{name}(*a, **k)" for name in simple]
    makers += [f"{name!r}: lambda o: {value}" for name, value in SPECIAL.items()]
    return f"_rlm_owned = {{{owned}}}\n_rlm_makers = {{{', '.join(makers)}}}\n"


EAGER = frozenset({"map", "filter", "zip", "enumerate", "reversed"})
"""Built-in functions that return an iterator in Python, and a list in Monty."""

CONSUMERS = frozenset(
    {"all", "any", "dict", "enumerate", "frozenset", "list", "max", "min", "set", "sorted", "sum", "tuple"}
    | {"Counter", "deque", "join", "extend", "update", "fsum", "prod", "mean", "median"}
)
"""Functions that consume an iterable at once, so that a list is equivalent."""

KEYED = frozenset({"sorted", "max", "min"})
TYPES = frozenset({"str", "list", "dict", "set", "tuple", "bytes", "int", "float", "frozenset"})
PLAIN_KEYS = frozenset({"len", "str", "int", "float", "abs", "sum", "min", "max", "repr", "tuple", "sorted", "ord"})
VERBOSE = frozenset({"VERBOSE", "X"})


def attribute(node: ast.Attribute, edits: Edits) -> None:
    """Rewrite a method that is used as a value, or that Monty lacks."""
    around = edits.tree.parent(node)
    if not (isinstance(around, ast.Call) and around.func is node):
        if node.attr in VALUES:
            edits.bound(node)
    elif node.attr in LACKING or _of_type(node) or _needs_help(node.attr, around):
        edits.bound(node)


def _of_type(node: ast.Attribute) -> bool:
    """Return whether it has the form `str.lower(x)`."""
    return isinstance(node.value, ast.Name) and node.value.id in TYPES and node.attr in VALUES


def _needs_help(name: str, call: ast.Call) -> bool:
    """Return whether Monty's own method handles this call only partly."""
    if name in {"union", "intersection", "difference"}:
        return len(call.args) != 1 or isinstance(call.args[0], ast.Starred)
    return False


def call(node: ast.Call, edits: Edits) -> None:
    """Rewrite calls of built-in functions that return lists here, or that cannot call a model from a key."""
    if isinstance(node.func, ast.Attribute) and node.func.attr == "finditer":
        _as_iterator(node, edits)
    if not isinstance(node.func, ast.Name) or node.func.id in edits.tree.names:
        return
    if node.func.id in EAGER:
        _as_iterator(node, edits)
    elif node.func.id in KEYED and any(word.arg == "key" and _may_ask(word.value) for word in node.keywords):
        edits.instead(node.func, f"_rlm_{node.func.id}")


def _may_ask(key: ast.expr) -> bool:
    """Return whether a key function may call a function of the cell, which may call a model."""
    if isinstance(key, ast.Name):
        return key.id not in PLAIN_KEYS
    called = (node.func for node in ast.walk(key) if isinstance(node, ast.Call))
    return any(isinstance(func, ast.Name) and func.id not in PLAIN_KEYS for func in called)


def generator(node: ast.GeneratorExp, edits: Edits) -> None:
    """Rewrite a generator expression, which is a list in Monty."""
    _as_iterator(node, edits)


def _as_iterator(node: ast.expr, edits: Edits) -> None:
    """Make the list an iterator if it is stored, passed to a function that may be lazy, or passed to `next`."""
    around = edits.tree.parent(node)
    match around:
        case ast.For() | ast.comprehension() | ast.Starred() | ast.Expr():
            return
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CONSUMERS | EAGER:
            return
        case ast.Call() if isinstance(node, ast.GeneratorExp) and _shares_parentheses(node, around, edits):
            edits.around(node, "(iter(", "))")
            return
    edits.around(node, "iter(", ")")


def _shares_parentheses(node: ast.GeneratorExp, around: ast.Call, edits: Edits) -> bool:
    """Return whether the expression is the only argument, as in `f(x for x in y)`."""
    return edits.tree.span(node)[1] == edits.tree.span(around)[1]
