"""Stores indexes on disk: one folder each, complete or absent, named by a hash of what decides its content.

Guaranteed: a folder gets its name after everything in it was written; one that was changed or truncated since is
deleted, and the index is built again; no file is a pickle. Not guaranteed: that an index survives a power failure;
then its check fails.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rlm_langchain.context.atomic import ABANDONED_AFTER, UNFINISHED
from rlm_langchain.context.blobs import Collected
from rlm_langchain.context.file_hashes import FileStat, hash_file
from rlm_langchain.errors import JournalError

_HASHES_FILE = "meta.json"
_SOURCE_FILE = "source"
"""Name of the file with the SHA-256 of the indexed context."""


class IndexStore:
    """The indexes in one folder. Nothing is created before the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked: dict[Path, tuple[FileStat, ...]] = {}

    def path(self, name: str) -> Path:
        """Return the path of an index, whether or not it exists."""
        return self.root / name[:2] / name

    def find(self, name: str) -> Path | None:
        """Return the verified folder of an index, or None. A damaged one is deleted."""
        path = self.path(name)
        if not path.is_dir():
            return None
        if self._intact(path):
            with suppress(OSError):
                os.utime(path)  # its age counts from its last use
            return path
        shutil.rmtree(path, ignore_errors=True)
        return None

    @contextmanager
    def create(self, name: str, source: str = "") -> Iterator[Path]:
        """Yield an empty folder, which becomes the index when the block ends. After an error nothing is left.

        `source` is the SHA-256 of the indexed context. Raises `JournalError` if the disk cannot be written.
        """
        path = self.path(name)
        with self._as_journal_error():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.root))
        try:
            with self._as_journal_error():
                (folder / _SOURCE_FILE).write_text(source, encoding="utf-8")
                yield folder
                (folder / _HASHES_FILE).write_text(json.dumps(_file_hashes(folder)), encoding="utf-8")
                with suppress(FileExistsError):
                    _rename(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def lock(self, name: str) -> Path:
        """Return the lock file for building an index. Without it, two processes would both pay for it."""
        path = self.path(name)
        with self._as_journal_error():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path.with_suffix(".lock")

    def collect(self, *, older_than: float, keep: Collection[str] = (), dry_run: bool = False) -> Collected:
        """Remove the indexes that were not used for `older_than` seconds, and the remains of crashes.

        Indexes of contexts whose SHA-256 is in `keep` stay. With `dry_run`, only report what would be removed.
        """
        now, removed, size = time.time(), [], 0
        for path in [*self.root.glob(f"??/{'?' * 64}"), *self.root.glob(f"{UNFINISHED}*")]:
            age = max(older_than, ABANDONED_AFTER) if path.name.startswith(UNFINISHED) else older_than
            with suppress(OSError):
                if path.stat().st_mtime < now - age and _source(path) not in keep:
                    size += sum(file.stat().st_size for file in path.iterdir())
                    removed.append(path.name)
                    if not dry_run:
                        shutil.rmtree(path)
        return Collected(tuple(removed), size)

    def _intact(self, path: Path) -> bool:
        try:
            files: dict[str, Any] = json.loads((path / _HASHES_FILE).read_bytes())
            stamps = tuple(FileStat.of_path(path / file) for file in files)
            if self._checked.get(path) == stamps:
                return True
            whole = all(hash_file(path / file) == sha256 for file, sha256 in files.items())
        except (OSError, ValueError, AttributeError):
            return False
        if whole:
            self._checked[path] = stamps
        return whole

    @contextmanager
    def _as_journal_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(
                f"an index cannot be stored under {self.root} ({error.strerror}): "
                "free some space there, or set RLM_HOME to a writable folder"
            ) from error


def _source(folder: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return (folder / _SOURCE_FILE).read_text(encoding="utf-8")
    return None


def _file_hashes(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in sorted(folder.iterdir())}


def _rename(folder: Path, path: Path) -> None:
    """Rename a folder to its final name, unless another process has created it meanwhile."""
    try:
        os.rename(folder, path)
    except OSError:
        if not path.is_dir():
            raise
