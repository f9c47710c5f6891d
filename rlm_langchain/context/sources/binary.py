"""Bytes in memory that are text: UTF-8, or what their byte order mark says."""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.reference import StoreWriter
from rlm_langchain.context.sources.streams import copy_stream
from rlm_langchain.types import ContextRef


def accepts(value: Any) -> bool:
    """`bytes` and what can be read like them."""
    return isinstance(value, bytes | bytearray | memoryview)


def to_reference(value: bytes | bytearray | memoryview, store_writer: StoreWriter) -> ContextRef | None:
    """No bytes are no context. They are decoded block by block, without a copy of the whole."""
    view = memoryview(value)
    view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    return copy_stream(_Blocks(view), "the context", store_writer) if view.nbytes else None


class _Blocks:
    """Bytes in memory, read like a file."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def read(self, size: int) -> bytes:
        """The next bytes, at most so many."""
        start, self._at = self._at, self._at + size
        return bytes(self._view[start : self._at])
