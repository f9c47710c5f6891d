"""The names by which code in the REPL calls tools: their own, or, where Python could not use one, the nearest."""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Collection, Sequence
from keyword import iskeyword
from unicodedata import normalize

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.sandboxes.reserved_names import RESERVED

LONGEST = 128
"""Characters of a name: as many as MCP recommends at most."""
PYTHON = frozenset(dir(builtins)) | sys.stdlib_module_names
"""Names that mean something: a tool would take the place of the function, or lose its name to an `import`."""
REPL = frozenset({"answer", "history"})
"""What cells and the host assign in the REPL, besides the reserved names."""


def repl_names(names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Return what code calls each of these: its own name where that is free, else one like it, which no other has.

    `taken` are names that the REPL has besides its own, such as the helpers of strategies. Raises
    `ConfigurationError` for two of one name, and for a reserved name of the REPL.
    """
    for place, name in enumerate(names):
        if name in RESERVED:
            raise _refused(name, "the REPL has a function of that name")
        if name in names[:place]:
            raise _refused(name, "there are two of that name")
    own = {name for name in names if _is_free(name, taken)}
    used = set(own)
    found = []
    for name in names:
        called = name if name in own else _like(name, taken, used)
        used.add(called)
        found.append(called)
    return found


def is_python(name: str) -> bool:
    """Return whether Python uses this name itself."""
    return iskeyword(name) or name in PYTHON


def _is_free(name: str, taken: Collection[str]) -> bool:
    """Return whether code can call something by this name, and nothing else is lost."""
    is_name = name.isidentifier() and name == normalize("NFKC", name) and len(name) <= LONGEST
    return is_name and not (name[0] == "_" or is_python(name) or name in RESERVED | REPL or name in taken)


def _like(name: str, taken: Collection[str], used: Collection[str]) -> str:
    letters = (letter if f"_{letter}".isidentifier() else "_" for letter in normalize("NFKC", name))
    base = re.sub("_+", "_", "".join(letters)).strip("_")[: LONGEST - len("tool_9999")] or "tool"
    if not _is_free(base, taken):
        base = f"tool_{base}"
    called, number = base, 1
    while called in used or not _is_free(called, taken):
        number += 1
        called = f"{base}_{number}"
    return called


def _refused(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"a tool cannot be called {name!r}: {why}. Rename it, as in tool.model_copy(update={{'name': 'my_{name}'}})"
    )
