"""A text that stays in its file: the manners of a `str`, in the memory of a window.

Covered: `len`, indexes, slices, `in`, iteration, `find`, `rfind`, `index`, `rindex`, `count`, `startswith`,
`endswith`, `split`, `splitlines`, comparison with a text, and everything of `re` (see `lazyre.py`).
Not covered: what would copy the whole text (`lower`, `replace`, `+`, `str()`): those say so, and work on slices.
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
"""Characters of a slice that is told apart by its place when a child run is asked about it."""

LARGEST = 64 << 20
"""Characters of the longest slice that is copied; a longer one is lazy too."""


class LazyText:
    """Part of a source, or all of it."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self._source, self._start, self._stop = source, start, stop

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """`str`, so that `isinstance(context, str)` takes the right branch."""
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
        """A slice: a `str`, or lazy when it is very long."""
        lazy = LazyText(self._source, self._start + start, self._start + stop)
        if stop - start > LARGEST:
            return lazy
        text = self._source.text(lazy._start, lazy._stop)
        return Part(text, lazy) if len(text) >= LONG else text

    @property
    def origin(self) -> LazyText:
        """Where it comes from: from there."""
        return self

    def bytes(self) -> tuple[int, int]:
        """Where in the file it begins, and where it ends."""
        return self._source.byte_of(self._start), self._source.byte_of(self._stop)

    def is_of(self, whole: object) -> bool:
        """Whether it is part of that text."""
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
        """The first place of `text`, or -1."""
        return self._place(self._source.find, text, start, end)

    def rfind(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """The last place of `text`, or -1."""
        return self._place(self._source.rfind, text, start, end)

    def index(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """The first place of `text`. Raises `ValueError` when there is none."""
        return _found(self.find(text, start, end))

    def rindex(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """The last place of `text`. Raises `ValueError` when there is none."""
        return _found(self.rfind(text, start, end))

    def count(self, text: str, start: int | None = None, end: int | None = None, /) -> int:
        """How often `text` occurs, without overlaps."""
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
        """Where a search begins and ends, in characters of the source."""
        low, high, _ = slice(start, end).indices(len(self))
        if start is not None and start > len(self):
            return 1, 0
        return self._start + low, self._start + high

    def startswith(self, prefix: str | tuple[str, ...], start: int = 0, end: int | None = None, /) -> bool:
        """Whether it begins with `prefix`."""
        low, high, _ = slice(start, end).indices(len(self))
        return any(self.part(low, max(low, min(high, low + len(p)))) == p for p in _several(prefix))

    def endswith(self, suffix: str | tuple[str, ...], start: int = 0, end: int | None = None, /) -> bool:
        """Whether it ends with `suffix`."""
        low, high, _ = slice(start, end).indices(len(self))
        return any(self.part(max(low, high - len(s)), max(low, high)) == s for s in _several(suffix))

    def splitlines(self, keepends: bool = False) -> Pieces:
        """The lines, as a lazy list."""
        return Pieces(self, None, keepends)

    lines = splitlines

    def split(self, sep: str | None = None, maxsplit: int = -1) -> Pieces | list[str]:
        """The pieces between separators, as a lazy list."""
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
        """The error for what would copy all of it."""
        return ValueError(
            f"{what} would copy a text of {len(self):,} characters, which may not fit into memory; "
            "work on slices (context[a:b]), or use find, count, splitlines, re"
        )


class Part(str):
    """A long slice of a lazy text, which knows where it comes from."""

    origin: LazyText

    def __new__(cls, text: str, origin: LazyText) -> Part:
        """The text, and its place."""
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
