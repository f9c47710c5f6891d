"""The context: a real text, list or dict when it fits, a lazy text when it does not."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

    from rlm_langchain.sandboxes.worker.lazytext import LazyText

LONG = 1 << 20
"""Characters of a piece that is worth looking for in the contexts."""


def loaded(context: list[Any], limits: dict[str, Any]) -> Any:
    """The value of a context, given as `[path, kind, length, size]`. Raises `MemoryError`, `ValueError`."""
    path, kind, length, size = context
    if kind == "json":
        import json

        return json.loads(_read(path))
    if size <= limits["loaded"]:
        try:
            return _read(path)
        except MemoryError:  # a text takes up to four bytes a character; read lazily it takes none
            pass
    return lazy(path, length, size)


def place_of(text: Any, contexts: dict[str, Any]) -> list[Any] | None:
    """Where a long text stands in one of the contexts: its name, the first byte, the one after the last.

    None: it is short, or stands nowhere, and is sent as it is.
    """
    part = getattr(text, "origin", None)  # of a lazy text
    if part is not None:
        return next(([name, *part.bytes()] for name, whole in contexts.items() if part.is_of(whole)), None)
    for name, whole in contexts.items() if len(text) >= LONG else ():
        if type(whole) is str and (at := whole.find(text)) >= 0:
            first = _size(whole, 0, at)
            return [name, first, first + _size(text, 0, len(text))]
    return None


def _size(text: str, start: int, stop: int) -> int:
    """How many bytes of UTF-8 a part of a text is."""
    if text.isascii():
        return stop - start
    return sum(len(text[at : min(at + LONG, stop)].encode()) for at in range(start, stop, LONG))


def lazy(path: str, length: int, size: int) -> LazyText:
    """A text that is read where it is looked at."""
    from rlm_langchain.sandboxes.worker import lazyre
    from rlm_langchain.sandboxes.worker.lazytext import LazyText
    from rlm_langchain.sandboxes.worker.source import Source

    lazyre.install()
    return LazyText(Source(os.open(path, os.O_RDONLY), length, size), 0, length)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()
