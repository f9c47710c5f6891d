"""The names of tools in the REPL: their own names, or similar ones if Python could not use these."""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Collection, Sequence
from keyword import iskeyword
from unicodedata import normalize

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.sandboxes.reserved_names import RESERVED

MAX_NAME_CHARS = 128
"""The most characters of a name, as recommended by MCP."""
PYTHON_NAMES = frozenset(dir(builtins)) | sys.stdlib_module_names
"""Names that a tool must not have: it would hide a builtin function, or an `import` would hide the tool."""
REPL_NAMES = frozenset({"answer", "history"})
"""Variables that cells and the host assign in the REPL, besides `RESERVED`."""


def repl_names(names: Sequence[str], in_use: Collection[str] = ()) -> list[str]:
    """Return the name of each tool in the REPL: its own name if code can use it, else a similar one that is unique.

    `in_use` are further names, such as the helpers of strategies. Raises `ConfigurationError` for
    two tools with the same name, and for a name in `RESERVED`.
    """
    for index, name in enumerate(names):
        if name in RESERVED:
            raise _refusal(name, "the REPL has a function of that name")
        if name in names[:index]:
            raise _refusal(name, "there are two of that name")
    unchanged = {name for name in names if _is_free(name, in_use)}
    used, result = set(unchanged), list[str]()
    for name in names:
        repl_name = name if name in unchanged else _similar_name(name, in_use, used)
        used.add(repl_name)
        result.append(repl_name)
    return result


def is_python_name(name: str) -> bool:
    """Return whether a name is a keyword, a builtin or a module of the standard library."""
    return iskeyword(name) or name in PYTHON_NAMES


def _is_free(name: str, in_use: Collection[str]) -> bool:
    """Return whether code can use this name for a tool, and the tool hides nothing else."""
    is_name = name.isidentifier() and name == normalize("NFKC", name) and len(name) <= MAX_NAME_CHARS
    return is_name and not (
        name[0] == "_" or is_python_name(name) or name in RESERVED | REPL_NAMES or name in in_use
    )


def _similar_name(name: str, in_use: Collection[str], used: Collection[str]) -> str:
    """Return a free name that resembles this one: `_` for each character that Python does not allow, and if that is
    not free either, `tool_` before or a number after it."""
    characters = (character if f"_{character}".isidentifier() else "_" for character in normalize("NFKC", name))
    base = re.sub("_+", "_", "".join(characters)).strip("_")[: MAX_NAME_CHARS - len("tool_9999")] or "tool"
    if not _is_free(base, in_use):
        base = f"tool_{base}"
    candidate, number = base, 1
    while candidate in used or not _is_free(candidate, in_use):
        number += 1
        candidate = f"{base}_{number}"
    return candidate


def _refusal(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"a tool cannot be called {name!r}: {why}. Rename it, as in tool.model_copy(update={{'name': 'my_{name}'}})"
    )
