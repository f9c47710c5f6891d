"""The store of contexts: turns values into references, and references into files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Collection, Sequence
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rlm_langchain.context import beneath
from rlm_langchain.context.blobs import BlobStore, Collected
from rlm_langchain.context.describe import type_of_text
from rlm_langchain.context.images import ImageStore
from rlm_langchain.context.opening import open_reference, read_context
from rlm_langchain.context.reference import MAX_STREAM_BYTES, Source, StoreWriter
from rlm_langchain.context.sanitize import one_line
from rlm_langchain.context.signing import sign
from rlm_langchain.context.sources import (
    binary,
    documents,
    files,
    folders,
    foreign_objects,
    frames,
    json_values,
    loaders,
    messages,
    plugins,
    references,
    several,
    streams,
    subtext,
    text,
)
from rlm_langchain.errors import ConfigurationError, InputError, JournalError
from rlm_langchain.types import ContextFile, ContextRef

SOURCES: tuple[Source, ...] = (
    text,
    binary,
    plugins,
    folders,
    files,
    streams,
    documents,
    messages,
    json_values,
    loaders,
    frames,
    foreign_objects,
)
"""All kinds of context, in the order in which they are asked. Each is a module that satisfies `Source`."""

REPL_SOURCES: tuple[Source, ...] = (subtext, text, json_values)
"""The kinds of context that a program in a sandbox can create."""


def home() -> Path:
    """Return the folder of all our data: `RLM_HOME`, or the user's data folder."""
    if chosen := os.environ.get("RLM_HOME"):
        return Path(chosen).expanduser().absolute()
    return default_home()


def default_home() -> Path:
    """Return the folder that is used without `RLM_HOME`: the user's data folder."""
    from platformdirs import user_data_path

    return user_data_path("rlm_langchain", appauthor=False)


def max_stream_bytes() -> int:
    """Return the most bytes to copy from a stream: `RLM_MAX_STREAM_BYTES`, or 1 GiB. Raises
    `ConfigurationError`."""
    chosen = os.environ.get("RLM_MAX_STREAM_BYTES")
    if not chosen:
        return MAX_STREAM_BYTES
    if not (chosen.isascii() and chosen.isdecimal() and int(chosen)):
        raise ConfigurationError(
            f"RLM_MAX_STREAM_BYTES is {one_line(chosen)}: give a number of bytes, such as {MAX_STREAM_BYTES}"
        )
    return int(chosen)


class ContextStore:
    """The contexts in one folder, by the hash of their content.

    Nothing is created before the first write. Safe for several threads and processes.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = home() if root is None else root.absolute()
        self.folder = self.root / "contexts"
        self._blobs = BlobStore(self.folder)
        self.images = ImageStore(self.root)

    def reference(self, context: Any, *, strict: bool = False, seconds: float | None = None) -> ContextRef | None:
        """Return a reference to a value. None for None and for an empty text, list or dict.

        Blocks while it reads and writes, about a second per gigabyte. With `strict`, undecodable content is
        refused instead of replaced. A reference made by a store of this home is returned as it is; a dict that
        only looks like one is a plain dict.

        Raises `InputError` for a value that cannot be a context or is not read within `seconds`, and
        `JournalError` if the store cannot be written or no longer has what a reference names.
        """
        if context is None:
            return None
        if references.accepts(context):
            return references.to_reference(context, self._blobs, self.root)
        store_writer = self._store_writer(strict=strict, seconds=seconds)
        if several.accepts(context):
            return self.several_to_reference(self._several(context, store_writer))
        source = next(source for source in SOURCES if source.accepts(context))
        return self._signed(source.to_reference(context, store_writer))

    def several_to_reference(self, contexts: several.Several) -> ContextRef | None:
        """Return a reference to a dict of several contexts."""
        return self._signed(contexts.to_reference(self._store_writer()))

    def _several(self, context: Any, store_writer: StoreWriter) -> several.Several:
        """Read the paths in a dict or a list."""
        found = several.Several(names=[*context] if isinstance(context, dict) else [])
        for key, item in several.named(context):
            if not isinstance(item, os.PathLike):
                found.add(key, item, None)
                continue
            left = None if store_writer.deadline == inf else store_writer.seconds_left(os.fsdecode(item))
            ref = self.reference(item, strict=store_writer.strict, seconds=left)
            is_folder = not found.names and os.path.isdir(item)
            found.add(key, "" if ref is None else self.load(ref), ref, is_folder=is_folder)
        return found

    def verified(self, ref: Any) -> ContextRef:
        """Return a reference from an untrusted place, such as a message, after verifying it.

        Raises `InputError` if it is not a reference, and `JournalError` if no store of this home made it.
        """
        if not references.accepts(ref):
            raise InputError("this is not a reference signed by a context store: pass the context itself")
        return references.verified(ref, self.root)

    def with_short_preview(self, ref: ContextRef, preview: int) -> ContextRef:
        """Return the same reference with at most `preview` characters of its preview."""
        cut: ContextRef = {**ref, "preview": ref["preview"][:preview]}
        if cut["type"] == "table":  # the shorter preview may have too few rows for a table
            cut["type"] = type_of_text(cut["preview"])
        return sign(cut, self.root)

    def _store_writer(self, *, strict: bool = False, seconds: float | None = None) -> StoreWriter:
        """Return a writer for new contexts, with the limits of this store."""
        deadline = inf if seconds is None else time.monotonic() + seconds
        return StoreWriter(self._blobs, self.images, strict, max_stream_bytes(), deadline)

    def reference_beneath(self, path: Path, roots: Sequence[Path]) -> ContextRef | None:
        """Return a reference to a file or folder below one of the roots, following links to places below it.

        Nothing else is read, even if others move files or replace them by links meanwhile. Raises as
        `reference`.
        """
        with streams.as_input_error(str(path)):
            within, found = beneath.resolve_in_roots(roots, path)
            with beneath.open_below(within, found) as descriptor:
                return self._signed(self._reference_opened(within, found, descriptor))

    def _reference_opened(self, within: Path, path: Path, descriptor: int) -> ContextRef | None:
        """Return a reference to an open file or folder."""
        store_writer, mode = self._store_writer(), os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode) and not plugins.accepts(path):
            return folders.folder_to_reference(within, path, store_writer)
        if not stat.S_ISREG(mode):
            raise InputError(f"cannot read {path}: it is neither a file nor a folder that can be read safely")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            if not plugins.accepts(path):
                return files.open_file_to_reference(file, path, store_writer)
            # A plug-in needs a path. It gets that of a private copy, because others may replace the file.
            with TemporaryDirectory() as folder:
                copied = Path(folder, path.name)
                with copied.open("wb") as copy:
                    shutil.copyfileobj(file, copy)
                return plugins.to_reference(copied, store_writer)

    def reference_from_repl(self, value: Any) -> ContextRef | None:
        """Return a reference to a value made by a program: a text, a list, a dict or a part of its context.

        A dict that looks like a reference is a plain dict, so a program cannot name what it was not given.
        """
        source = next(source for source in REPL_SOURCES if source.accepts(value))
        return self._signed(source.to_reference(value, self._store_writer()))

    def _signed(self, ref: ContextRef | None) -> ContextRef | None:
        return None if ref is None else sign(ref, self.root)

    def open(self, ref: ContextRef) -> ContextFile:
        """Return the verified file of a context. Raises `JournalError` that names what is missing or changed."""
        if wrong := references.reference_fault(dict(ref)):
            raise JournalError(f"a reference to a context is damaged: {wrong}")
        return open_reference(ref, self._blobs)

    def load(self, ref: ContextRef) -> str | list[Any] | dict[str, Any]:
        """Return the context as a value in memory. Raises as `open` does."""
        found = self.open(ref)
        content = read_context(found).decode()
        if found.kind == "text":
            return content
        value: list[Any] | dict[str, Any] = json.loads(content)
        return value

    def collect(self, *, older_than: float, keep: Collection[str], dry_run: bool = False) -> Collected:
        """Remove contexts that were not used for `older_than` seconds, except the sha256 in `keep`, and
        unfinished writes.

        With `dry_run`, only report what would be removed. A use is a `reference` or an `open`, with a
        resolution of one hour. Files that are used in place are never touched.
        """
        return self._blobs.collect(older_than, keep, dry_run=dry_run)
