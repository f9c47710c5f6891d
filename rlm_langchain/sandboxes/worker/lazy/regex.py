"""`re` for lazy texts: the same functions and patterns, which search in windows (see `matches.py`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rlm_langchain.sandboxes.worker.lazy.matches import LazyMatch, find_all, match_at
from rlm_langchain.sandboxes.worker.lazy.text import LazyText

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

_compile = re.compile
_module = {name: getattr(re, name) for name in ("search", "match", "fullmatch", "findall", "finditer")}
_module |= {name: getattr(re, name) for name in ("split", "sub", "subn")}

_ARGUMENTS = {"split": 2, "sub": 3, "subn": 3}
"""Number of arguments before the flags, if it is not one."""


class LazyPattern:
    """A compiled pattern that also accepts lazy texts."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """`re.Pattern`, which it replaces."""
        return re.Pattern

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pattern, name)

    def __eq__(self, other: object) -> bool:
        return bool(self._pattern == bare(other))

    def __hash__(self) -> int:
        return hash(self._pattern)

    def __repr__(self) -> str:
        return repr(self._pattern)

    def search(self, string: Any, *bounds: int) -> Any:
        """As in `re`."""
        if not _is_lazy(string):
            return self._pattern.search(string, *bounds)
        return next(find_all(self._pattern, string, *bounds), None)

    def match(self, string: Any, *bounds: int) -> Any:
        """As in `re`."""
        if not _is_lazy(string):
            return self._pattern.match(string, *bounds)
        return match_at(self._pattern, string, *bounds)

    def fullmatch(self, string: Any, *bounds: int) -> Any:
        """As in `re`: the text must fit into memory."""
        return self._pattern.fullmatch(str(string) if _is_lazy(string) else string, *bounds)

    def finditer(self, string: Any, *bounds: int) -> Iterator[Any]:
        """As in `re`."""
        if not _is_lazy(string):
            return self._pattern.finditer(string, *bounds)
        return find_all(self._pattern, string, *bounds)

    def findall(self, string: Any, *bounds: int) -> list[Any]:
        """As in `re`."""
        if not _is_lazy(string):
            return self._pattern.findall(string, *bounds)
        return [_all_of(match) for match in find_all(self._pattern, string, *bounds)]

    def split(self, string: Any, maxsplit: int = 0) -> list[Any]:
        """As in `re`: all pieces at once, so they must fit into memory."""
        if not _is_lazy(string):
            return self._pattern.split(string, maxsplit)
        return _split(self._pattern, string, maxsplit)

    def sub(self, repl: Any, string: Any, count: int = 0) -> str:
        """As in `re`: the result must fit into memory."""
        return self.subn(repl, string, count)[0]

    def subn(self, repl: Any, string: Any, count: int = 0) -> tuple[str, int]:
        """As in `re`: the result must fit into memory."""
        if not _is_lazy(string):
            return self._pattern.subn(repl, string, count)
        return _subn(self._pattern, repl, string, count)


def _is_lazy(text: Any) -> bool:
    return type(text) is LazyText


def bare(pattern: Any) -> Any:
    """Return the compiled pattern behind a `LazyPattern`."""
    return pattern._pattern if type(pattern) is LazyPattern else pattern


def compiled(pattern: Any, flags: int = 0) -> LazyPattern:
    """Return a pattern that accepts lazy texts."""
    return pattern if type(pattern) is LazyPattern else LazyPattern(_compile(bare(pattern), flags))


def _all_of(match: LazyMatch) -> Any:
    """Return what `findall` returns for a match."""
    groups = match.groups("")
    return match[0] if not groups else groups[0] if len(groups) == 1 else groups


def _split(pattern: re.Pattern[str], text: LazyText, maxsplit: int) -> list[Any]:
    pieces: list[Any] = []
    at = 0
    for n, match in enumerate(find_all(pattern, text)):
        if maxsplit and n >= maxsplit:
            break
        pieces += [text[at : match.start()], *match.groups()]
        at = match.end()
    return [*pieces, text[at:]]


def _subn(pattern: re.Pattern[str], repl: Any, text: LazyText, count: int) -> tuple[str, int]:
    parts: list[str] = []
    at = n = 0
    for match in find_all(pattern, text):
        if count and n >= count:
            break
        parts += [str(text[at : match.start()]), repl(match) if callable(repl) else match.expand(repl)]
        at, n = match.end(), n + 1
    return "".join([*parts, str(text[at:])]), n


def install() -> None:
    """Make the functions of `re` accept lazy texts."""
    vars(re).update({name: _aware(name) for name in _module})
    re.compile = compiled  # type: ignore[assignment]


def _aware(name: str) -> Callable[..., Any]:
    """Return a function of `re` that uses a `LazyPattern`."""
    most = _ARGUMENTS.get(name, 1)

    def function(pattern: Any, *args: Any, flags: int = 0, **named: Any) -> Any:
        flags = args[most] if len(args) > most else flags
        return getattr(compiled(pattern, flags), name)(*args[:most], **named)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = _module[name].__doc__
    return function
