"""Stores vectors by the hash of their text, so that a text is embedded and paid for only once.

There is one SQLite file for each embedding model and its settings. Safe for threads and processes.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlm_langchain.errors import JournalError

TABLE = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
MAX_KEYS_PER_QUERY = 500
"""Keys of one SQL query. Some builds of SQLite accept no more than 999 parameters."""


def cache_key(text: str) -> bytes:
    """Return the key of a text's vector."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).digest()


class EmbeddingCache:
    """The stored vectors of one embedding model."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Any]:
        """Return the stored vectors among these keys, as rows of float32."""
        if not self.path.exists():
            return {}
        found: dict[bytes, Any] = {}
        with self._open() as database:
            for i in range(0, len(keys), MAX_KEYS_PER_QUERY):
                some = keys[i : i + MAX_KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                rows = database.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some)  # noqa: S608
                found.update((key, np.frombuffer(vector, np.float32)) for key, vector in rows)
        return found

    def put(self, vectors: Mapping[bytes, Any] | Iterable[tuple[bytes, Any]]) -> None:
        """Store these vectors. Raises `JournalError` if they cannot be written."""
        rows = [(key, np.asarray(vector, np.float32).tobytes()) for key, vector in dict(vectors).items()]
        with self._open() as database, database:
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as database:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")
                database.execute(TABLE)
                yield database
        except (OSError, sqlite3.OperationalError) as error:
            raise self._storage_error(error) from error
        except sqlite3.DatabaseError as error:
            self.path.unlink(missing_ok=True)  # a damaged file is of no use: its texts are embedded again
            raise self._storage_error(error) from error

    def _storage_error(self, error: Exception) -> JournalError:
        return JournalError(
            f"vectors cannot be stored in {self.path} ({error}): make room there, or set RLM_HOME to a writable "
            "folder; a damaged file is removed, and built again when you ask again"
        )
