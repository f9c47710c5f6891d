"""The output of a cell: limited, and sent to the host as it is produced."""

from __future__ import annotations

import codecs
import io
import sys
import time

from rlm_langchain.sandboxes.worker.channel import Hold

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

IMMEDIATE_PIECES = 64
"""Number of pieces of a cell's output that are sent at once. Later ones are collected."""

MAX_PIECE = 1 << 14
"""Characters that are sent without waiting for more."""

PAUSE = 0.02
"""Seconds between two collected pieces."""


_now = time.monotonic  # before the clock is fixed


class OutputLimit(BaseException):
    """The cell has printed too much. It is not an `Exception`, so that `except Exception` does not catch it."""

    __module__ = "builtins"  # for tracebacks: programs see a plain name


class CellOutput(io.RawIOBase):
    """The raw stream behind `sys.stdout` and `sys.stderr` for one cell."""

    def __init__(self, limit: int, show: Callable[[str], None], hold: Hold) -> None:
        self._room, self._limit = limit, limit
        self._show, self._hold = show, hold
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._waiting: list[str] = []
        self._size, self._pieces, self._last = 0, 0, 0.0
        self.held = False
        """True while the cell waits for a reply, when nothing may be sent."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Do nothing: a program that closes its output only loses its wrapper."""

    def write(self, data: Any) -> int:
        """Accept bytes. Raises `OutputLimit` if there are too many."""
        with self._hold:
            self._take(bytes(data))
        if self._room < 0:
            raise OutputLimit(f"this cell printed more than {self._limit:,} bytes; the rest is lost")
        return len(data)

    def _take(self, data: bytes) -> None:
        text = self._decode(data)
        size = len(text.encode())
        if size > self._room:
            text = text.encode()[: max(self._room, 0)].decode(errors="ignore")
        self._room -= size
        self._waiting.append(text)
        self._size += len(text)
        if not self.held and self._is_urgent():
            self.empty()

    def _is_urgent(self) -> bool:
        return self._pieces < IMMEDIATE_PIECES or self._size > MAX_PIECE or _now() - self._last > PAUSE

    def empty(self) -> None:
        """Send what was collected."""
        text, self._waiting, self._size = "".join(self._waiting), [], 0
        self._pieces += 1
        self._last = _now()
        for start in range(0, len(text), MAX_PIECE):
            self._show(text[start : start + MAX_PIECE])

    def wrapped(self) -> io.TextIOWrapper:
        """Return a text stream on this output, for `sys.stdout`."""
        raw: Any = self
        return io.TextIOWrapper(raw, "utf-8", "replaced", line_buffering=True)


def install(raw: CellOutput) -> io.TextIOWrapper:
    """Make this the output of the code that runs next."""
    stream = raw.wrapped()
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = stream  # type: ignore[misc]
    return stream


def _replaced(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101
    return b"\xef\xbf\xbd" * (error.end - error.start), error.end


codecs.register_error("replaced", _replaced)
