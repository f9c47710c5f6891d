"""Documents and their vectors in memory: what a `FAISSStore` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.documents import Document

from rlm_langchain.errors import InputError
from rlm_langchain.retrieval.extras import library
from rlm_langchain.retrieval.faiss_store.persistence import Kept

Filter = Callable[[Document], bool] | Mapping[str, Any]
"""What a document must satisfy: a function, or values of its metadata."""


@dataclass(slots=True)
class DocumentTable:
    """Documents by id, and an exact index of their vectors. Not safe for threads: its store is."""

    kept: dict[str, Kept] = field(default_factory=dict)
    index: Any = None
    """Made with the first vector, which tells the width."""
    following: int = 0
    """The number of the next vector."""
    names: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {kept.number: name for name, kept in self.kept.items()}

    def add(self, names: Sequence[str], texts: Sequence[str], metadatas: Any, vectors: Any) -> None:
        """Add these; whoever has their ids gives way, and of equal ids the last one counts."""
        from rlm_langchain.retrieval.index.vectors import unit

        rows = unit(vectors)
        self._check(rows.shape[1])
        self.remove(names)
        order = sorted({name: i for i, name in enumerate(names)}.values())
        numbers = range(self.following, self.following + len(order))
        self.following += len(order)
        self.index.add_with_ids(rows[order], _numbers(numbers))
        for i, number in zip(order, numbers, strict=True):
            self.kept[names[i]] = Kept(number, texts[i], dict(metadatas[i]) if metadatas else {})
            self.names[number] = names[i]

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of them that are there."""
        there = [self.kept.pop(name).number for name in dict.fromkeys(names) if name in self.kept]
        for number in there:
            del self.names[number]
        if there:
            self.index.remove_ids(_numbers(there))

    def near(self, vector: Sequence[float], k: int, filter: Filter | None) -> list[tuple[str, float]]:
        """The ids nearest to a vector, of those that satisfy the filter, with their cosines."""
        from rlm_langchain.retrieval.index.vectors import unit

        fitting = None if filter is None else self._fitting(filter)
        most = min(k, len(self.kept) if fitting is None else len(fitting))
        if most <= 0:
            return []
        row, parameters = unit(vector), None
        self._check(row.shape[1])
        if fitting is not None:
            faiss = library("faiss")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(_numbers(fitting)))
        scores, numbers = self.index.search(row, most, params=parameters)
        found = zip(numbers[0].tolist(), scores[0].tolist(), strict=True)
        return [(self.names[number], score) for number, score in found if number >= 0]

    def _check(self, width: int) -> None:
        """Raise `InputError` for a vector that does not go with the others."""
        faiss = library("faiss")
        if self.index is None:
            self.index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
        if self.index.d != width:
            raise InputError(
                f"a vector of width {width} does not go with those of width {self.index.d} in this store"
            )

    def _fitting(self, filter: Filter) -> list[int]:
        """The numbers of the documents that satisfy it."""
        if callable(filter):
            return [kept.number for name, kept in self.kept.items() if filter(kept.document(name))]
        wanted = filter.items()
        return [
            kept.number
            for kept in self.kept.values()
            if all(key in kept.metadata and kept.metadata[key] == value for key, value in wanted)
        ]


def _numbers(numbers: Iterable[int]) -> Any:
    import numpy as np

    return np.fromiter(numbers, np.int64)
