"""Formats errors for a program's author: the frames of the cell, without those of the REPL."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from traceback import TracebackException
    from types import TracebackType

LONGEST = 12_000
"""Longest traceback in characters. Of a longer one the middle is left out."""

NO_IMPORT = "llm_query, rlm_query, FINAL and the other functions of this REPL are there without an import"
NO_AWAIT = "the functions of this REPL are called without await; llm_query_batched asks many at once"
HINTS = (
    ("No module named 'rlm", NO_IMPORT),
    ("from 'rlm", NO_IMPORT),
    ("No module named 'repl", NO_IMPORT),
    ("No module named 'tools", NO_IMPORT),
    ("No module named 'functions", NO_IMPORT),
    ("in 'await' expression", NO_AWAIT),
    ("a coroutine or an awaitable is required", NO_AWAIT),
    ("a coroutine was expected", NO_AWAIT),
    ("no running event loop", NO_AWAIT),
    ("'async for' requires", NO_AWAIT),
    ("asynchronous context manager", NO_AWAIT),
)
"""A part of an error, and what to do about it."""
FUNCTIONS = ("llm_query", "rlm_query", "recursive_lm", "FINAL", "SHOW_VARS")
"""If the line that failed to import a module names one of these, it was looked for in that module."""

OWN = ("<cell ", "<helpers>")
"""Prefixes of the file names of frames that are shown."""


_sources: dict[str, str] = {}


def remember(name: str, code: str) -> None:
    """Store the source of a cell, for tracebacks."""
    _sources[name] = code


def described(error: BaseException) -> str:
    """Return the traceback as text. Never raises, whatever the exception does."""
    try:
        is_bare = type(error) is MemoryError and "traceback" not in sys.modules
        return _with_hint(shortened(_without_modules(error) if is_bare else _formatted(error)))
    except BaseException:  # noqa: BLE001 - a hostile __str__ may raise anything
        return f"{_name_of(type(error))}: (the error could not be shown)"


def _with_hint(text: str) -> str:
    """Return a traceback with a hint, if there is one for its error."""
    last_line = text.rpartition("\n")[2]
    hint = next((hint for mark, hint in HINTS if mark in last_line), None)
    if hint is None and "No module named" in last_line and any(name in text for name in FUNCTIONS):
        hint = NO_IMPORT
    return text if hint is None else f"{text}\nHint: {hint}."


_name_of = type.__dict__["__name__"].__get__  # bypasses a metaclass that overrides it


def shortened(text: str, most: int = LONGEST) -> str:
    """Return head and tail of a text, with the number of characters between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... ({len(text) - 2 * half:,} characters left out) ...\n{text[-half:]}"


def _formatted(error: BaseException) -> str:
    import linecache
    import traceback

    for name, code in _sources.items():
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    report = traceback.TracebackException(type(error), error, _own(error.__traceback__), limit=-100)
    for part in _parts(report):
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if f.filename.startswith(OWN)])
    return "".join(report.format()).rstrip("\n")


def _without_modules(error: BaseException) -> str:
    """Return a short traceback without importing anything.

    Modules that are loaded when no memory is left are placed between the program's values, and the memory that
    is freed later is then too fragmented for a large value.
    """
    lines, tb = list[str](), error.__traceback__
    while tb:
        code, number = tb.tb_frame.f_code, tb.tb_lineno
        if code.co_filename.startswith(OWN):
            source = _sources.get(code.co_filename, "").splitlines()[number - 1 : number]
            lines.append(f'  File "{code.co_filename}", line {number}, in {code.co_name}')
            lines += [f"    {line.strip()}" for line in source]
        tb = tb.tb_next
    message = f": {error}" if error.args else ""
    return "\n".join(["Traceback (most recent call last):", *lines[-200:], f"MemoryError{message}"])


def _own(tb: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame of a cell on."""
    while tb and not tb.tb_frame.f_code.co_filename.startswith(OWN):
        tb = tb.tb_next
    return tb


def _parts(report: TracebackException) -> Iterator[TracebackException]:
    """Yield a report with all its causes, contexts and members."""
    waiting: list[TracebackException | None] = [report]
    while waiting:
        part = waiting.pop()
        if part is not None:
            yield part
            waiting += [part.__cause__, part.__context__, *(part.exceptions or [])]
