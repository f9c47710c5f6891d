"""The context: a real text, list or dict when it fits, a lazy text when it does not."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

    from rlm_langchain.sandboxes.worker.lazytext import LazyText


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
