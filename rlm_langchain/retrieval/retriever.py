"""`RLMRetriever`: the search of the REPL as a LangChain retriever, over anything that can be a context."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, PrivateAttr
from typing_extensions import Self

from rlm_langchain.context.mapped_text import open_mapped
from rlm_langchain.context.opening import read_context
from rlm_langchain.context.sources.text import warn_of_file_names
from rlm_langchain.context.store import ContextStore
from rlm_langchain.context.text_units import as_text
from rlm_langchain.retrieval import extras
from rlm_langchain.retrieval.cache.index_cache import SearchIndexes
from rlm_langchain.retrieval.copies import picklable_state
from rlm_langchain.retrieval.faiss_store.metadata import to_python_types
from rlm_langchain.retrieval.option import build_embedder
from rlm_langchain.run.event_loops import shared_loop
from rlm_langchain.types import ContextFile
from rlm_langchain.validation import check_names, check_types, option_errors


class RLMRetriever(BaseRetriever):
    """Finds the best `k` passages of a corpus, by words and, with embeddings, by meaning.

    The `page_content` of a result is the passage. Its metadata says where the passage is: `source`, `start`, `end`
    (in characters) and `score`; a passage of a LangChain document also has the metadata of that document. The index
    is built at the first query, and stored. Raises `MissingDependency` without the extra, `InputError` for a value
    that cannot be a corpus, `CallFailed` if the embedding model fails.
    """

    corpus: Any
    """Anything that can be the context of an RLM: documents, texts, a `Path` to a file or folder, ..."""
    embeddings: Any = None
    """A LangChain embedding model. None: search by words only."""
    k: int = Field(default=10, ge=1)
    """Most results of a query."""
    home: Path | None = None
    """Folder in which the corpus and its index are stored. None: `RLM_HOME`, else the user's data folder."""

    def __init__(
        self, *, corpus: Any, embeddings: Any = None, k: int = 10, home: Path | None = None, **options: Any
    ) -> None:
        """Create a retriever. `options` are those of every LangChain retriever, such as `tags`.

        Raises `ConfigurationError` for an unknown option, or a value of the wrong type.
        """
        check_names(options, type(self).model_fields)
        if embeddings is not None:
            check_types("RLMRetriever", Embeddings, embeddings=embeddings)
        warn_of_file_names(corpus, "the corpus")
        with option_errors(type(self)):
            super().__init__(corpus=corpus, embeddings=embeddings, k=k, home=home, **options)  # type: ignore[call-arg]

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield only the types of the corpus and the embedding model: they may be long, and contain keys."""
        size = f", {len(self.corpus):,} long" if hasattr(self.corpus, "__len__") else ""
        yield "corpus", f"{type(self.corpus).__name__}{size}"
        if self.embeddings is not None:
            yield "embeddings", type(self.embeddings).__name__
        yield "k", self.k

    def __getstate__(self) -> dict[Any, Any]:
        """Return the state for pickle; the index is found again by the corpus. Raises `InputError`."""
        fields = picklable_state(
            dict(self.__dict__),
            f"an {type(self).__name__}",
            "create one with the same corpus and embeddings where it is needed; it will find the stored index",
        )
        return {**super().__getstate__(), "__dict__": fields, "__pydantic_private__": None}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.model_post_init(None)

    def __copy__(self) -> Self:
        """Return a retriever with the same corpus and the same embedding model."""
        copy = type(self).__new__(type(self))
        copy.__setstate__({**super().__getstate__(), "__dict__": dict(self.__dict__), "__pydantic_private__": None})
        return copy

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Do what `__copy__` does: a corpus is only read, and an embedding model may hold connections."""
        return self.__copy__()

    _corpus: OpenCorpus | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        with shared_loop() as loop:
            return loop.call(self._search, query, k)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return await self._search(query, k)

    async def _search(self, query: str, k: int | None) -> list[Document]:
        from asyncio import to_thread

        opened = await to_thread(self._open)
        if opened.file is None:
            return []
        hits = await opened.indexes.search(opened.file, opened.sha256, query, k or self.k)
        return await to_thread(_to_documents, opened, hits)

    def _open(self) -> OpenCorpus:
        """Return the corpus in the store. It is stored at the first call."""
        with self._lock:
            if self._corpus is None:
                self._corpus = _open_corpus(self.corpus, self.embeddings, self.home)
            return self._corpus


class OpenCorpus(NamedTuple):
    """A corpus in the store, ready to be searched."""

    file: ContextFile | None
    """None: the corpus is empty."""
    sha256: str
    indexes: SearchIndexes
    value: Any
    """The corpus in memory. None: it is one text, which is read from the file."""
    metadatas: list[dict[str, Any]] | None
    """Original metadata of the documents of a corpus; in `value`, dates are texts. None: no documents."""


def _open_corpus(corpus: Any, embeddings: Any, home: Path | None) -> OpenCorpus:
    extras.check_installed()
    store = ContextStore(home)
    embedder = None if embeddings is None else build_embedder(embeddings, store.root, {})
    indexes = SearchIndexes(store.root / "indexes", embedder)
    ref = store.reference(corpus)
    if ref is None:
        return OpenCorpus(None, "", indexes, None, None)
    file = store.open(ref)
    value = json.loads(read_context(file)) if file.kind == "json" else None
    return OpenCorpus(file, ref["sha256"], indexes, value, _metadatas(corpus))


def _metadatas(corpus: Any) -> list[dict[str, Any]] | None:
    documents = corpus if isinstance(corpus, list | tuple) else [corpus]
    if not all(isinstance(one, Document) for one in documents):
        return None
    return [to_python_types(one.metadata) for one in documents]


def _to_documents(opened: OpenCorpus, hits: list[Any]) -> list[Document]:
    if opened.value is None and opened.file is not None:
        with open_mapped(opened.file) as text:
            return [_to_document(hit, text.slice(hit.start, hit.end), {}) for hit in hits]
    return [_to_document(hit, *_text_and_metadata(opened, hit)) for hit in hits]


def _text_and_metadata(opened: OpenCorpus, hit: Any) -> tuple[str, dict[str, Any]]:
    """Return the text of a hit and the metadata of its document."""
    value, metadata = opened.value, dict[str, Any]()
    for step in hit.unit.path:
        if step == "page_content" and isinstance(value.get("metadata"), dict):
            metadata = value["metadata"]
        value = value[step]
    if opened.metadatas is not None:
        metadata = opened.metadatas[hit.unit.path[0]]
    return as_text(value)[hit.start : hit.end], metadata


def _to_document(hit: Any, text: str, metadata: dict[str, Any]) -> Document:
    place = {"start": hit.start, "end": hit.end, "score": hit.score}
    name = f"{hit.unit.label}:{hit.start}-{hit.end}"
    return Document(id=name, page_content=text, metadata={"source": hit.unit.label, **metadata, **place})
