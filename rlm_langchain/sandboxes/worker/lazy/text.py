"""A text that stays in its file: behaves like a `str`, with the memory of a window.

Covered: `len`, indexes, slices, `in`, iteration, `find`, `rfind`, `index`, `rindex`, `count`, `startswith`,
`endswith`, `split`, `splitlines`, comparison with a text, and everything in `re` (see `regex.py`).

Not covered: operations that would copy the whole text (`lower`, `replace`, `+`, `str()`). They raise an error
that says so, and work on slices.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlm_langchain.sandboxes.worker.lazy.file import Source
from rlm_langchain.sandboxes.worker.lazy.lines import Pieces

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any, NoReturn

WINDOW = 1 << 20
"""Characters that are held at once."""

LONG = 1 << 20
"""Characters from which a slice is sent to a child run by its position."""

LARGEST = 64 << 20
"""Longest slice that is copied, in characters. A longer one is lazy, too."""


class LazyText:
    """A source, or a part of it."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self._source, self._start, self._stop = source, start, stop

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """`str`, so that `isinstance(context, str)` is true."""
        return str

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, key: int | slice) -> Any:
        if not isinstance(key, slice):
            at = range(len(self))[key]
            return self.part(at, at + 1)
        start, stop, step = key.indices(len(self))
        if step == 1:
            return self.part(start, max(start, stop))
        return self._stepped(range(start, stop, step))

    def part(self, start: int, stop: int) -> Any:
        """Return a slice: a `str`, or lazy if it is very long."""
        lazy = LazyText(self._source, self._start + start, self._start + stop)
        if stop - start > LARGEST:
            return lazy
        text = self._source.text(lazy._start, lazy._stop)
        return Part(text, lazy) if len(text) >= LONG else text

    @property
    def origin(self) -> LazyText:
        """The text that it is a part of: itself."""
        return self

    def bytes(self) -> tuple[int, int]:
        """The byte offsets of its start and end in the file."""
        return self._source.byte_of(self._start), self._source.byte_of(self._stop)

    def is_part_of(self, whole: object) -> bool:
        """Return whether it is part of that text."""
        return type(whole) is LazyText and whole._source is self._source

    def _stepped(self, places: range) -> str:
        if not places:
            return ""
        low, high = sorted((places[0], places[-1]))
        if high - low < LARGEST:
            return str(self.part(low, high + 1))[:: places.step]
        raise self.too_long(f"a slice with step {places.step}")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), WINDOW):
            yield from self.part(start, min(start + WINDOW, len(self)))

    def __contains__(self, text: str) -> bool:
        return self.find(text) >= 0

    def __eq__(self, other: object) -> bool:
        if type(other) is LazyText:
            return (self._start, self._stop) == (other._start, other._stop)
        if not issubclass(type(other), str):
            return False
        text = str(other)
        return len(text) == len(self) and self.startswith(text)

    __hash__ = None  # type: ignore[assignment]

    def find(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """Return the first position of `text`, or -1."""
        return self._place(self._source.find, text, start, end)

    def rfind(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """Return the last position of `text`, or -1."""
        return self._place(self._source.rfind, text, start, end)

    def index(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """Return the first position of `text`. Raises `ValueError` if there is none."""
        return _found(self.find(text, start, end))

    def rindex(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """Return the last position of `text`. Raises `ValueError` if there is none."""
        return _found(self.rfind(text, start, end))

    def count(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """Count the non-overlapping occurrences of `text`."""
        low, high = self._bounds(start, end)
        if not text:
            return max(0, high - low + 1)
        byte_of = self._source.byte_of
        return self._source.count(_bytes(text), byte_of(low), byte_of(high))

    def _place(self, search: Any, text: str, start: int | None, end: int | None) -> int:
        low, high = self._bounds(start, end)
        if low > high:
            return -1
        at = search(_bytes(text), self._source.byte_of(low), self._source.byte_of(high))
        return self._source.char_of(at) - self._start if at >= 0 else -1

    def _bounds(self, start: int | None, end: int | None) -> tuple[int, int]:
        """Return the start and end of a search, in characters of the source."""
        low, high, _ = slice(start, end).indices(len(self))
        if start is not None and start > len(self):
            return 1, 0
        return self._start + low, self._start + high

    def startswith(self, prefix: str | tuple[str, ...], start: int = 0, end: int | None = None, /) -> bool:
        """Return whether it starts with `prefix`."""
        low, high, _ = slice(start, end).indices(len(self))
        return any(self.part(low, max(low, min(high, low + len(p)))) == p for p in _several(prefix))

    def endswith(self, suffix: str | tuple[str, ...], start: int = 0, end: int | None = None, /) -> bool:
        """Return whether it ends with `suffix`."""
        low, high, _ = slice(start, end).indices(len(self))
        return any(self.part(max(low, high - len(s)), max(low, high)) == s for s in _several(suffix))

    def splitlines(self, keepends: bool = False) -> Pieces:
        """Return the lines, as a lazy list."""
        return Pieces(self, None, keepends)

    lines = splitlines

    def split(self, sep: str | None = None, maxsplit: int = -1) -> Pieces | list[str]:
        """Return the pieces between separators, as a lazy list."""
        if sep is None or maxsplit >= 0:
            raise self.too_long("split() without a separator, or with maxsplit,")
        if not sep:
            raise ValueError("empty separator")
        return Pieces(self, sep, False) if len(self) else [""]

    def __repr__(self) -> str:
        return f"<lazy text of {len(self):,} characters: {self.part(0, min(60, len(self)))!r}...>"

    def __str__(self) -> str:
        if len(self) <= LARGEST:
            return self._source.text(self._start, self._stop)
        raise self.too_long("str()")

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __add__(self, other: object) -> NoReturn:
        raise self.too_long("+")

    __radd__ = __mul__ = __rmul__ = __mod__ = __add__

    def __getattr__(self, name: str) -> Any:
        if hasattr(str, name) and not name.startswith("__"):
            raise self.too_long(f"{name}()")
        if name in {"search", "match", "fullmatch", "findall", "finditer"}:
            from rlm_langchain.sandboxes.worker.lazy import regex

            return lambda pattern, flags=0: getattr(regex.compiled(pattern, flags), name)(self)
        raise AttributeError(f"a lazy text has no attribute {name!r}")

    def too_long(self, what: str) -> Exception:
        """Return the error for an operation that would copy all of it."""
        return ValueError(
            f"{what} would copy a text of {len(self):,} characters, which may not fit into memory; "
            "work on slices (context[a:b]), or use find, count, splitlines, re"
        )


class Part(str):
    """A long slice of a lazy text that knows its position."""

    origin: LazyText

    def __new__(cls, text: str, origin: LazyText) -> Part:
        """Create the text with its position."""
        part = super().__new__(cls, text)
        part.origin = origin
        return part


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _several(affix: str | tuple[str, ...]) -> tuple[str, ...]:
    return affix if isinstance(affix, tuple) else (affix,)


def _found(place: int) -> int:
    if place < 0:
        raise ValueError("substring not found")
    return place
