"""The lines of a lazy text, or what is between its separators: a list that is counted and read when needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

    from rlm_langchain.sandboxes.worker.lazytext import LazyText

WINDOW = 1 << 18
"""Characters that are cut at once."""


class Pieces:
    """Like the list that `str.split` or `str.splitlines` would make."""

    def __init__(self, text: LazyText, sep: str | None, keepends: bool) -> None:
        self._text, self._sep, self._keepends = text, sep, keepends
        self._marks = [(0, 0)]
        """How many pieces, and characters, come before each window that was seen."""
        self._total: int | None = None
        self._near: tuple[int, list[str]] = (0, [])
        """The window that was read last, and where."""

    def __iter__(self) -> Iterator[str]:
        at = 0
        while pieces := self._window(at):
            yield from map(self._bare, pieces)
            at += sum(map(len, pieces))
        yield from [""] * self._extra()

    def __len__(self) -> int:
        while self._total is None:
            self._advance()
        return self._total

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return [self._at(n) for n in range(*key.indices(len(self)))]
        return self._at(range(len(self))[key] if key < 0 else key)

    def __repr__(self) -> str:
        return f"<lazy list of the pieces of {self._text!r}>"

    def _at(self, number: int) -> str:
        while self._total is None and self._marks[-1][0] <= number:
            self._advance()
        if self._total is not None and number >= self._total:
            raise IndexError("list index out of range")
        before, at = self._marks[bisect_right(self._marks, (number, 1 << 62)) - 1]
        pieces = self._window(at)
        return self._bare(pieces[number - before]) if number - before < len(pieces) else ""

    def _advance(self) -> None:
        """See one more window, or the end."""
        count, at = self._marks[-1]
        pieces = self._window(at)
        if pieces:
            self._marks.append((count + len(pieces), at + sum(map(len, pieces))))
        else:
            self._total = count + self._extra()

    def _window(self, at: int) -> list[str]:
        """Whole pieces, ends included, from a place on; none at the end."""
        if self._near[0] != at or not self._near[1]:
            self._near = (at, self._read(at))
        return self._near[1]

    def _read(self, at: int) -> list[str]:
        size = WINDOW
        while at < len(self._text):
            stop = min(at + size, len(self._text))
            pieces = self._cut(str(self._text.part(at, stop)))
            if stop == len(self._text):
                return [piece for piece in pieces if piece]
            if len(pieces) > 1:
                return pieces[:-1]
            size *= 2
        return []

    def _cut(self, window: str) -> list[str]:
        """The pieces of a window with their ends; the last one may go on."""
        if self._sep is None:
            return window.splitlines(keepends=True)
        pieces = window.split(self._sep)
        return [piece + self._sep for piece in pieces[:-1]] + pieces[-1:]

    def _bare(self, piece: str) -> str:
        """A piece as it is given out."""
        if self._sep is not None:
            return piece.removesuffix(self._sep)
        return piece if self._keepends else piece.splitlines()[0]

    def _extra(self) -> int:
        """One empty piece after a separator at the very end, as `split` has it and `splitlines` does not."""
        return int(self._sep is not None and (not len(self._text) or self._text.endswith(self._sep)))
