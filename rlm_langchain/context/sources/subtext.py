"""A part of a stored text, which is copied in blocks and becomes a separate context."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any

from rlm_langchain.context.decoding import BLOCK_BYTES
from rlm_langchain.context.opening import open_context
from rlm_langchain.context.reference import StoreWriter, text_reference
from rlm_langchain.types import ContextRef, Excerpt


def accepts(value: Any) -> bool:
    """Accept an excerpt, which a sandbox sends instead of the text."""
    return isinstance(value, Excerpt)


def to_reference(value: Excerpt, store_writer: StoreWriter) -> ContextRef | None:
    """Return a reference to the part as a text in the store, or None if it is empty. It is text, whatever it
    begins with."""
    characters, decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")
    with store_writer.blobs.writer() as writer:
        for block in _blocks(value):
            text = decoder.decode(block, not block)
            writer.write(text.encode())
            characters += len(text)
        return text_reference(writer.commit(), characters) if characters else None


def _blocks(value: Excerpt) -> Iterator[bytes]:
    """Yield its bytes, and an empty block. Raises `JournalError` if the file has changed."""
    left = value.stop - value.start
    with open_context(value.file) as file:
        file.seek(value.start)
        while left and (block := file.read(min(BLOCK_BYTES, left))):
            left -= len(block)
            yield block
    yield b""


def read_excerpt(value: Excerpt) -> str:
    """Return the part as a text in memory. Raises `JournalError` as `to_reference` does."""
    return b"".join(_blocks(value)).decode("utf-8", "replace")
