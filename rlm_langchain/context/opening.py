"""From a reference back to bytes that are what they were, or an error that names what is not."""

from __future__ import annotations

import time
from pathlib import Path

from rlm_langchain.context.blobs import Blobs
from rlm_langchain.context.seals import Seals, Stamp, hash_of
from rlm_langchain.errors import JournalError
from rlm_langchain.types import ContextFile, ContextRef


def open_reference(ref: ContextRef, blobs: Blobs) -> ContextFile:
    """The file, checked. Raises `JournalError` when it is missing, damaged or changed."""
    path = _in_place(Path(ref["path"]), ref, blobs.seals) if "path" in ref else _stored(ref, blobs)
    return ContextFile(path, ref["kind"], ref["length"], ref["size"], ref["sha256"])


def _stored(ref: ContextRef, blobs: Blobs) -> Path:
    return blobs.open(ref["sha256"], ref["size"])


def _in_place(path: Path, ref: ContextRef, seals: Seals) -> Path:
    at = time.time_ns()
    try:
        stamp = Stamp.of(path)
        same = seals.holds(path, ref["sha256"], stamp) or hash_of(path) == ref["sha256"]
    except OSError as error:
        raise JournalError(
            f"the file {path}, which is the context of this run, cannot be read ({error.strerror}): "
            "put it back as it was, or ask again in a new run"
        ) from error
    if not same:
        raise JournalError(
            f"the file {path}, which is the context of this run, has changed since the run began: "
            "put it back as it was, or ask again in a new run"
        )
    seals.seal(path, ref["sha256"], stamp, at)
    return path
