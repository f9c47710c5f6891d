"""Standard output and standard error, whatever they can show: what they cannot is escaped, and counted."""

from __future__ import annotations

import codecs
import sys
from typing import Any

from rlm_langchain.context.describe import count

_PLAIN = str.maketrans({"·": "-", "…": "...", "→": "->", "│": "|", "━": "-"})
"""Signs of our own, for a standard error that does not have them."""
_escaped: list[str] = []
"""What was escaped on standard output."""


def prepare() -> None:
    """Let standard output and standard error take any text: no answer is lost to an encoding."""
    _escaped.clear()
    codecs.register_error("rlm-escape", _escape)
    codecs.register_error("rlm-plain", _plain)
    for stream, errors in ((sys.stdout, "rlm-escape"), (sys.stderr, "rlm-plain")):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors=errors)  # type: ignore[union-attr]


def escaped() -> str | None:
    """What to tell of standard output when something was escaped in it; None when nothing was."""
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
    text = error.object[error.start : error.end].translate(_PLAIN)
    spun = "".join("*" if "\u2800" <= sign <= "\u28ff" else sign for sign in text)
    return spun.encode("ascii", "backslashreplace").decode("ascii"), error.end
