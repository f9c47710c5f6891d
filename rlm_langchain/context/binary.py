"""Bytes in memory that are text: UTF-8, or what their byte order mark says."""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.decoding import SAMPLE, Decoder, not_text, replaced
from rlm_langchain.context.intake import Intake, text_ref
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef


def accepts(value: Any) -> bool:
    """`bytes` and what can be read like them."""
    return isinstance(value, bytes | bytearray | memoryview)


def refer(value: bytes | bytearray | memoryview, intake: Intake) -> ContextRef | None:
    """No bytes are no context."""
    data = bytes(value)
    if wrong := not_text(data[:SAMPLE]):
        raise InputError(f"the context is {wrong}")
    decoder = Decoder("the context", data[:SAMPLE], strict=intake.strict)
    text = decoder.decode(data, final=True)
    blob = intake.blobs.put(text.encode())
    return text_ref(blob, len(text), replaced(decoder.replaced)) if text else None
