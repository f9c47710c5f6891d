"""A `str`: always the text itself, never the name of a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

from rlm_langchain.context.decoding import replace_surrogates, replacement_note
from rlm_langchain.context.reference import StoreWriter, text_reference
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

LONGEST_NAME = 1_000
"""Characters of a text that may be meant as the name of a file."""
NAMES_LOOKED_AT = 20
"""Texts of a list that are looked at for that, at most."""


def warn_of_file_names(value: Any, what: str) -> None:
    """Warn of a text, or of texts, that name files: the text is what is read, and perhaps the file was meant."""
    parts = [*value.values()] if isinstance(value, Mapping) else value
    texts = [*parts[:NAMES_LOOKED_AT]] if isinstance(parts, list | tuple) else [value]
    if texts and all(isinstance(text, str) and _names_a_file(text) for text in texts):
        means = f"for the file, give Path({texts[0]!r})"
        is_alone = isinstance(value, str)
        warnings.warn(f"{what} {'is' if is_alone else 'holds'} the text {texts[0]!r}: {means}", stacklevel=3)


def _names_a_file(text: str) -> bool:
    try:
        return 0 < len(text) < LONGEST_NAME and os.path.exists(text)
    except ValueError:  # with a NUL in it
        return False


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
