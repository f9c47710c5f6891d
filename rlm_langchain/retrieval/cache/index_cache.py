"""Indexes of contexts: found on the shelf, or made once, and kept open while they are used."""

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
"""Of what is on the shelf. Another number when words, passages or files change."""
OPEN = 32
"""Indexes that are kept open."""
CHUNK = 2_048
"""Passages whose texts are in memory at once while they are embedded."""

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
        """The best passages of a context or of a part of it, by words and, with an embedding model, by meaning.

        Raises `CallFailed` when the embedding model fails, and what `paying` raises.
        """
        index = await self.index(file, sha256)
        meaning = None
        if self.embedder is not None and len(index):
            dense = await self._vectors(file, sha256, len(index), paying)
            meaning = (dense, await self.embedder.query(query, paying))
        return await asyncio.to_thread(index.search, query, most, meaning, part)

    def ready(self, file: ContextFile, sha256: str) -> bool:
        """Whether everything that a search of a context needs is made already."""
        names = [_name("words", sha256, file.kind)]
        if self.embedder is not None:
            names.append(_name("vectors", sha256, file.kind, self.embedder.identity))
        with self._lock:
            missing = [name for name in names if name not in self._open]
        return all(self._shelf.find(name) is not None for name in missing)

    async def index(self, file: ContextFile, sha256: str) -> Index:
        """The index of words of a context."""
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
        """What is kept under a name, made first when it is not there; by one at a time, whoever asks."""
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
    """A row for each passage of a context."""
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
    """The name of an index: a hash of all that decides what is in it."""
    text = json.dumps([FORMAT, SHORTEST, PASSAGE_CHARS, LONGEST, *told])
    return hashlib.sha256(text.encode()).hexdigest()


class _Stopped(Exception):
    """Nobody waits any more."""


def _unless(stop: threading.Event) -> None:
    if stop.is_set():
        raise _Stopped
