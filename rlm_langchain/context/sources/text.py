"""A `str`: always the text itself, never the name of a file."""

from __future__ import annotations

from typing import Any

from rlm_langchain.context.decoding import replace_surrogates, replacement_note
from rlm_langchain.context.reference import StoreWriter, text_reference
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef


def accepts(value: Any) -> bool:
    """Accept any `str`."""
    return isinstance(value, str)


def to_reference(value: str, store_writer: StoreWriter) -> ContextRef | None:
    """Return a reference, or None for the empty text."""
    data, count = encode_text(value, strict=store_writer.strict)
    note = replacement_note(count, "lone surrogate")
    return text_reference(store_writer.blobs.put(data), len(value), note) if data else None


def encode_text(text: str, *, strict: bool, name: str = "the context", offset: int = 0) -> tuple[bytes, int]:
    """Encode a text as UTF-8. Return the bytes and the number of lone surrogates that were replaced."""
    try:
        return text.encode(), 0
    except UnicodeEncodeError as error:
        if strict:
            raise InputError(
                f"{name} has a lone surrogate at character {offset + error.start:,}, which is not text: "
                "fix it, or have such characters replaced (without `strict`)"
            ) from error
    clean, count = replace_surrogates(text)
    return clean.encode(), count
