"""The context: a real text, list or dict if it fits, else a lazy text."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

    from rlm_langchain.sandboxes.worker.lazy.text import LazyText

FORMAT, REGULAR = 0o170000, 0o100000
"""As in `stat`, which would be slow to import."""

LONG = 1 << 20
"""Characters from which a piece of text is looked up in the contexts."""


def load_context(context: list[Any], limits: dict[str, Any]) -> Any:
    """Return the value of a context, given as `[path, kind, length, size]`, and then device and inode.

    Raises `MemoryError`, `OSError`, `ValueError`.
    """
    path, kind, length, size, *identity = context
    fd = _opened(path, size, identity)
    if kind == "json":
        import json

        return json.loads(_read(fd))
    if size <= limits["loaded"]:
        try:
            return _read(fd)
        except MemoryError:  # a text takes up to four bytes a character; read lazily it takes none
            fd = _opened(path, size, identity)
    return lazy(fd, length, size)


def place_of(text: Any, contexts: dict[str, Any]) -> list[Any] | None:
    """Return the position of a long text in one of the contexts: its name, the first byte, the byte after the
    last.

    None: it is short or not in a context, and is sent as it is.
    """
    part = getattr(text, "origin", None)  # of a lazy text
    if part is not None:
        return next(([name, *part.bytes()] for name, whole in contexts.items() if part.is_part_of(whole)), None)
    for name, whole in contexts.items() if len(text) >= LONG else ():
        if type(whole) is str and (at := whole.find(text)) >= 0:
            first = _size(whole, 0, at)
            return [name, first, first + _size(text, 0, len(text))]
    return None


def _size(text: str, start: int, stop: int) -> int:
    """Return the size of a part of a text in UTF-8 bytes."""
    if text.isascii():
        return stop - start
    return sum(len(text[at : min(at + LONG, stop)].encode()) for at in range(start, stop, LONG))


def lazy(fd: int, length: int, size: int) -> LazyText:
    """Return a text that is read on access."""
    from rlm_langchain.sandboxes.worker.lazy import regex
    from rlm_langchain.sandboxes.worker.lazy.file import Source
    from rlm_langchain.sandboxes.worker.lazy.text import LazyText

    regex.install()
    return LazyText(Source(fd, length, size), 0, length)


def _opened(path: str, size: int, identity: list[int]) -> int:
    """Return a descriptor of the regular file that the host has verified, identified by device and inode. Never
    blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_mode & FORMAT != REGULAR:
        raise OSError("it is not a regular file")
    if identity and [found.st_dev, found.st_ino, found.st_size] != [*identity, size]:
        raise OSError("it has changed")
    return fd


def _read(fd: int) -> str:
    """Read a whole file and close it."""
    with open(fd, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()
