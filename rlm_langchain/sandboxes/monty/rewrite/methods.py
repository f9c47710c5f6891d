"""The methods of Python's own types: Monty has most of them, but only to be called, never as values."""

from __future__ import annotations

import re
from collections import Counter, deque
from functools import cache

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
"""By the names that `type(x).__name__` gives in Monty."""

SPECIAL = {
    "__getitem__": "lambda k: o[k]",
    "__contains__": "lambda x: x in o",
    "__len__": "lambda: len(o)",
    "__str__": "lambda: str(o)",
    "__repr__": "lambda: repr(o)",
}
"""Methods with two underscores that are passed on as values."""

LACKING = frozenset(
    {"translate", "maketrans", "format_map", "is_integer", "bit_length", "bit_count", "subn"}
    | {"intersection_update", "difference_update", "symmetric_difference_update"}
)
"""Methods that Monty does not have at all: the prelude does."""

HELPED = frozenset({"sub", "union", "intersection", "difference"})
"""Methods that Monty has in part."""

DATA = frozenset({"real", "imag", "numerator", "denominator", "conjugate", "maxlen"})
"""Attributes that are no methods, or that nobody passes on."""


def _methods(owner: type) -> list[str]:
    named = (name for name in dir(owner) if not name.startswith("_") and name not in DATA)
    return sorted(name for name in named if callable(getattr(owner, name)))


_ALL = frozenset(name for owner in OWNERS.values() for name in _methods(owner))

VALUES = _ALL | frozenset(SPECIAL)
"""Attributes that may be a method passed on as a value."""

CALLED = LACKING
"""Attributes that are looked up by the prelude even when they are called at once."""


@cache
def tables() -> str:
    """Code that tells the prelude which type has which method, and how to make a value of one."""
    owned = ", ".join(f"{kind!r}: {[*_methods(owner), *SPECIAL]!r}" for kind, owner in OWNERS.items())
    simple = sorted(_ALL - LACKING - HELPED)
    makers = [f"{name!r}: lambda o: lambda *a, **k: o.{name}(*a, **k)" for name in simple]
    makers += [f"{name!r}: lambda o: {value}" for name, value in SPECIAL.items()]
    return f"_rlm_owned = {{{owned}}}\n_rlm_makers = {{{', '.join(makers)}}}\n"
