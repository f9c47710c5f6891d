"""`FAISSStore`: a LangChain vector store on faiss-cpu, saved as a file of FAISS and JSON, never as a pickle."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from typing_extensions import Self, override

from rlm_langchain.errors import ConfigurationError, InputError, RLMError
from rlm_langchain.models.call import CallFailed
from rlm_langchain.models.provider_errors import classify_error, is_graph_signal
from rlm_langchain.models.provider_words import log_failure
from rlm_langchain.retrieval import extras
from rlm_langchain.retrieval.copies import picklable_state
from rlm_langchain.retrieval.faiss_store.documents import DocumentTable
from rlm_langchain.retrieval.faiss_store.filters import Filter, Predicate, compile_filter
from rlm_langchain.retrieval.faiss_store.metadata import to_python_types
from rlm_langchain.retrieval.faiss_store.persistence import load, save
from rlm_langchain.validation import check_names, check_types


class FAISSStore(VectorStore):
    """Finds documents by the cosine of their vectors: exact, in memory, safe for threads.

    Scores are cosines, from -1 to 1. The cosine of a vector of zeros and any other vector is 0. Searches take:

    - `k`: the most documents to return. 0 returns none.
    - `filter`: a function of a document, or a dict of conditions on its metadata, all of which must hold. A
      condition is a value, a list of allowed values, or a dict of operators: `$eq`, `$ne` (or `$neq`), `$in`,
      `$nin`, `$gt`, `$gte`, `$lt`, `$lte`, `$exists`, `$not`. Conditions are combined by `$and`, `$or` and `$not`.
      A missing key counts as None, and does not satisfy any order.
    - `score_threshold`: the lowest score, a cosine (for `similarity_search_with_relevance_scores`: from 0 to 1).

    Adding is all or nothing. Raises `MissingDependency` without the extra; `ConfigurationError` for an embedding
    model that is none; `InputError` for invalid arguments, and unless there is one finite vector of the same width
    for each text; `CallFailed` if the embedding model fails.
    """

    def __init__(self, embedding: Embeddings) -> None:
        extras.check_installed()
        check_types(type(self).__name__, Embeddings, embedding=embedding)
        self.embedding = embedding
        self._table = DocumentTable()
        self._lock = threading.RLock()

    @property
    @override
    def embeddings(self) -> Embeddings:
        """Return the embedding model."""
        return self.embedding

    def __len__(self) -> int:
        return len(self._table.documents)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.embedding).__name__}, {len(self):,} documents)"

    def __copy__(self) -> Self:
        """Return a store with copies of the documents and the same embedding model."""
        copy = type(self).__new__(type(self))
        copy.__setstate__(self._state())
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Do what `__copy__` does: an embedding model may hold connections, which are not copied."""
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle. Raises `InputError` if the embedding model or metadata cannot be pickled."""
        return picklable_state(
            self._state(),
            f"a {type(self).__name__}",
            "use save_local(folder), and load_local(folder, embedding) where it is needed",
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        index, documents, next_number = state.pop("table")
        self.__dict__.update(state)
        self._table = DocumentTable(documents, index, next_number)
        self._lock = threading.RLock()

    def _state(self) -> dict[str, Any]:
        """Return everything except the lock. The index is copied."""
        from copy import deepcopy

        with self._lock:
            own = {name: value for name, value in vars(self).items() if name not in ("_table", "_lock")}
            table = self._table
            documents = {
                name: one._replace(metadata=to_python_types(one.metadata)) for name, one in table.documents.items()
            }
            return {**own, "table": (deepcopy(table.index), documents, table.next_number)}

    @override
    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, and return their ids. A text with an existing id replaces that document.

        Of equal ids the last one counts. If anything is wrong, no text is added. Raises `InputError` for values
        that are not text, for another number of metadata or ids, and unless there is one finite vector of the
        store's width for each text; `CallFailed` if the embedding model fails.
        """
        _check_options("add_texts", kwargs, _IGNORED_WHEN_ADDING, "metadatas, ids")
        texts, names, metadata_of_texts = _check_texts(texts, metadatas, ids)
        if texts:
            with _model_errors():
                vectors = self.embedding.embed_documents(texts)
            self._add(names, texts, metadata_of_texts, vectors)
        return names

    @override
    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do what `add_texts` does."""
        _check_options("aadd_texts", kwargs, _IGNORED_WHEN_ADDING, "metadatas, ids")
        texts, names, metadata_of_texts = _check_texts(texts, metadatas, ids)
        if texts:
            with _model_errors():
                vectors = await self.embedding.aembed_documents(texts)
            await asyncio.to_thread(self._add, names, texts, metadata_of_texts, vectors)
        return names

    @override
    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Remove the documents with these ids; None: all. Returns True, also if some of them did not exist.

        Raises `InputError` for values that are not ids, and for other options; then nothing is removed.
        """
        _check_options("delete", kwargs, (), "ids")
        names = None if ids is None else _ids(ids)
        with self._lock:
            self._table.remove(list(self._table.documents) if names is None else names)
        return True

    @override
    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in this order. Unknown ids are left out."""
        names = _ids(ids)
        with self._lock:
            documents = self._table.documents
            return [documents[name].document(name) for name in names if name in documents]

    @override
    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the `k` nearest documents, best first. Takes `filter` and `score_threshold`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    @override
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Do what `similarity_search` does."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    @override
    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,
        *,
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return the `k` nearest documents with their cosines, best first."""
        wanted = _search_arguments("similarity_search", k, filter, score_threshold, kwargs)
        return self._search(self._vector(query), *wanted)

    @override
    async def asimilarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Filter | None = None,
        *,
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Do what `similarity_search_with_score` does."""
        wanted = _search_arguments("similarity_search", k, filter, score_threshold, kwargs)
        return await asyncio.to_thread(self._search, await self._avector(query), *wanted)

    @override
    def similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, *, score_threshold: float | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the `k` nearest documents with scores from 0 to 1: cosines, with 0 for negative ones."""
        _check_threshold(score_threshold, 0)
        return super().similarity_search_with_relevance_scores(query, k, score_threshold=score_threshold, **kwargs)

    @override
    async def asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, *, score_threshold: float | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Do what `similarity_search_with_relevance_scores` does."""
        _check_threshold(score_threshold, 0)
        return await super().asimilarity_search_with_relevance_scores(
            query, k, score_threshold=score_threshold, **kwargs
        )

    @override
    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the `k` documents nearest to a vector. Takes `filter` and `score_threshold`."""
        found = self.similarity_search_with_score_by_vector(embedding, k, **kwargs)
        return [document for document, _ in found]

    @override
    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Do what `similarity_search_by_vector` does."""
        return await asyncio.to_thread(self.similarity_search_by_vector, embedding, k, **kwargs)

    def similarity_search_with_score_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        filter: Filter | None = None,
        *,
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return the `k` documents nearest to a vector, with their cosines."""
        return self._search(embedding, *_search_arguments("similarity_search", k, filter, score_threshold, kwargs))

    @override
    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return `k` of the `fetch_k` nearest documents, chosen to differ from each other.

        With `lambda_mult=0` they differ most, with 1 they are simply the nearest. Takes `filter` and
        `score_threshold`.
        """
        wanted = _diverse_arguments(k, fetch_k, lambda_mult, **kwargs)
        return self._select_diverse(self._vector(query), *wanted)

    @override
    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search` does."""
        wanted = _diverse_arguments(k, fetch_k, lambda_mult, **kwargs)
        return await asyncio.to_thread(self._select_diverse, await self._avector(query), *wanted)

    @override
    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search` does, for a vector."""
        return self._select_diverse(embedding, *_diverse_arguments(k, fetch_k, lambda_mult, **kwargs))

    @override
    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Do what `max_marginal_relevance_search_by_vector` does."""
        return await asyncio.to_thread(
            self._select_diverse, embedding, *_diverse_arguments(k, fetch_k, lambda_mult, **kwargs)
        )

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
        """Return a new store with these texts. Raises as `add_texts` does."""
        store = cls(embedding)
        store.add_texts(texts, metadatas, ids=ids, **kwargs)
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
        """Do what `from_texts` does."""
        store = cls(embedding)
        await store.aadd_texts(texts, metadatas, ids=ids, **kwargs)
        return store

    def save_local(self, folder: str | Path) -> None:
        """Save the store in a folder. An earlier store in it stays complete until the new one is.

        Metadata keeps its types: text, numbers, booleans, None, dates, times, `Decimal`, `UUID`, bytes, and lists,
        tuples, sets and dicts of these. Raises `InputError` for other types (for an Enum, give its `value`), and
        `JournalError` if the folder cannot be written.
        """
        with self._lock:
            save(Path(folder), self._table.index, self._table.documents, self._table.next_number)

    @classmethod
    def load_local(cls, folder: str | Path, embedding: Embeddings) -> Self:
        """Load a store that `save_local` has saved. Raises `JournalError` if it is missing, damaged or changed."""
        store = cls(embedding)
        index, documents, next_number = load(Path(folder))
        store._table = DocumentTable(documents, index, next_number)
        return store

    @override
    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Return a retriever. Options of the search go into `search_kwargs`.

        Raises `ConfigurationError` for unknown options, which LangChain would ignore.
        """
        if misplaced := [name for name in kwargs if name in _SEARCH_OPTIONS]:
            name = misplaced[0]
            raise ConfigurationError(f'as_retriever({name}=...): give it as search_kwargs={{"{name}": ...}}')
        check_names(kwargs, VectorStoreRetriever.model_fields)
        return super().as_retriever(**kwargs)

    @override
    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(1.0, max(0.0, cosine))

    def _add(self, names: list[str], texts: list[str], metadatas: list[dict[str, Any]], vectors: Any) -> None:
        with self._lock:
            self._table.add(names, texts, metadatas, vectors)

    def _vector(self, query: str) -> list[float]:
        with _model_errors():
            return self.embedding.embed_query(query)

    async def _avector(self, query: str) -> list[float]:
        with _model_errors():
            return await self.embedding.aembed_query(query)

    def _search(
        self, vector: list[float], k: int, predicate: Predicate | None, least: float | None
    ) -> list[tuple[Document, float]]:
        with self._lock:
            documents = self._table.documents
            return [
                (documents[name].document(name), score)
                for name, score in self._table.nearest(vector, k, predicate, least)
            ]

    def _select_diverse(
        self,
        vector: list[float],
        k: int,
        predicate: Predicate | None,
        least: float | None,
        fetch_k: int,
        lambda_mult: float,
    ) -> list[Document]:
        import numpy as np

        with self._lock:
            documents = self._table.documents
            names = [name for name, _ in self._table.nearest(vector, max(k, fetch_k), predicate, least)]
            vectors = [self._table.index.reconstruct(documents[name].number) for name in names]
            chosen = maximal_marginal_relevance(np.array(vector, np.float32), vectors, lambda_mult, k)
            return [documents[names[i]].document(names[i]) for i in chosen]


_SEARCH_OPTIONS = ("k", "filter", "score_threshold", "fetch_k", "lambda_mult")
_IGNORED_WHEN_ADDING = ("batch_size",)
"""Options that LangChain's indexing passes and that have no effect here."""
_IGNORED_WHEN_SEARCHING = ("fetch_k",)
"""Options that other stores need for a filter. They have no effect here, because all documents are compared."""


def _check_texts(
    texts: Iterable[str], metadatas: Any, ids: Sequence[str | None] | None
) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Return texts, ids and metadata, as many of each. Raises `InputError`."""
    texts = _strings("texts", texts)
    given = [_one_for_each(what, some, len(texts)) for what, some in (("metadatas", metadatas), ("ids", ids))]
    names = _strings("ids", [str(uuid.uuid4()) if name is None else name for name in given[1]])
    return texts, names, [_check_metadata(one) for one in given[0]]


def _one_for_each(what: str, given: Any, count: int) -> list[Any]:
    """Return one value for each of `count` texts; None for each if nothing was given. Raises `InputError`."""
    if given is None:
        return [None] * count
    some = None if isinstance(given, str | Mapping) or not isinstance(given, Iterable) else [*given]
    if some is None or len(some) != count:
        actual = f"a {type(given).__name__}" if some is None else f"{len(some)} {what}"
        raise InputError(f"{count} texts were given with {actual}: give a list of as many {what}")
    return some


def _check_metadata(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping | None) or not all(isinstance(key, str) for key in given or ()):
        raise InputError(f"metadata {repr(given)[:100]} is not a dict whose keys are text")
    try:
        return {key: to_python_types(value) for key, value in (given or {}).items()}
    except RecursionError as error:
        raise InputError("metadata is nested too deep, or contains itself: flatten it") from error


def _ids(given: Any) -> list[str]:
    return _strings("ids", given)


def _strings(what: str, given: Any) -> list[str]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InputError(f"{what} are {given!r}; give a list of texts")
    found = [*given]
    if wrong := [one for one in found if not isinstance(one, str)]:
        raise InputError(f"of the {what}, {wrong[0]!r} is a {type(wrong[0]).__name__}; give a list of texts")
    return found


def _search_arguments(
    name: str, k: int, filter: Filter | None, score_threshold: float | None, others: Mapping[str, Any]
) -> tuple[int, Predicate | None, float | None]:
    """Return the checked arguments of a search: `k`, the compiled filter, the lowest score. Raises `InputError`."""
    _check_options(name, others, _IGNORED_WHEN_SEARCHING, "k, filter, score_threshold")
    _check_count("k", k)
    _check_threshold(score_threshold, -1)
    return k, compile_filter(filter), score_threshold


def _diverse_arguments(
    k: int,
    fetch_k: int,
    lambda_mult: float,
    *,
    filter: Filter | None = None,
    score_threshold: float | None = None,
    **others: Any,
) -> tuple[int, Predicate | None, float | None, int, float]:
    name, known = "max_marginal_relevance_search", "k, fetch_k, lambda_mult, filter, score_threshold"
    _check_options(name, others, (), known)
    _check_count("fetch_k", fetch_k)
    if not 0 <= lambda_mult <= 1:
        raise InputError(f"lambda_mult is {lambda_mult!r}; give a number from 0 to 1")
    return *_search_arguments(name, k, filter, score_threshold, {}), fetch_k, lambda_mult


def _check_options(name: str, given: Iterable[str], passed_on: Sequence[str], known: str) -> None:
    if unknown := [option for option in given if option not in passed_on]:
        raise InputError(f"{name} has no option {unknown[0]!r}; its options are {known}")


def _check_count(name: str, given: Any) -> None:
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 0:
        raise InputError(f"{name} is {given!r}; give a whole number of 0 or more")


def _check_threshold(given: Any, least: int) -> None:
    if given is None:
        return
    if (
        isinstance(given, bool)
        or not isinstance(given, Real)
        or not isfinite(given)
        or not least <= float(given) <= 1
    ):
        raise InputError(f"score_threshold is {given!r}; give a number from {least} to 1")


@contextmanager
def _model_errors() -> Iterator[None]:
    """Turn an exception of the embedding model into `CallFailed`, because its text could contain a key."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RLMError) or is_graph_signal(error):
            raise
        log_failure("the embedding model failed", error)
        fault = classify_error(error)
        raise CallFailed(fault.code, f"the embedding model failed: {fault.message}", 0, 0.0) from None
