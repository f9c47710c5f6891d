"""Makes references of all kinds of context, in one of the two formats that a sandbox can open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, Protocol

from rlm_langchain.context import describe
from rlm_langchain.context.blobs import Blob, BlobStore
from rlm_langchain.context.images import ImageStore
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.errors import InputError
from rlm_langchain.types import ContextRef

MAX_STREAM_BYTES = 1 << 30
"""Bytes that are copied from a stream, which may never end. Files have no such limit, because their size is
known."""


@dataclass(frozen=True, slots=True)
class StoreWriter:
    """Everything that a source needs to make a reference."""

    blobs: BlobStore
    images: ImageStore
    strict: bool
    """Whether to refuse what cannot be decoded, instead of replacing and counting it."""
    max_stream_bytes: int = MAX_STREAM_BYTES
    """Bytes that are copied from one stream."""
    deadline: float = inf
    """Time on the monotonic clock by which everything must have been read."""

    def seconds_left(self, name: object) -> float:
        """Return the seconds that a source may still take. Raises `InputError` if the time is over."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise InputError(
                f"{one_line(name)} was not read to its end in the time of the run: raise Budget(seconds=) or "
                "--seconds, or pass less of it"
            )
        return left


class Source(Protocol):
    """One kind of context."""

    def accepts(self, value: Any) -> bool:
        """Return whether the value is of this kind. Fast, and never raises."""

    def to_reference(self, value: Any, store_writer: StoreWriter) -> ContextRef | None:
        """Return the reference, or None for an empty value. Raises `InputError`."""


MAX_NOTES, MAX_NOTE_CHARS, MAX_NOTES_CHARS = 20, 300, 2_000
"""Most notes in a reference, characters of each, and characters of all in its description."""


def with_notes(ref: ContextRef, notes: Sequence[str]) -> ContextRef:
    """Return the reference with notes of what was left out, replaced, guessed or repaired, also in its
    description."""
    notes = [*filter(None, notes)]
    if not notes:
        return ref
    line = describe.join_parts(*notes)
    cut = line if len(line) <= MAX_NOTES_CHARS else f"{line[:MAX_NOTES_CHARS]}…"
    kept = [note if len(note) <= MAX_NOTE_CHARS else f"{note[:MAX_NOTE_CHARS]}…" for note in notes[:MAX_NOTES]]
    more = [f"... and {len(notes) - MAX_NOTES:,} more"] if len(notes) > MAX_NOTES else []
    return {
        **ref,
        "about": describe.join_parts(ref["about"][:MAX_NOTES_CHARS], cut),
        "notes": [*ref.get("notes", ()), *kept, *more],
    }


def with_images(ref: ContextRef, count: int) -> ContextRef:
    """Return the reference with the number of pictures in the context."""
    return {**ref, "images": count} if count else ref


def text_reference(blob: Blob, characters: int, note: str = "", *notes: str) -> ContextRef:
    """Return the reference of a text: UTF-8 in the store, or in a file that is used in place. `note` says where it
    came from, `notes` what was replaced or guessed."""
    preview = describe.preview_of_bytes(blob.head)
    ref = ContextRef(
        sha256=blob.sha256,
        kind="text",
        type=describe.type_of_text(preview),
        length=characters,
        size=blob.size,
        about=describe.describe_text(characters, blob.size, note),
        preview=preview,
    )
    return with_notes(ref, notes)


def json_reference(
    blob: Blob, kind: Literal["list", "dict"], length: int, line: str, preview: str | None = None
) -> ContextRef:
    """Return the reference of a list or dict in the store. The default preview is the beginning of its JSON."""
    return ContextRef(
        sha256=blob.sha256,
        kind="json",
        type=kind,
        length=length,
        size=blob.size,
        about=line,
        preview=describe.preview_of_bytes(blob.head) if preview is None else preview,
    )
