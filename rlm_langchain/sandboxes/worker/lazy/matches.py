"""Matches of a pattern over a lazy text, found in windows.

A match sees at least `AHEAD` characters after its start, and the window grows while a match reaches its end. So
the result is what `re` would find, unless a pattern must look further ahead to reject a shorter match.
Lookbehind sees `BEHIND` characters.
"""

from __future__ import annotations

from rlm_langchain.sandboxes.worker.lazy.text import LazyText

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from typing import Any

WINDOW = 4 << 20
AHEAD = 1 << 20
BEHIND = 1 << 12


class LazyMatch:
    """A match in a window, with positions in the whole text."""

    def __init__(self, match: re.Match[str], base: int, text: LazyText) -> None:
        self._match, self._base, self.string = match, base, text

    def start(self, group: int | str = 0) -> int:
        """Return the start of a group, or -1."""
        return self.span(group)[0]

    def end(self, group: int | str = 0) -> int:
        """Return the end of a group, or -1."""
        return self.span(group)[1]

    def span(self, group: int | str = 0) -> tuple[int, int]:
        """Return both."""
        start, end = self._match.span(group)
        return (start, end) if start < 0 else (start + self._base, end + self._base)

    def __getitem__(self, group: int | str) -> Any:
        return self._match[group]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._match, name)

    def __repr__(self) -> str:
        return f"<re.Match object; span={self.span()}, match={self._match[0]!r}>"


def match_at(pattern: re.Pattern[str], text: LazyText, pos: int = 0, endpos: int | None = None) -> LazyMatch | None:
    """Return a match at `pos`, or None."""
    end = len(text) if endpos is None else min(endpos, len(text))
    size = WINDOW
    while True:
        base, window, last = _view(text, pos, end, size)
        match = pattern.match(window, pos - base)
        if match is None or last or match.end() < len(window):
            return match and LazyMatch(match, base, text)
        size *= 2


def find_all(
    pattern: re.Pattern[str], text: LazyText, pos: int = 0, endpos: int | None = None
) -> Iterator[LazyMatch]:
    """Yield all matches, in order."""
    end = len(text) if endpos is None else min(endpos, len(text))
    size, empty, last = WINDOW, -1, False
    while not last:
        base, window, last = _view(text, pos, end, size)
        trusted = len(window) if last else len(window) - AHEAD
        again = base + trusted
        for match in pattern.finditer(window, pos - base):
            start, stop = base + match.start(), base + match.end()
            if not last and (match.start() > trusted or match.end() == len(window)):
                again = base + min(match.start(), trusted)  # it may be cut: look again from here
                break
            if not start == stop == empty:  # an empty match is found again where a window begins with it
                pos, empty = stop, stop if start == stop else -1
                yield LazyMatch(match, base, text)
        size = WINDOW if again > pos else 2 * size
        pos = max(pos, again)


def _view(text: LazyText, pos: int, end: int, size: int) -> tuple[int, str, bool]:
    """Return a window around a position: its start, its characters, and whether they reach the end."""
    base = max(0, pos - BEHIND)
    stop = min(end, pos + size)
    return base, str(text.part(base, max(base, stop))), stop >= end
