"""Reads what a root model wrote: which code to run, and whether there is any.

The only place where a model's text decides what is run. It is never given text of the context or a sub-reply.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from typing import NamedTuple

from rlm_langchain.sandboxes.reserved import parse

_OPENING = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+-]*)[^\n`]*$", re.MULTILINE)
_LANGUAGES = {"repl", "python", "py", "python3"}
_PARSED = 200_000
"""Characters of code that are worth parsing to find where a block ends."""
_quiet = threading.Lock()
"""`catch_warnings` changes the process: one thread at a time. The model's odd escapes are no news to the user."""


class ModelReply(NamedTuple):
    """A reply of the root model, taken apart."""

    cells: tuple[str, ...]
    """The code blocks, in order."""
    ignored: tuple[str, ...]
    """The languages of fenced blocks that are not Python: the model is told that they were not run."""


def read_reply(text: str) -> ModelReply:
    """The code in a reply: blocks fenced `repl`, `python`, `py`, and bare ones that hold Python."""
    cells: list[str] = []
    ignored: list[str] = []
    position = 0
    while opening := _OPENING.search(text, position):
        code, position = _block(text, opening)
        language = opening["language"].lower()
        if language in _LANGUAGES or (not language and is_python(code)):
            cells.append(code)
        elif language:
            ignored.append(language)
    return ModelReply(tuple(cell for cell in cells if cell.strip()), tuple(ignored))


def is_python(code: str) -> bool:
    """Whether this is a program, and not a remark that happens to parse."""
    tree = program(code)
    if tree is None:
        return False
    remarks = (isinstance(s, ast.Expr) and isinstance(s.value, ast.Name | ast.Constant) for s in tree.body)
    return not all(remarks)


def _block(text: str, opening: re.Match[str]) -> tuple[str, int]:
    """The code behind an opening fence, and where the text goes on.

    Code may hold fences of its own, in a prompt for instance: the block ends at the first closing fence that
    makes it a program, else at the first of all. A fence that is never closed ends with the text.
    """
    start = min(opening.end() + 1, len(text))
    fence = opening["fence"]
    closing = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
    ends = [*closing.finditer(text, start)]
    if not ends:
        return text[start:], len(text)
    programs = (end for end in ends if program(text[start : end.start()]) is not None)
    end = next(programs, ends[0])
    return text[start : end.start()], end.end()


def program(code: str) -> ast.Module | None:
    """The code as Python reads it; None for what it cannot read, or what is too long to try."""
    if len(code) > _PARSED:
        return None
    try:
        with _quiet, warnings.catch_warnings(action="ignore"):
            return parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
