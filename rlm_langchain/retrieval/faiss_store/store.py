"""`FAISSStore`: a LangChain vector store on faiss-cpu, kept as FAISS' own file and JSON. No pickle anywhere."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from typing_extensions import Self, override

from rlm_langchain.errors import InputError
from rlm_langchain.retrieval import extras
from rlm_langchain.retrieval.faiss_store.documents import DocumentTable, Filter
from rlm_langchain.retrieval.faiss_store.persistence import load, save


class FAISSStore(VectorStore):
    """Documents by the cosine of their vectors: exact, in memory, safe for threads.

    Scores are cosines, from -1 to 1. Raises `MissingDependency` without the extra.
    """

    def __init__(self, embedding: Embeddings) -> None:
        extras.check()
        self.embedding = embedding
        self._held = DocumentTable()
        self._lock = threading.RLock()

    @property
    @override
    def embeddings(self) -> Embeddings:
        """The embedding model."""
        return self.embedding

    def __len__(self) -> int:
        return len(self._held.kept)

    @override
    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts; one whose id is there already takes its place. Returns the ids.

        Raises `InputError` for metadata or ids of another number than the texts, or vectors of another width.
        """
        texts = list(texts)
        names = _names(texts, metadatas, ids)
        return self._add(names, texts, metadatas, self.embedding.embed_documents(texts))

    @override
    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Like `add_texts`."""
        texts = list(texts)
        names = _names(texts, metadatas, ids)
        vectors = await self.embedding.aembed_documents(texts)
        return await asyncio.to_thread(self._add, names, texts, metadatas, vectors)

    @override
    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Remove these, or all with None. Those that are not there are no error."""
        with self._lock:
            self._held.remove(list(self._held.kept) if ids is None else ids)
        return True

    @override
    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Those of them that are there, in the order asked."""
        with self._lock:
            kept = self._held.kept
            return [kept[name].document(name) for name in ids if name in kept]

    @override
    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` nearest documents, best first; with `filter`, of those that satisfy it."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    @override
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Like `similarity_search`."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    @override
    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same with their cosines."""
        return self.similarity_search_with_score_by_vector(self.embedding.embed_query(query), k, filter)

    @override
    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Like `similarity_search_with_score`."""
        vector = await self.embedding.aembed_query(query)
        return await asyncio.to_thread(self.similarity_search_with_score_by_vector, vector, k, filter)

    @override
    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """The `k` documents nearest to a vector."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter)]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None
    ) -> list[tuple[Document, float]]:
        """The `k` documents nearest to a vector, with their cosines."""
        with self._lock:
            kept = self._held.kept
            return [(kept[name].document(name), score) for name, score in self._held.near(embedding, k, filter)]

    @override
    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`k` of the `fetch_k` nearest that differ among themselves: the less, the higher `lambda_mult`, 0 to 1."""
        vector = self.embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    @override
    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Like `max_marginal_relevance_search`."""
        vector = await self.embedding.aembed_query(query)
        return await asyncio.to_thread(
            self.max_marginal_relevance_search_by_vector, vector, k, fetch_k, lambda_mult, **kwargs
        )

    @override
    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The same for a vector."""
        import numpy as np

        with self._lock:
            kept = self._held.kept
            names = [name for name, _ in self._held.near(embedding, max(k, fetch_k), filter)]
            vectors = [self._held.index.reconstruct(kept[name].number) for name in names]
            chosen = maximal_marginal_relevance(np.array(embedding, np.float32), vectors, lambda_mult, k)
            return [kept[names[i]].document(names[i]) for i in chosen]

    @classmethod
    @override
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store that holds these texts."""
        store = cls(embedding)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    @override
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Like `from_texts`."""
        store = cls(embedding)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def save_local(self, folder: str | Path) -> None:
        """Keep everything in a folder. What was there before stays whole until this is.

        Raises `InputError` for metadata that is no JSON, and `JournalError` when the disk does not take it.
        """
        with self._lock:
            save(Path(folder), self._held.index, self._held.kept, self._held.following)

    @classmethod
    def load_local(cls, folder: str | Path, embedding: Embeddings) -> Self:
        """What `save_local` kept. Raises `JournalError` when it is missing, damaged or changed."""
        store = cls(embedding)
        index, kept, following = load(Path(folder))
        store._held = DocumentTable(kept, index, following)
        return store

    @override
    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, cosine))

    def _add(self, names: list[str], texts: list[str], metadatas: Any, vectors: Any) -> list[str]:
        if texts:
            with self._lock:
                self._held.add(names, texts, metadatas, vectors)
        return names


def _names(texts: list[str], metadatas: Any, ids: Sequence[str | None] | None) -> list[str]:
    """An id for each text. Raises `InputError`."""
    for what, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(texts):
            raise InputError(f"{len(texts)} texts were given with {len(given)} {what}: give as many")
    return [name or str(uuid.uuid4()) for name in ids or [None] * len(texts)]
