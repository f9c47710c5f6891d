"""`FAISSStore`: a LangChain vector store on faiss-cpu, kept as FAISS' own file and JSON. No pickle anywhere."""

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
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from typing_extensions import Self, override

from rlm_langchain.errors import InputError, RLMError
from rlm_langchain.models.call import CallFailed
from rlm_langchain.models.provider_errors import classify_error, is_graph_signal
from rlm_langchain.models.provider_words import log_failure
from rlm_langchain.retrieval import extras
from rlm_langchain.retrieval.copies import pickled_with
from rlm_langchain.retrieval.faiss_store.documents import DocumentTable
from rlm_langchain.retrieval.faiss_store.filters import Filter, Fits, what_fits
from rlm_langchain.retrieval.faiss_store.metadata import natural
from rlm_langchain.retrieval.faiss_store.persistence import load, save


class FAISSStore(VectorStore):
    """Documents by the cosine of their vectors: exact, in memory, safe for threads.

    Scores are cosines, from -1 to 1; a vector of zeros has the cosine 0 with every other. Searches take:

    - `k`: how many documents, at most. 0 finds none.
    - `filter`: which documents may be found: a function of a document, or a dict of conditions that all hold. A
      condition is a value, a list of values of which it is one, or operators: `$eq`, `$ne` (or `$neq`), `$in`,
      `$nin`, `$gt`, `$gte`, `$lt`, `$lte`, `$exists`, `$not`; around conditions go `$and`, `$or` and `$not`. What
      is not there is as good as None, and has no order.
    - `score_threshold`: the least score, a cosine (of `similarity_search_with_relevance_scores`: from 0 to 1).

    Adding is all or nothing. Raises `MissingDependency` without the extra; `InputError` for what cannot be meant,
    and for vectors that are not one for each text, of one width, and finite; `CallFailed` when the embedding model
    fails.
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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.embedding).__name__}, {len(self):,} documents)"

    def __copy__(self) -> Self:
        """A store with documents of its own, and the same embedding model."""
        copy = type(self).__new__(type(self))
        copy.__setstate__(self._state())
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Like `__copy__`: an embedding model may hold connections, which are not copied."""
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        """For pickle. Raises `InputError` when the embedding model or metadata cannot be pickled."""
        return pickled_with(
            self._state(),
            f"a {type(self).__name__}",
            "use save_local(folder), and load_local(folder, embedding) where it is needed",
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        index, kept, following = state.pop("held")
        self.__dict__.update(state)
        self._held = DocumentTable(kept, index, following)
        self._lock = threading.RLock()

    def _state(self) -> dict[str, Any]:
        """All but the lock; the index is a copy."""
        from copy import deepcopy

        with self._lock:
            own = {name: value for name, value in vars(self).items() if name not in ("_held", "_lock")}
            held = self._held
            kept = {name: one._replace(metadata=natural(one.metadata)) for name, one in held.kept.items()}
            return {**own, "held": (deepcopy(held.index), kept, held.following)}

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

        Of equal ids the last one counts. All are added or, when anything is wrong, none. Raises `InputError` for
        what is no text, for metadata or ids of another number than the texts, and for vectors that are not one for
        each text, of the width of the others, and finite; `CallFailed` when the embedding model fails.
        """
        _check_options("add_texts", kwargs, _ADDING, "metadatas, ids")
        texts, names, told = _given(texts, metadatas, ids)
        if texts:
            with _model_errors():
                vectors = self.embedding.embed_documents(texts)
            self._add(names, texts, told, vectors)
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
        """Like `add_texts`."""
        _check_options("aadd_texts", kwargs, _ADDING, "metadatas, ids")
        texts, names, told = _given(texts, metadatas, ids)
        if texts:
            with _model_errors():
                vectors = await self.embedding.aembed_documents(texts)
            await asyncio.to_thread(self._add, names, texts, told, vectors)
        return names

    @override
    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Remove these, or all with None. Those that are not there are no error: True says that none is there now.

        Raises `InputError`, and removes none, for what are no ids.
        """
        names = None if ids is None else _ids(ids)
        with self._lock:
            self._held.remove(list(self._held.kept) if names is None else names)
        return True

    @override
    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Those of them that are there, in the order asked."""
        names = _ids(ids)
        with self._lock:
            kept = self._held.kept
            return [kept[name].document(name) for name in names if name in kept]

    @override
    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` nearest documents, best first. Takes `filter` and `score_threshold`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    @override
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Like `similarity_search`."""
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
        """The same with their cosines."""
        wanted = _wanted("similarity_search", k, filter, score_threshold, kwargs)
        return self._scored(self._vector(query), *wanted)

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
        """Like `similarity_search_with_score`."""
        wanted = _wanted("similarity_search", k, filter, score_threshold, kwargs)
        return await asyncio.to_thread(self._scored, await self._avector(query), *wanted)

    @override
    def similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, *, score_threshold: float | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The same with scores from 0 to 1: cosines, and 0 for those below."""
        _check_threshold(score_threshold, 0)
        return super().similarity_search_with_relevance_scores(query, k, score_threshold=score_threshold, **kwargs)

    @override
    async def asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, *, score_threshold: float | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Like `similarity_search_with_relevance_scores`."""
        _check_threshold(score_threshold, 0)
        return await super().asimilarity_search_with_relevance_scores(
            query, k, score_threshold=score_threshold, **kwargs
        )

    @override
    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The `k` documents nearest to a vector. Takes `filter` and `score_threshold`."""
        found = self.similarity_search_with_score_by_vector(embedding, k, **kwargs)
        return [document for document, _ in found]

    @override
    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Like `similarity_search_by_vector`."""
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
        """The `k` documents nearest to a vector, with their cosines."""
        return self._scored(embedding, *_wanted("similarity_search", k, filter, score_threshold, kwargs))

    @override
    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`k` of the `fetch_k` nearest that differ among themselves: the less, the higher `lambda_mult`, 0 to 1.

        Takes `filter` and `score_threshold`.
        """
        wanted = _diverse(k, fetch_k, lambda_mult, **kwargs)
        return self._differing(self._vector(query), *wanted)

    @override
    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Like `max_marginal_relevance_search`."""
        wanted = _diverse(k, fetch_k, lambda_mult, **kwargs)
        return await asyncio.to_thread(self._differing, await self._avector(query), *wanted)

    @override
    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """The same for a vector."""
        return self._differing(embedding, *_diverse(k, fetch_k, lambda_mult, **kwargs))

    @override
    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Like `max_marginal_relevance_search_by_vector`."""
        return await asyncio.to_thread(self._differing, embedding, *_diverse(k, fetch_k, lambda_mult, **kwargs))

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
        """Like `from_texts`."""
        store = cls(embedding)
        await store.aadd_texts(texts, metadatas, ids=ids, **kwargs)
        return store

    def save_local(self, folder: str | Path) -> None:
        """Keep everything in a folder. What was there before stays whole until this is.

        Metadata is loaded as what it was: text, numbers, booleans, None, dates, times, `Decimal`, `UUID`, bytes,
        and lists, tuples, sets and dicts of these. Raises `InputError` for other types (of an Enum give its
        `value`), and `JournalError` when the disk does not take it.
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

    def _add(self, names: list[str], texts: list[str], metadatas: list[dict[str, Any]], vectors: Any) -> None:
        with self._lock:
            self._held.add(names, texts, metadatas, vectors)

    def _vector(self, query: str) -> list[float]:
        with _model_errors():
            return self.embedding.embed_query(query)

    async def _avector(self, query: str) -> list[float]:
        with _model_errors():
            return await self.embedding.aembed_query(query)

    def _scored(
        self, vector: list[float], k: int, fits: Fits | None, least: float | None
    ) -> list[tuple[Document, float]]:
        with self._lock:
            kept = self._held.kept
            return [(kept[name].document(name), score) for name, score in self._held.near(vector, k, fits, least)]

    def _differing(
        self, vector: list[float], k: int, fits: Fits | None, least: float | None, fetch_k: int, lambda_mult: float
    ) -> list[Document]:
        import numpy as np

        with self._lock:
            kept = self._held.kept
            names = [name for name, _ in self._held.near(vector, max(k, fetch_k), fits, least)]
            vectors = [self._held.index.reconstruct(kept[name].number) for name in names]
            chosen = maximal_marginal_relevance(np.array(vector, np.float32), vectors, lambda_mult, k)
            return [kept[names[i]].document(names[i]) for i in chosen]


_ADDING = ("batch_size",)
"""What LangChain's indexing hands on, and nothing here goes by."""
_SEARCHING = ("fetch_k",)
"""What other stores need for a filter: here all documents are compared anyway."""


def _given(
    texts: Iterable[str], metadatas: Any, ids: Sequence[str | None] | None
) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Texts, ids and metadata, one for each. Raises `InputError`."""
    texts = _strings("texts", texts)
    given = [_as_many(what, some, len(texts)) for what, some in (("metadatas", metadatas), ("ids", ids))]
    names = _strings("ids", [str(uuid.uuid4()) if name is None else name for name in given[1]])
    return texts, names, [_metadata(one) for one in given[0]]


def _as_many(what: str, given: Any, count: int) -> list[Any]:
    """What was given for each of so many texts; None for each when nothing was."""
    if given is None:
        return [None] * count
    some = None if isinstance(given, str | Mapping) or not isinstance(given, Iterable) else [*given]
    if some is None or len(some) != count:
        told = f"a {type(given).__name__}" if some is None else f"{len(some)} {what}"
        raise InputError(f"{count} texts were given with {told}: give a list of as many {what}")
    return some


def _metadata(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping | None) or not all(isinstance(key, str) for key in given or ()):
        raise InputError(f"metadata {repr(given)[:100]} is no dict whose keys are text")
    try:
        return {key: natural(value) for key, value in (given or {}).items()}
    except RecursionError as error:
        raise InputError("metadata is nested too deep, or holds itself: flatten it") from error


def _ids(given: Any) -> list[str]:
    return _strings("ids", given)


def _strings(what: str, given: Any) -> list[str]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InputError(f"{what} are {given!r}; give a list of texts")
    found = [*given]
    if wrong := [one for one in found if not isinstance(one, str)]:
        raise InputError(f"of the {what}, {wrong[0]!r} is a {type(wrong[0]).__name__}; give a list of texts")
    return found


def _wanted(
    name: str, k: int, filter: Filter | None, score_threshold: float | None, others: Mapping[str, Any]
) -> tuple[int, Fits | None, float | None]:
    """What a search was asked for. Raises `InputError`."""
    _check_options(name, others, _SEARCHING, "k, filter, score_threshold")
    _check_count("k", k)
    _check_threshold(score_threshold, -1)
    return k, what_fits(filter), score_threshold


def _diverse(
    k: int,
    fetch_k: int,
    lambda_mult: float,
    *,
    filter: Filter | None = None,
    score_threshold: float | None = None,
    **others: Any,
) -> tuple[int, Fits | None, float | None, int, float]:
    name, known = "max_marginal_relevance_search", "k, fetch_k, lambda_mult, filter, score_threshold"
    _check_options(name, others, (), known)
    _check_count("fetch_k", fetch_k)
    if not 0 <= lambda_mult <= 1:
        raise InputError(f"lambda_mult is {lambda_mult!r}; give a number from 0 to 1")
    return *_wanted(name, k, filter, score_threshold, {}), fetch_k, lambda_mult


def _check_options(name: str, given: Iterable[str], passed_on: Sequence[str], known: str) -> None:
    if unknown := [option for option in given if option not in passed_on]:
        raise InputError(f"{name} has no option {unknown[0]!r}; there are {known}")


def _check_count(name: str, given: Any) -> None:
    if not isinstance(given, Integral) or given < 0:
        raise InputError(f"{name} is {given!r}; give a whole number that is not below 0")


def _check_threshold(given: Any, least: int) -> None:
    if given is None:
        return
    if not isinstance(given, Real) or not isfinite(given) or not least <= float(given) <= 1:
        raise InputError(f"score_threshold is {given!r}; give a number from {least} to 1")


@contextmanager
def _model_errors() -> Iterator[None]:
    """What an embedding model raises, as one of our errors: a foreign error's text could hold a key."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RLMError) or is_graph_signal(error):
            raise
        log_failure("the embedding model failed", error)
        fault = classify_error(error)
        raise CallFailed(fault.code, f"the embedding model failed: {fault.message}", 0, 0.0) from None
