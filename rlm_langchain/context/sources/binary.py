"""Bytes in memory that contain text: UTF-8, or the encoding of their byte order mark."""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.reference import StoreWriter
from rlm_langchain.context.sources.streams import copy_stream
from rlm_langchain.types import ContextRef


def accepts(value: Any) -> bool:
    """Accept `bytes` and other bytes-like objects."""
    return isinstance(value, bytes | bytearray | memoryview)


def to_reference(value: bytes | bytearray | memoryview, store_writer: StoreWriter) -> ContextRef | None:
    """Return a reference, or None for empty bytes. Decodes block by block, without a copy of the whole."""
    view = memoryview(value)
    view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    return copy_stream(_Blocks(view), "the context", store_writer) if view.nbytes else None


class _Blocks:
    """Bytes in memory with the `read` method of a file."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def read(self, size: int) -> bytes:
        """Return at most `size` of the next bytes."""
        start, self._at = self._at, self._at + size
        return bytes(self._view[start : self._at])
