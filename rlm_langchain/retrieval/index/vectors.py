"""Vectors of passages in FAISS, by cosine: exact up to a million, an inverted file with cells beyond.

Imported when the extra is known to be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlm_langchain.errors import InputError
from rlm_langchain.models.call import CallFailed
from rlm_langchain.retrieval.extras import library
from rlm_langchain.retrieval.index.bm25 import Ranked

EXACT = 1_000_000
"""Up to this many vectors all of them are compared."""
TRAINED = 64
"""Vectors for each cell that the cells are learnt from."""
VISITED = 0.06
"""Of the cells: those that a search looks into. On real text 98 of the 100 nearest are in them."""
NAME = "vectors.faiss"


def unit(vectors: Any) -> Any:
    """The vectors as rows of float32, each of length one; those of length zero, or broken, stay zero."""
    rows = np.array(vectors, dtype=np.float32, ndmin=2)
    rows[~np.isfinite(rows).all(axis=1)] = 0
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def checked(vectors: Any, count: int, width: int | None = None) -> Any:
    """What an embedding model gave for so many texts, as `unit` gives it, but with nothing broken in it.

    Raises `InputError` for another number of vectors, for another width, and for what are no finite numbers.
    """
    found = len(vectors) if hasattr(vectors, "__len__") else None
    if found != count:
        told = f"a {type(vectors).__name__}" if found is None else f"{found:,} vectors"
        raise InputError(f"the embedding model gave {told} for {count:,} texts: it must give one vector for each")
    try:
        rows = np.array(vectors, np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or not rows.shape[1]:
        raise InputError("the embedding model gave vectors that are no lists of numbers, all of one width")
    if width is not None and rows.shape[1] != width:
        told = f"a vector of width {rows.shape[1]} does not go with those of width {width} that are there"
        raise InputError(f"{told}: use one embedding model for all")
    if not np.isfinite(rows).all():
        where = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InputError(f"the embedding model gave a vector with a number that is not finite (number {where})")
    highest = np.abs(rows).max(axis=1, keepdims=True)
    return unit(rows / np.where(highest > 0, highest, 1))  # squares of large numbers are more than a float holds


def write(rows: Any, folder: Path, exact: int = EXACT) -> None:
    """Make an index of these rows, in FAISS' own format."""
    faiss = library("faiss")
    index = faiss.IndexFlatIP(rows.shape[1]) if len(rows) <= exact else _cells(rows)
    index.add(rows)
    faiss.write_index(index, str(folder / NAME))


def _cells(rows: Any) -> Any:
    """An inverted file that knows where the vectors lie thick."""
    faiss = library("faiss")
    count, width = rows.shape
    cells = max(1, round(2 * count**0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(count)[: cells * TRAINED]
    index.train(rows[np.sort(sample)])
    return index


class Dense:
    """An index of vectors on disk, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        faiss = library("faiss")
        # Flat ones are mapped by the one flag, inverted files by the other.
        path = str(folder / NAME)
        self._index = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
        if isinstance(self._index, faiss.IndexIVF):
            self._index = faiss.read_index(path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            self._index.nprobe = max(1, round(self._index.nlist * VISITED))
        self.width = int(self._index.d)

    def search(self, vector: Any, most: int, among: Any = None) -> Ranked:
        """The passages whose vectors are nearest, best first, with their cosines; `among` as for words."""
        if len(np.ravel(vector)) != self.width:
            told = f"a question's vector is {len(np.ravel(vector))} wide, those of the texts {self.width}"
            raise CallFailed("unknown", f"the embedding model gave vectors of other widths: {told}", 0, 0.0)
        wanted = None if among is None else self._only(among)
        scores, numbers = self._index.search(unit(vector), min(most, self._index.ntotal), params=wanted)
        there = numbers[0] >= 0
        return Ranked(numbers[0][there], scores[0][there])

    def _only(self, among: Any) -> Any:
        """What tells FAISS which passages may be found."""
        faiss = library("faiss")
        chosen = faiss.IDSelectorBatch(np.flatnonzero(among))
        if isinstance(self._index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=chosen, nprobe=self._index.nprobe)
        return faiss.SearchParameters(sel=chosen)
