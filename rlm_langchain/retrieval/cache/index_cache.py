"""Finds or builds the indexes of contexts, and keeps recently used ones open."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import AsyncFileLock

from rlm_langchain.context.text_units import PASSAGE_CHARS
from rlm_langchain.retrieval.cache.index_store import IndexStore
from rlm_langchain.retrieval.embedder import Embedder, Paying, unpaid
from rlm_langchain.retrieval.index.passages import LONGEST, SHORTEST
from rlm_langchain.retrieval.index.subcontext import Slice, Slices
from rlm_langchain.run.event_loops import in_thread
from rlm_langchain.types import ContextFile

if TYPE_CHECKING:
    from rlm_langchain.retrieval.index.index import Index
    from rlm_langchain.retrieval.index.passages import Hit
    from rlm_langchain.retrieval.index.vectors import Dense

FORMAT = 2
"""Version of the stored indexes. It changes when the tokenizer, the passages or the files change."""
OPEN = 32
"""Most indexes that are kept open."""
CHUNK = 2_048
"""Number of passages whose texts are in memory at once while they are embedded."""

T = TypeVar("T")


class IndexCache:
    """The indexes under one folder. Safe for threads, event loops and processes."""

    def __init__(self, root: Path, embedder: Embedder | None) -> None:
        self.embedder = embedder
        self.slices = Slices()
        self._shelf = IndexStore(root)
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    async def search(
        self,
        file: ContextFile,
        sha256: str,
        query: str,
        most: int,
        paying: Paying = unpaid,
        part: Slice | None = None,
    ) -> list[Hit]:
        """Return the best passages of a context, or of a `part` of it: at most `most`, best first.

        Passages are found by words and, with an embedding model, by meaning. Raises `CallFailed` if the embedding
        model fails, and whatever `paying` raises.
        """
        index = await self.index(file, sha256)
        meaning = None
        if self.embedder is not None and len(index):
            dense = await self._vectors(file, sha256, len(index), paying)
            meaning = (dense, await self.embedder.query(query, paying))
        return await asyncio.to_thread(index.search, query, most, meaning, part)

    def ready(self, file: ContextFile, sha256: str) -> bool:
        """Return whether all indexes that a search of a context needs have been built."""
        names = [_name("words", sha256, file.kind)]
        if self.embedder is not None:
            names.append(_name("vectors", sha256, file.kind, self.embedder.identity))
        with self._lock:
            missing = [name for name in names if name not in self._open]
        return all(self._shelf.find(name) is not None for name in missing)

    async def index(self, file: ContextFile, sha256: str) -> Index:
        """Return the word index of a context. It is built if it does not exist."""
        from rlm_langchain.retrieval.index.index import Index, write

        async def make(folder: Path) -> None:
            stop = threading.Event()
            await in_thread(lambda: write(file, folder, lambda: _unless(stop)), stop.set)

        name = _name("words", sha256, file.kind)
        return await self._found(name, sha256, Index, make)

    async def _vectors(self, file: ContextFile, sha256: str, count: int, paying: Paying) -> Dense:
        from rlm_langchain.retrieval.index import vectors

        embedder = self.embedder
        assert embedder is not None  # noqa: S101 - for mypy

        async def make(folder: Path) -> None:
            rows = await _embedded(file, count, embedder, paying)
            await in_thread(lambda: vectors.write(rows, folder), lambda: None)

        name = _name("vectors", sha256, file.kind, embedder.identity)
        return await self._found(name, sha256, vectors.Dense, make)

    async def _found(self, name: str, sha256: str, opened: Callable[[Path], T], make: Callable[[Path], Any]) -> T:
        """Return the index with this name. If it does not exist, `make` builds it, once over all processes."""
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                known: T = self._open[name]
                return known
        async with AsyncFileLock(self._shelf.lock(name), thread_local=False):
            folder = await asyncio.to_thread(self._shelf.find, name)
            if folder is None:
                with self._shelf.making(name, sha256) as unfinished:
                    await make(unfinished)
                folder = self._shelf.path(name)
        found = await asyncio.to_thread(opened, folder)
        with self._lock:
            self._open[name] = found
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
        return found


async def _embedded(file: ContextFile, count: int, embedder: Embedder, paying: Paying) -> Any:
    """Return a row for each passage of a context."""
    import numpy as np

    from rlm_langchain.retrieval.index.index import pieces

    texts = (piece.text for piece in pieces(file, []))
    rows: Any = None
    for at in range(0, count, CHUNK):
        chunk = await asyncio.to_thread(lambda: list(islice(texts, CHUNK)))
        some = await embedder.documents(chunk, paying)
        if rows is None:
            rows = np.empty((count, some.shape[1]), np.float32)
        rows[at : at + len(some)] = some
    return rows


def _name(*told: str) -> str:
    """Return the name of an index: a hash of everything that decides its content."""
    text = json.dumps([FORMAT, SHORTEST, PASSAGE_CHARS, LONGEST, *told])
    return hashlib.sha256(text.encode()).hexdigest()


class _Stopped(Exception):
    """Stops the building of an index that nobody waits for any more."""


def _unless(stop: threading.Event) -> None:
    if stop.is_set():
        raise _Stopped
