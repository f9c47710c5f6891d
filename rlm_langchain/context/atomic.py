"""Files that are complete or absent: written under another name beside their place, then renamed.

A process that is killed leaves an unfinished file, which garbage collection removes a day later.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlm_langchain.errors import JournalError

UNFINISHED = "unfinished-"
"""The beginning of the names of unfinished files."""
ABANDONED_AFTER = 86_400
"""Seconds without a write after which an unfinished file is taken for that of a killed process."""


def write_file(path: Path, data: bytes, folder: Path | None = None) -> None:
    """Write a file, or replace it. `folder` is where it is unfinished, by default its own. Raises `OSError`."""
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=folder or path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def storing(what: str, folder: Path) -> Iterator[None]:
    """Turn operating system errors of a write into a `JournalError` about `what`, such as "a context"."""
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"{what} cannot be stored under {folder} ({error.strerror}): "
            "free some space there, or set RLM_HOME to a writable folder"
        ) from error


def remove_if_older(path: Path, before: float, *, dry_run: bool = False) -> int | None:
    """Remove a file that was last used before this time. Return its size in bytes, or None if it stays."""
    with suppress(OSError):
        found = path.stat()
        if found.st_mtime < before:
            if not dry_run:
                path.unlink()
            return found.st_size
    return None
