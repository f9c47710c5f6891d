"""Holds the documents of a `FAISSStore` and their vectors in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlm_langchain.retrieval.extras import import_library
from rlm_langchain.retrieval.faiss_store.filters import Predicate
from rlm_langchain.retrieval.faiss_store.persistence import StoredDocument


@dataclass(slots=True)
class DocumentTable:
    """Documents by id, and an exact index of their vectors. Not safe for threads; `FAISSStore` locks it."""

    documents: dict[str, StoredDocument] = field(default_factory=dict)
    index: Any = None
    """The FAISS index. None: there are no documents, and the first vector will set the width."""
    next_number: int = 0
    """Number of the next vector."""
    names: dict[int, str] = field(init=False)
    """Ids of the documents by the numbers of their vectors."""

    def __post_init__(self) -> None:
        self.names = {stored.number: name for name, stored in self.documents.items()}

    def add(
        self, names: Sequence[str], texts: Sequence[str], metadatas: Sequence[Mapping[str, Any]], vectors: Any
    ) -> None:
        """Add documents, given by id, text, metadata and vector. They replace documents with the same ids.

        Of equal ids the last one counts. Raises `InputError` for invalid vectors; then nothing is added.
        """
        from rlm_langchain.retrieval.index.vectors import checked_vectors

        faiss = import_library("faiss")
        rows = checked_vectors(vectors, len(texts), self._width_without(names))
        order = sorted({name: i for i, name in enumerate(names)}.values())
        numbers = range(self.next_number, self.next_number + len(order))
        index = self.index if self.index is not None else faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
        if index.d != rows.shape[1]:  # all existing documents are replaced
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
        index.add_with_ids(rows[order], _numbers(numbers))
        self.remove(names)
        self.index, self.next_number = index, numbers.stop
        for i, number in zip(order, numbers, strict=True):
            self.documents[names[i]] = StoredDocument(number, texts[i], dict(metadatas[i]))
            self.names[number] = names[i]

    def remove(self, names: Iterable[str]) -> None:
        """Remove the documents with these ids. Unknown ids are ignored."""
        removed = [self.documents.pop(name).number for name in dict.fromkeys(names) if name in self.documents]
        for number in removed:
            del self.names[number]
        if removed:
            self.index.remove_ids(_numbers(removed))
        if not self.documents:
            self.index = None

    def nearest(
        self,
        vector: Sequence[float],
        k: int,
        predicate: Predicate | None,
        least: float | None = None,
    ) -> list[tuple[str, float]]:
        """Return the ids of at most `k` documents nearest to a vector, with their cosines, best first.

        Only documents that `predicate` accepts and whose cosine is at least `least` are returned.
        """
        from rlm_langchain.retrieval.index.vectors import checked_vectors

        if self.index is None:
            return []
        row, parameters = checked_vectors([vector], 1, self.index.d), None
        most = min(k, len(self.documents))
        if predicate is not None:
            fitting = [stored.number for name, stored in self.documents.items() if predicate(name, stored)]
            most = min(k, len(fitting))
            faiss = import_library("faiss")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(_numbers(fitting)))
        if most <= 0:
            return []
        scores, numbers = self.index.search(row, most, params=parameters)
        found = zip(numbers[0].tolist(), scores[0].tolist(), strict=True)
        floor = -2.0 if least is None else least
        return [(self.names[number], score) for number, score in found if number >= 0 and score >= floor]

    def _width_without(self, names: Sequence[str]) -> int | None:
        """Return the width of the vectors that stay when these ids are replaced; None if none stays."""
        return self.index.d if self.documents.keys() - set(names) else None


def _numbers(numbers: Iterable[int]) -> Any:
    import numpy as np

    return np.fromiter(numbers, np.int64)
