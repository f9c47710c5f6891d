"""Makes standard output and standard error take whatever is printed.

Characters that a stream cannot encode are escaped, and counted on standard output. Standard error may lose its
reader: what is printed there is then dropped, because a run that is paid for must not end with its progress report.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rlm_langchain.context.describe import count

_ASCII = str.maketrans({"·": "-", "…": "...", "→": "->", "│": "|", "━": "-"})
"""Replacements for the symbols that we print, on a standard error that cannot encode them."""
_escaped: list[str] = []
"""What was escaped on standard output."""
_COMMAND = re.compile(r"`[^`\n]+`")
TERMINAL = "/dev/tty"
"""The terminal of the session that the command runs in."""


class _ReaderOptional:
    """A text stream that drops what it cannot write, and is `lost` from then on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.lost = stream, False

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            if not self.lost:
                self._stream.write(text)
        except OSError:
            self._lose()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            if not self.lost:
                self._stream.flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self.lost = True
        discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient() -> Iterator[None]:
    """Let standard output and standard error take any text, and standard error lose its reader."""
    _escaped.clear()
    codecs.register_error("rlm-escape", _escape)
    codecs.register_error("rlm-plain", _plain)
    for stream, errors in ((sys.stdout, "rlm-escape"), (sys.stderr, "rlm-plain")):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors=errors)  # type: ignore[union-attr]
    before = sys.stdout, sys.stderr
    sys.stderr = cast(TextIO, _ReaderOptional(sys.stderr))
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def discard(stream: TextIO) -> None:
    """Send a stream to nowhere: Python would try again at exit to write what is buffered in it."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # it may be no file
        os.dup2(nowhere.fileno(), stream.fileno())


def say(message: str, end: str = "\n") -> None:
    """Print a message on standard error. On a terminal, its lines end between two words."""
    print(for_stream(message, sys.stderr), end=end, file=sys.stderr, flush=True)


def for_stream(text: str, stream: TextIO) -> str:
    """Break lines that are wider than the terminal between words, and indent what follows like the first line.

    A command in backquotes stays whole, because it may be copied. For a stream that is no terminal, return the text
    as it is.
    """
    if not stream.isatty():
        return text
    try:
        width = max(20, os.get_terminal_size(stream.fileno()).columns)
    except (OSError, ValueError):  # it only says that it is a terminal
        width = 80
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), text)
    return "\n".join(_filled(line, width) for line in whole.split("\n")).replace("\0", " ")


def _filled(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip(" ")))
    return textwrap.fill(
        line, width, subsequent_indent=indent[: width // 2], break_long_words=False, break_on_hyphens=False
    )


def print_somewhere(text: str, end: str = "\n") -> None:
    """Print on standard error or, if that has lost its reader, on the terminal, if there is one."""
    say(text, end)
    if getattr(sys.stderr, "lost", False):
        with suppress(OSError), open(TERMINAL, "w", encoding="utf-8", errors="backslashreplace") as terminal:
            print(text, end=end, file=terminal)


def escape_note() -> str | None:
    """Return what to say of characters that were escaped on standard output, or None if there were none."""
    if not _escaped:
        return None
    number = count(sum(map(len, _escaped)), "character")
    return (
        f"standard output is in {sys.stdout.encoding}, which cannot show {number}: written as escapes, "
        f"such as {ascii(_escaped[0][0])[1:-1]}. PYTHONIOENCODING=utf-8 shows them, --json keeps them"
    )


def _escape(error: UnicodeError) -> tuple[Any, int]:
    if isinstance(error, UnicodeEncodeError):
        _escaped.append(error.object[error.start : error.end])
    return codecs.backslashreplace_errors(error)


def _plain(error: UnicodeError) -> tuple[Any, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    spinner = "".join("*" if "\u2800" <= sign <= "\u28ff" else sign for sign in text)
    return spinner.encode("ascii", "backslashreplace").decode("ascii"), error.end
