"""Contexts in and out: whatever the caller has becomes a reference, and a reference becomes a file."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rlm_langchain.context import (
    binary,
    data,
    documents,
    excerpts,
    files,
    folders,
    messages,
    others,
    plugged,
    reference,
    streams,
    text,
)
from rlm_langchain.context.blobs import Blobs, Collected
from rlm_langchain.context.intake import Intake, Source
from rlm_langchain.context.opening import open_reference
from rlm_langchain.context.signing import sign
from rlm_langchain.errors import InputError, JournalError
from rlm_langchain.types import ContextFile, ContextRef

SOURCES: tuple[Source, ...] = (
    text,
    binary,
    plugged,
    folders,
    files,
    streams,
    documents,
    messages,
    data,
    others,
)
"""What can be a context, in the order in which they are asked. Each is a module, and satisfies `Source`."""

MADE: tuple[Source, ...] = (excerpts, text, data)
"""What a program in a sandbox can make a context of."""


def home() -> Path:
    """The folder of everything we keep: `RLM_HOME`, or the user's data folder."""
    if chosen := os.environ.get("RLM_HOME"):
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("rlm_langchain", appauthor=False)


class ContextStore:
    """The contexts under one folder, by the hash of their content.

    Nothing is created before the first write. Safe to use from many threads and processes at once.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = home() if root is None else root.absolute()
        self._blobs = Blobs(self.root / "contexts")

    def reference(self, context: Any, *, strict: bool = False) -> ContextRef | None:
        """A reference to whatever is given; None for None and for an empty text, list or dict.

        Blocks while it reads and writes, about a second for a gigabyte. With `strict`, what cannot be decoded
        is refused instead of replaced. A reference that a store of this home has made stays what it is; a dict that
        only looks like one is a dict. Raises `InputError` for what cannot be a context, and `JournalError`
        when the store cannot be written, or no longer has what a ready reference names.
        """
        if reference.accepts(context):
            return reference.refer(context, self._blobs, self.root)
        source = next((source for source in SOURCES if source.accepts(context)), None)
        return self._signed(source.refer(context, Intake(self._blobs, strict)) if source else None)

    def verified(self, ref: Any) -> ContextRef:
        """A reference that comes back from where others may have written it, such as a message.

        Raises `InputError` for what is none, and `JournalError` for one that no store of this home has made.
        """
        if not reference.accepts(ref):
            raise InputError("this is no reference that a store of contexts has signed: give the context itself")
        return reference.verified(ref, self.root)

    def shortened(self, ref: ContextRef, preview: int) -> ContextRef:
        """The same reference with no more than so many characters of its preview."""
        return sign({**ref, "preview": ref["preview"][:preview]}, self.root)

    def made(self, value: Any) -> ContextRef | None:
        """A reference to what a program made: a text, a list, a dict, a part of its context, and nothing else.

        A value that looks like a reference is a dict like any other: a program cannot name what it was not given.
        """
        source = next(source for source in MADE if source.accepts(value))
        return self._signed(source.refer(value, Intake(self._blobs, strict=False)))

    def _signed(self, ref: ContextRef | None) -> ContextRef | None:
        return None if ref is None else sign(ref, self.root)

    def open(self, ref: ContextRef) -> ContextFile:
        """The bytes of a context, checked. Raises `JournalError` that names what is missing or changed."""
        if wrong := reference.fault(dict(ref)):
            raise JournalError(f"a reference to a context is damaged: {wrong}")
        return open_reference(ref, self._blobs)

    def load(self, ref: ContextRef) -> str | list[Any] | dict[str, Any]:
        """The context as a value in memory. Raises as `open` does."""
        found = self.open(ref)
        content = found.path.read_bytes().decode()
        if found.kind == "text":
            return content
        value: list[Any] | dict[str, Any] = json.loads(content)
        return value

    def collect(self, *, older_than: float, keep: Collection[str], dry_run: bool = False) -> Collected:
        """Remove what was not used for `older_than` seconds, except the sha256 in `keep`, and crashed writes.

        With `dry_run`, say only what that would be.
        A use is a `reference` or an `open`, counted to the hour. Files that are referenced in place are not
        touched.
        """
        return self._blobs.collect(older_than, keep, dry_run=dry_run)
