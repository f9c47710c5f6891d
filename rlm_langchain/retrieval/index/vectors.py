"""Vectors of passages in FAISS, compared by cosine: all of them up to a million, an inverted file beyond.

Import this module only after `extras.check_installed`, because it needs the extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlm_langchain.errors import InputError
from rlm_langchain.models.call import CallFailed
from rlm_langchain.retrieval.extras import import_library
from rlm_langchain.retrieval.index.bm25 import Ranking

MAX_EXACT = 1_000_000
"""Most vectors for which a search compares all of them."""
TRAINING_VECTORS_PER_CELL = 64
"""Vectors per cell that the inverted file is trained on."""
PROBED_SHARE = 0.06
"""Share of the cells that a search looks into. On real text, 98 of the 100 nearest vectors are in them."""
NAME = "vectors.faiss"


def normalized(vectors: Any) -> Any:
    """Return the vectors as rows of float32 of length one. Rows of zeros, and rows with a non-finite number, are
    zero."""
    rows = np.array(vectors, dtype=np.float32, ndmin=2)
    rows[~np.isfinite(rows).all(axis=1)] = 0
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def checked_vectors(vectors: Any, count: int, width: int | None = None) -> Any:
    """Return the vectors of an embedding model for `count` texts as rows of length one.

    Raises `InputError` for another number of vectors, another width, and numbers that are not finite.
    """
    found = len(vectors) if hasattr(vectors, "__len__") else None
    if found != count:
        problem = f"a {type(vectors).__name__}" if found is None else f"{found:,} vectors"
        raise InputError(f"the embedding model returned {problem} for {count:,} texts: it must return one for each")
    try:
        rows = np.array(vectors, np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or not rows.shape[1]:
        raise InputError("the embedding model returned vectors that are not lists of numbers of the same width")
    if width is not None and rows.shape[1] != width:
        problem = f"a vector of width {rows.shape[1]} does not fit the existing ones of width {width}"
        raise InputError(f"{problem}: use one embedding model for all")
    if not np.isfinite(rows).all():
        where = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InputError(f"the embedding model returned vector {where} with a number that is not finite")
    highest = np.abs(rows).max(axis=1, keepdims=True)
    return normalized(rows / np.where(highest > 0, highest, 1))  # scaled, because squares of large numbers overflow


def write_vectors(rows: Any, folder: Path, exact: int = MAX_EXACT) -> None:
    """Write an index of these rows, in the format of FAISS. More than `exact` rows get an inverted file."""
    faiss = import_library("faiss")
    index = faiss.IndexFlatIP(rows.shape[1]) if len(rows) <= exact else _train_inverted_file(rows)
    index.add(rows)
    faiss.write_index(index, str(folder / NAME))


def _train_inverted_file(rows: Any) -> Any:
    """Return an empty inverted file, trained on a sample of the rows."""
    faiss = import_library("faiss")
    count, width = rows.shape
    cells = max(1, round(2 * count**0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(count)[: cells * TRAINING_VECTORS_PER_CELL]
    index.train(rows[np.sort(sample)])
    return index


class VectorIndex:
    """A vector index on disk, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        faiss = import_library("faiss")
        # The first flag maps flat indexes, the second one inverted files.
        path = str(folder / NAME)
        self._index = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
        if isinstance(self._index, faiss.IndexIVF):
            self._index = faiss.read_index(path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            self._index.nprobe = max(1, round(self._index.nlist * PROBED_SHARE))
        self.width = int(self._index.d)

    def search(self, vector: Any, most: int, among: Any = None) -> Ranking:
        """Return at most `most` passages with the nearest vectors, best first, with their cosines.

        `among` is a mask of the passages that may be found. None: all of them.
        """
        if len(np.ravel(vector)) != self.width:
            problem = f"the query's vector is {len(np.ravel(vector))} wide, those of the texts {self.width}"
            raise CallFailed(
                "unknown", f"the embedding model returned vectors of different widths: {problem}", 0, 0.0
            )
        wanted = None if among is None else self._restrict_to(among)
        scores, numbers = self._index.search(normalized(vector), min(most, self._index.ntotal), params=wanted)
        found = numbers[0] >= 0
        return Ranking(numbers[0][found], scores[0][found])

    def _restrict_to(self, among: Any) -> Any:
        """Return the search parameters that restrict FAISS to a mask of passages."""
        faiss = import_library("faiss")
        chosen = faiss.IDSelectorBatch(np.flatnonzero(among))
        if isinstance(self._index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=chosen, nprobe=self._index.nprobe)
        return faiss.SearchParameters(sel=chosen)
