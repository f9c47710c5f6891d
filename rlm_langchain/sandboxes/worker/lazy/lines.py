"""The lines of a lazy text, or the pieces between separators, as a list that is counted and read on demand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

    from rlm_langchain.sandboxes.worker.lazy.text import LazyText

WINDOW = 1 << 18
"""Characters that are split at once."""


class Pieces:
    """Behaves like the list that `str.split` or `str.splitlines` would make of a non-empty text."""

    def __init__(self, text: LazyText, sep: str | None, keepends: bool) -> None:
        self._text, self._sep, self._keepends = text, sep, keepends
        self._marks = [(0, 0)]
        """Number of pieces, and of characters, before each window that was seen."""
        self._is_seen = False
        """Whether the last mark is the end."""
        self._near: tuple[int, list[str], int] = (-1, [], 0)
        """The window that was read last: its start, its pieces, and the start of the next one."""

    def __iter__(self) -> Iterator[str]:
        at = 0
        while at < len(self._text):
            pieces, at = self._window(at)
            yield from pieces

    def __len__(self) -> int:
        while not self._is_seen:
            self._advance()
        return self._marks[-1][0]

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return [self._at(n) for n in range(*key.indices(len(self)))]
        return self._at(range(len(self))[key] if key < 0 else key)

    def __repr__(self) -> str:
        return f"<lazy list of the pieces of {self._text!r}>"

    def _at(self, number: int) -> str:
        while not self._is_seen and self._marks[-1][0] <= number:
            self._advance()
        if number >= self._marks[-1][0]:
            raise IndexError("list index out of range")
        before, at = self._marks[bisect_right(self._marks, (number, 1 << 62)) - 1]
        return self._window(at)[0][number - before]

    def _advance(self) -> None:
        """Read one more window, up to the end."""
        count, at = self._marks[-1]
        if at < len(self._text):
            pieces, at = self._window(at)
            self._marks.append((count + len(pieces), at))
        self._is_seen = at == len(self._text)

    def _window(self, at: int) -> tuple[list[str], int]:
        """Return the complete pieces from a position on, and where the next ones start."""
        if self._near[0] != at:
            self._near = (at, *self._read(at))
        return self._near[1:]

    def _read(self, at: int) -> tuple[list[str], int]:
        size = WINDOW
        while True:
            stop = min(at + size, len(self._text))
            pieces, used = self._cut(str(self._text.part(at, stop)), stop == len(self._text))
            if used:
                return pieces, at + used
            size *= 2

    def _cut(self, window: str, is_last: bool) -> tuple[list[str], int]:
        """Return the pieces of a window, and their total length. The last piece of a window may continue,
        except in the last window."""
        if self._sep is None:
            used = len(window) - (0 if is_last else len(window.splitlines(keepends=True)[-1]))
            return window[:used].splitlines(self._keepends), used
        pieces = window.split(self._sep)
        return (pieces, len(window)) if is_last else (pieces[:-1], len(window) - len(pieces[-1]))
