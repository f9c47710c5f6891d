"""How every kind of context becomes a reference, in one of the two shapes that a sandbox can open."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, Protocol

from rlm_langchain.context import describe
from rlm_langchain.context.blobs import Blob, BlobStore
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

MAX_STREAM_BYTES = 1 << 30
"""Bytes that are copied from a stream, whose end nobody knows. A file is known by its size, and has no limit."""


@dataclass(frozen=True, slots=True)
class StoreWriter:
    """What a source needs to make a reference."""

    blobs: BlobStore
    strict: bool
    """Refuse what cannot be decoded, instead of replacing and counting it."""
    max_stream_bytes: int = MAX_STREAM_BYTES
    """Bytes that are copied from one stream."""
    deadline: float = inf
    """On the monotonic clock: when the time for all of it is over."""

    def seconds_left(self, name: object) -> float:
        """How long a source may still take. Raises `InputError` when its time is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise InputError(
                f"{one_line(name)} was not read to its end in the time of the run: raise Budget(seconds=) or "
                "--seconds, or give less of it"
            )
        return left


class Source(Protocol):
    """One kind of context."""

    def accepts(self, value: Any) -> bool:
        """Whether the value is of this kind. Quick, and raises nothing."""

    def to_reference(self, value: Any, store_writer: StoreWriter) -> ContextRef | None:
        """The reference, or None for nothing. Raises `InputError`."""


def text_reference(blob: Blob, characters: int, *notes: str) -> ContextRef:
    """The reference of a text: UTF-8 in the store, or in a file that is referenced in place."""
    preview = describe.preview_of_bytes(blob.head)
    return ContextRef(
        sha256=blob.sha256,
        kind="text",
        type=describe.type_of_text(preview),
        length=characters,
        size=blob.size,
        about=describe.describe_text(characters, blob.size, *notes),
        preview=preview,
    )


def json_reference(
    blob: Blob, kind: Literal["list", "dict"], length: int, line: str, preview: str | None = None
) -> ContextRef:
    """The reference of a list or an object in the store; the preview is the JSON, unless one is given."""
    return ContextRef(
        sha256=blob.sha256,
        kind="json",
        type=kind,
        length=length,
        size=blob.size,
        about=line,
        preview=describe.preview_of_bytes(blob.head) if preview is None else preview,
    )
