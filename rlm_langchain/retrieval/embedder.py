"""Calls an embedding model in batches, never twice for the same text, and on the budget of the run.

Its sync methods are called in threads, because its clients then belong to no event loop and work on all of them.
The usage of a request is estimated, because LangChain's interface does not report it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.errors import InputError, RLMError
from rlm_langchain.models.call import CallFailed, RetryPolicy
from rlm_langchain.models.model import Price, PriceListEntry
from rlm_langchain.models.pricing import embedding_price
from rlm_langchain.models.provider_errors import classify_error
from rlm_langchain.models.provider_words import log_failure, secrets_of
from rlm_langchain.types import Usage

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

BATCH_SIZE = 64
"""Number of texts in one request."""
MAX_PARALLEL_REQUESTS = 4
"""Most requests in flight at once."""

_SECRET = re.compile("key|token|secret|password|header", re.IGNORECASE)

ReserveUsage = Callable[[Usage], AbstractAsyncContextManager[Any]]
"""Takes the usage of a request, and returns a context manager that reserves it while the request is made."""


def no_reservation(wanted: Usage) -> AbstractAsyncContextManager[Any]:
    """Reserve nothing: for callers without a budget."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Embedder:
    """A LangChain embedding model with its cache and its price."""

    model: Embeddings = field(repr=False)
    folder: Path
    """Folder of the cached vectors."""
    identity: str
    """Hash of the model and its settings, from `identity_of`."""
    price: Price | None = None
    """Price of input tokens. None: unknown."""
    retry: RetryPolicy = RetryPolicy()

    async def embed_documents(self, texts: Sequence[str], reserve: ReserveUsage = no_reservation) -> Any:
        """Return a row of length one for each text. Raises `CallFailed`, and whatever `reserve` raises."""
        from rlm_langchain.retrieval.cache.embedding_cache import EmbeddingCache, cache_key
        from rlm_langchain.retrieval.index.vectors import checked_vectors, normalized

        texts = [normalize("NFC", text) for text in texts]
        cache = EmbeddingCache(self.folder / f"{self.identity}.sqlite")
        keys = [cache_key(text) for text in texts]
        known = await asyncio.to_thread(cache.get, keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        waiting = [*missing.items()]
        slots = asyncio.Semaphore(MAX_PARALLEL_REQUESTS)

        async def ask(some: list[tuple[bytes, str]]) -> None:
            def embed() -> None:
                rows = checked_vectors(self.model.embed_documents([text for _, text in some]), len(some))
                fresh = dict(zip((key for key, _ in some), rows, strict=True))
                cache.put(fresh)
                known.update(fresh)

            async with slots:
                await self._call_model(embed, [text for _, text in some], reserve)

        await _gather(ask(waiting[i : i + BATCH_SIZE]) for i in range(0, len(waiting), BATCH_SIZE))
        widths = sorted({len(row) for row in known.values()})
        if len(widths) > 1:
            message = f"the embedding model returned vectors of different widths: {widths}"
            raise CallFailed("unknown", message, 0, 0.0)
        return normalized([known[key] for key in keys])

    async def embed_query(self, text: str, reserve: ReserveUsage = no_reservation) -> Any:
        """Return the row of a query, which some models embed differently. Raises as `embed_documents` does."""
        from rlm_langchain.retrieval.index.vectors import checked_vectors

        text = normalize("NFC", text)
        return await self._call_model(lambda: checked_vectors([self.model.embed_query(text)], 1), [text], reserve)

    async def _call_model(self, embed: Callable[[], Any], texts: Sequence[str], reserve: ReserveUsage) -> Any:
        """Return the result of `embed`, called in a thread, and again after temporary errors."""
        attempt, waited, began = 0, 0.0, time.monotonic()
        wanted = self._usage(texts)
        while True:
            attempt += 1
            try:
                async with reserve(wanted):
                    return await _in_thread(embed)
            except _EmbeddingFailed as failed:
                log_failure("the embedding model failed", failed.error, secrets_of(self.model))
                fault = classify_error(failed.error)
                wait = self.retry.wait(attempt, fault)
                waited += wait
                if not fault.retryable or self.retry.gives_up(attempt, waited):
                    seconds = time.monotonic() - began
                    raise CallFailed(fault.code, fault.message, attempt - 1, seconds) from None
            await self.retry.sleep(wait)

    def _usage(self, texts: Sequence[str]) -> Usage:
        read = sum(approximate_tokens(len(text.encode("utf-8", "replace"))) for text in texts)
        used = Usage(input=read, estimated=True)
        return used._replace(cost=self.price.of(used) if self.price else None)


class _EmbeddingFailed(Exception):
    """Wraps an exception of the embedding model."""

    def __init__(self, error: Exception) -> None:
        self.error = error


async def _in_thread(embed: Callable[[], Any]) -> Any:
    """Return the result of `embed`, called in a thread.

    Exceptions of the model are raised as `_EmbeddingFailed`, to tell them from those of the run.
    """
    try:
        return await asyncio.to_thread(embed)
    except InputError as error:
        raise CallFailed("unknown", str(error), 0, 0.0) from None
    except RLMError:
        raise
    except Exception as error:
        raise _EmbeddingFailed(error) from error


async def _gather(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all coroutines at once. If one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def identity_of(model: Any) -> str:
    """Return a hash of the class and settings of a model, without secrets. It changes when the vectors would."""
    kind = type(model)
    settings = getattr(model, "__dict__", {})
    without_secrets = {
        name: value for name, value in settings.items() if not _SECRET.search(name) and _is_plain(value)
    }
    text = json.dumps([kind.__module__, kind.__qualname__, without_secrets], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def name_of(model: Any) -> str:
    """Return the name of an embedding model."""
    names = (getattr(model, name, None) for name in ("model", "model_name", "model_id"))
    return next((name for name in names if isinstance(name, str) and name), type(model).__name__)


def price_of(model: Any) -> Price | None:
    """Return the price of an embedding model: 0 on this machine, else as listed, or None if it is not listed."""
    package = type(model).__module__.partition(".")[0]
    if package in ("langchain_core", "langchain_huggingface", "langchain_ollama"):
        return Price(0.0, 0.0)
    if not package.startswith("langchain_"):
        return None
    return embedding_price(PriceListEntry(package.removeprefix("langchain_").partition("_")[0], name_of(model)))


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
