"""Searches a user's own retriever or vector store, and returns its documents as passages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.runnables import RunnableConfig

from rlm_langchain.errors import RLMError
from rlm_langchain.models.provider_errors import is_graph_signal
from rlm_langchain.models.provider_words import log_failure
from rlm_langchain.types import CallResult

if TYPE_CHECKING:
    from rlm_langchain.run.run_tree import RunTree

MAX_QUERY_CHARS = 100
"""Characters of a query that a message quotes."""
START_KEYS = ("start", "start_index")
"""Metadata keys with the offset of a document in its source: ours, and that of LangChain's text splitters."""


async def search_external(
    external: Any, query: str, most: int, tree: RunTree, config: RunnableConfig
) -> CallResult:
    """Return the hits as JSON for the REPL. A failure of the retriever is returned as an error."""
    from langchain_core.vectorstores import VectorStore

    try:
        async with tree.limiter:
            if isinstance(external, VectorStore):
                scored = await _scored(external, query, most)
            else:
                scored = [
                    (document, None)
                    for document in await external.ainvoke(query, config, **k_option(external, most))
                ]
    except Exception as error:
        if isinstance(error, RLMError | TimeoutError) or is_graph_signal(error):
            raise
        log_failure("the retriever failed", error)
        # Only the class is named: the text of a foreign error could contain a key.
        return CallResult(None, f"the retriever failed: {type(error).__name__}")
    hits = [_hit(document, score) for document, score in scored[:most]]
    note = None if hits else no_hits_note(query, most, describe_corpus_size(external))
    return CallResult(json.dumps({"hits": hits, "note": note}, ensure_ascii=False))


def no_hits_note(query: str, most: int, among: str) -> str:
    """Return the note for a search without a hit. `among` describes the searched documents, after a space."""
    if most < 1:
        return "k was below 1, so nothing was looked for"
    if not query.strip():
        return "the query was blank, so nothing was looked for"
    return (
        f"nothing was found for {shortened_query(query)!r}{among}: try other words, fewer and likelier ones, or "
        "read `context` in code; if there is nothing, say so in the answer"
    )


def shortened_query(query: str) -> str:
    """Return a query for a message, cut to `MAX_QUERY_CHARS` characters."""
    return query if len(query) <= MAX_QUERY_CHARS else f"{query[:MAX_QUERY_CHARS]}..."


def describe_corpus_size(external: Any) -> str:
    """Return how many documents a retriever or vector store searches, in parentheses; empty if unknown."""
    documents = getattr(external, "vectorstore", None) or getattr(external, "corpus", None)
    documents = external if documents is None else documents
    if isinstance(documents, str | bytes) or not hasattr(documents, "__len__"):
        return ""
    return f" (it searches {len(documents):,} documents)" if len(documents) else " (there is no document in it)"


def k_option(retriever: Any, most: int) -> dict[str, int]:
    """Return `k` as an option, if the retriever takes one with a query. Others return a fixed number."""
    return {"k": most} if getattr(retriever, "_expects_other_args", False) else {}


async def _scored(store: Any, query: str, most: int) -> list[tuple[Document, float | None]]:
    try:
        return list(await store.asimilarity_search_with_score(query, k=most))
    except NotImplementedError:
        return [(document, None) for document in await store.asimilarity_search(query, k=most)]


def _hit(document: Document, score: float | None) -> dict[str, Any]:
    metadata = document.metadata
    start = next((metadata[name] for name in START_KEYS if type(metadata.get(name)) is int), None)
    source = metadata.get("source") or document.id
    return {
        "text": document.page_content,
        "score": None if score is None else float(score),
        "source": "" if source is None else str(source),
        "start": start,
        "end": None if start is None else start + len(document.page_content),
    }
