"""A part of a text that is stored already: copied from file to file, in blocks, into a context of its own."""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.intake import Intake
from rlm_langchain.context.streams import copy, reading
from rlm_langchain.types import ContextRef, Excerpt


def accepts(value: Any) -> bool:
    """What a sandbox's call names instead of sending it."""
    return isinstance(value, Excerpt)


def refer(value: Excerpt, intake: Intake) -> ContextRef | None:
    """The part, as a text in the store; None for an empty one."""
    if value.start == value.stop:
        return None
    name = str(value.file.path)
    with reading(name), value.file.path.open("rb") as file:
        file.seek(value.start)
        return copy(_Part(file, value.stop - value.start), name, intake)


class _Part:
    """The next bytes of a file, and no more."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data
