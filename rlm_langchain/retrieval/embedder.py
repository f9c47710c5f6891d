"""An embedding model: asked in batches, never for a text that it has embedded, paid for like any model.

Its sync method is called, in threads: the clients behind it then belong to no event loop, and any loop may wait.
What a request has used is estimated: LangChain's interface does not tell it.
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

BATCH = 64
"""Texts of one request."""
FLIGHT = 4
"""Requests at once."""

_SECRET = re.compile("key|token|secret|password|header", re.IGNORECASE)

Paying = Callable[[Usage], AbstractAsyncContextManager[Any]]
"""Around a request: what it will use."""


def unpaid(wanted: Usage) -> AbstractAsyncContextManager[Any]:
    """For those who keep no account."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Embedder:
    """A LangChain embedding model, and what must be known of it."""

    model: Embeddings = field(repr=False)
    folder: Path
    """Where its vectors are kept."""
    identity: str
    """From `identity_of`."""
    price: Price | None = None
    """None: not known."""
    retry: RetryPolicy = RetryPolicy()

    async def documents(self, texts: Sequence[str], paying: Paying = unpaid) -> Any:
        """A row for each text. Raises `CallFailed`, and what `paying` raises."""
        from rlm_langchain.retrieval.cache.embedding_cache import VectorCache, key_of
        from rlm_langchain.retrieval.index.vectors import checked, unit

        texts = [normalize("NFC", text) for text in texts]
        cache = VectorCache(self.folder / f"{self.identity}.sqlite")
        keys = [key_of(text) for text in texts]
        known = await asyncio.to_thread(cache.get, keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        waiting = [*missing.items()]
        turn = asyncio.Semaphore(FLIGHT)

        async def ask(some: list[tuple[bytes, str]]) -> None:
            def embed() -> None:
                rows = checked(self.model.embed_documents([text for _, text in some]), len(some))
                fresh = dict(zip((key for key, _ in some), rows, strict=True))
                cache.put(fresh)
                known.update(fresh)

            async with turn:
                await self._asked(embed, [text for _, text in some], paying)

        await _all(ask(waiting[i : i + BATCH]) for i in range(0, len(waiting), BATCH))
        widths = sorted({len(row) for row in known.values()})
        if len(widths) > 1:
            raise CallFailed("unknown", f"the embedding model gave vectors of other widths: {widths}", 0, 0.0)
        return unit([known[key] for key in keys])

    async def query(self, text: str, paying: Paying = unpaid) -> Any:
        """The row of a question, which some models embed in another way. Raises as `documents` does."""
        from rlm_langchain.retrieval.index.vectors import checked

        text = normalize("NFC", text)
        return await self._asked(lambda: checked([self.model.embed_query(text)], 1), [text], paying)

    async def _asked(self, embed: Callable[[], Any], texts: Sequence[str], paying: Paying) -> Any:
        """What `embed` gives, in a thread, again when a fault may pass."""
        attempt, waited, began = 0, 0.0, time.monotonic()
        wanted = self._usage(texts)
        while True:
            attempt += 1
            try:
                async with paying(wanted):
                    return await _in_thread(embed)
            except _Failed as failed:
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


class _Failed(Exception):
    """The model, or what is behind it, raised something."""

    def __init__(self, error: Exception) -> None:
        self.error = error


async def _in_thread(embed: Callable[[], Any]) -> Any:
    """What a model gives; what it raises, marked: a time limit of the run is not its fault."""
    try:
        return await asyncio.to_thread(embed)
    except InputError as error:
        raise CallFailed("unknown", str(error), 0, 0.0) from None
    except RLMError:
        raise
    except Exception as error:
        raise _Failed(error) from error


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do these at once; when one fails, none goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def identity_of(model: Any) -> str:
    """A hash of its class and its settings, without secrets: vectors of another one do not compare with its own."""
    kind = type(model)
    settings = getattr(model, "__dict__", {})
    told = {name: value for name, value in settings.items() if not _SECRET.search(name) and _is_plain(value)}
    text = json.dumps([kind.__module__, kind.__qualname__, told], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def name_of(model: Any) -> str:
    """What an embedding model calls itself."""
    names = (getattr(model, name, None) for name in ("model", "model_name", "model_id"))
    return next((name for name in names if isinstance(name, str) and name), type(model).__name__)


def price_of(model: Any) -> Price | None:
    """What it costs: nothing on this machine, else what price lists say; None when they say nothing."""
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
