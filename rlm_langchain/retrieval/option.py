"""The option `retriever=`: builds the object that answers `search` in the REPL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.models.model import Price
from rlm_langchain.prompts.render import render
from rlm_langchain.retrieval import extras
from rlm_langchain.retrieval.cache.index_cache import SearchIndexes
from rlm_langchain.retrieval.embedder import (
    Embedder,
    identity_of,
    name_of,
    price_of,
)

BM25 = "bm25"
"""Value of the option for search by words alone."""


@dataclass(frozen=True, slots=True)
class Search:
    """The target of `search`: our indexes of the context, or a user's own retriever or vector store."""

    indexes: SearchIndexes | None = None
    external: Any = None

    @property
    def embedder(self) -> Embedder | None:
        """Return the embedding model that is called on the run's budget, or None."""
        return self.indexes.embedder if self.indexes else None

    def guidance(self, profile: str) -> str:
        """Return the instructions about `search` for the root model."""
        if self.indexes is None:
            return render(profile, "search", what="an index that was made before", how="what it goes by")
        how = (
            "words and meaning"
            if self.indexes.embedder
            else "words, so put likely words of the text into the query"
        )
        return render(profile, "search", what="the context", how=how)


def build_search(given: Any, home: Path, prices: Mapping[str, Price]) -> Search | None:
    """Return the search for the value of `retriever=`; None for None.

    Raises `ConfigurationError` for a value that cannot search, `MissingDependency` without the extra.
    """
    check_option(given)
    if given is None:
        return None
    if isinstance(given, str):
        extras.check_installed()
        return Search(SearchIndexes(home / "indexes", None))
    from langchain_core.embeddings import Embeddings

    if isinstance(given, Embeddings):
        extras.check_installed()
        return Search(SearchIndexes(home / "indexes", build_embedder(given, home, prices)))
    return Search(external=given)


def check_option(given: object) -> None:
    """Raise `ConfigurationError` if this is not a valid value of `retriever=`."""
    if given is None or (isinstance(given, str) and given == BM25):
        return
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore

    if not isinstance(given, Embeddings | BaseRetriever | VectorStore):
        raise ConfigurationError(
            f"retriever is {given!r}; give {BM25!r}, a LangChain embedding model, retriever or vector store"
        )


def build_embedder(model: Any, home: Path, prices: Mapping[str, Price]) -> Embedder:
    """Return an embedding model with its price and its cache in `home`."""
    price = prices.get(name_of(model)) or price_of(model)
    return Embedder(model, home / "vectors", identity_of(model), price)
