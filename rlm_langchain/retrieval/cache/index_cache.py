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
from rlm_langchain.retrieval.embedder import Embedder, ReserveUsage, no_reservation
from rlm_langchain.retrieval.index.passages import MAX_CHARS, MIN_CHARS
from rlm_langchain.retrieval.index.subcontext import Slice, SliceFinder
from rlm_langchain.run.event_loops import run_in_thread
from rlm_langchain.types import ContextFile

if TYPE_CHECKING:
    from rlm_langchain.retrieval.index.index import Index
    from rlm_langchain.retrieval.index.passages import Hit
    from rlm_langchain.retrieval.index.vectors import VectorIndex

FORMAT = 2
"""Version of the stored indexes. It changes when the tokenizer, the passages or the files change."""
MAX_OPEN = 32
"""Most indexes that are kept open."""
CHUNK_PASSAGES = 2_048
"""Number of passages whose texts are in memory at once while they are embedded."""

T = TypeVar("T")


class SearchIndexes:
    """The indexes under one folder. Safe for threads, event loops and processes."""

    def __init__(self, root: Path, embedder: Embedder | None) -> None:
        self.embedder = embedder
        self.slices = SliceFinder()
        self._store = IndexStore(root)
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    async def search(
        self,
        file: ContextFile,
        sha256: str,
        query: str,
        most: int,
        reserve: ReserveUsage = no_reservation,
        part: Slice | None = None,
    ) -> list[Hit]:
        """Return the best passages of a context, or of a `part` of it: at most `most`, best first.

        Passages are found by words and, with an embedding model, by meaning. Raises `CallFailed` if the embedding
        model fails, and whatever `reserve` raises.
        """
        index = await self.index(file, sha256)
        meaning = None
        if self.embedder is not None and len(index):
            dense = await self._vectors(file, sha256, len(index), reserve)
            meaning = (dense, await self.embedder.embed_query(query, reserve))
        return await asyncio.to_thread(index.search, query, most, meaning, part)

    def is_ready(self, file: ContextFile, sha256: str) -> bool:
        """Return whether all indexes that a search of a context needs have been built."""
        names = [_index_name("words", sha256, file.kind)]
        if self.embedder is not None:
            names.append(_index_name("vectors", sha256, file.kind, self.embedder.identity))
        with self._lock:
            missing = [name for name in names if name not in self._open]
        return all(self._store.find(name) is not None for name in missing)

    async def index(self, file: ContextFile, sha256: str) -> Index:
        """Return the word index of a context. It is built if it does not exist."""
        from rlm_langchain.retrieval.index.index import Index, write_index

        async def make(folder: Path) -> None:
            stop = threading.Event()
            await run_in_thread(lambda: write_index(file, folder, lambda: _raise_if_stopped(stop)), stop.set)

        name = _index_name("words", sha256, file.kind)
        return await self._open_or_build(name, sha256, Index, make)

    async def _vectors(self, file: ContextFile, sha256: str, count: int, reserve: ReserveUsage) -> VectorIndex:
        from rlm_langchain.retrieval.index import vectors

        embedder = self.embedder
        assert embedder is not None  # noqa: S101 - for mypy

        async def make(folder: Path) -> None:
            rows = await _embed_passages(file, count, embedder, reserve)
            await run_in_thread(lambda: vectors.write_vectors(rows, folder), lambda: None)

        name = _index_name("vectors", sha256, file.kind, embedder.identity)
        return await self._open_or_build(name, sha256, vectors.VectorIndex, make)

    async def _open_or_build(
        self, name: str, sha256: str, open_index: Callable[[Path], T], make: Callable[[Path], Any]
    ) -> T:
        """Return the index with this name. If it does not exist, `make` builds it, once over all processes."""
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                known: T = self._open[name]
                return known
        async with AsyncFileLock(self._store.lock(name), thread_local=False):
            folder = await asyncio.to_thread(self._store.find, name)
            if folder is None:
                with self._store.create(name, sha256) as unfinished:
                    await make(unfinished)
                folder = self._store.path(name)
        found = await asyncio.to_thread(open_index, folder)
        with self._lock:
            self._open[name] = found
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return found


async def _embed_passages(file: ContextFile, count: int, embedder: Embedder, reserve: ReserveUsage) -> Any:
    """Return a row for each passage of a context."""
    import numpy as np

    from rlm_langchain.retrieval.index.index import read_passages

    texts = (piece.text for piece in read_passages(file, []))
    rows: Any = None
    for at in range(0, count, CHUNK_PASSAGES):
        chunk = await asyncio.to_thread(lambda: list(islice(texts, CHUNK_PASSAGES)))
        some = await embedder.embed_documents(chunk, reserve)
        if rows is None:
            rows = np.empty((count, some.shape[1]), np.float32)
        rows[at : at + len(some)] = some
    return rows


def _index_name(*parts: str) -> str:
    """Return the name of an index: a hash of everything that decides its content."""
    text = json.dumps([FORMAT, MIN_CHARS, PASSAGE_CHARS, MAX_CHARS, *parts])
    return hashlib.sha256(text.encode()).hexdigest()


class _Stopped(Exception):
    """Stops the building of an index that nobody waits for any more."""


def _raise_if_stopped(stop: threading.Event) -> None:
    if stop.is_set():
        raise _Stopped
