"""`search` in the REPL: the code that defines it there, and how the host answers it.

A reply carries where the passages are, not their text: the REPL holds that already, and the journal need not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.runnables import RunnableConfig

from rlm_langchain.budget.ledger import BudgetRefused, Reservation
from rlm_langchain.durability.receipts import recorded
from rlm_langchain.errors import RLMError
from rlm_langchain.graph.calls.handler import CallHandler, CallSite, unhandled
from rlm_langchain.graph.components import Components
from rlm_langchain.models.call import CallFailed
from rlm_langchain.models.provider_errors import classify_error
from rlm_langchain.records import depth_of
from rlm_langchain.retrieval.external import no_hits_note, search_external
from rlm_langchain.types import (
    Call,
    CallResult,
    ContextFile,
    ContextRef,
    Usage,
)

if TYPE_CHECKING:
    from rlm_langchain.context.store import ContextStore
    from rlm_langchain.retrieval.cache.index_cache import SearchIndexes
    from rlm_langchain.retrieval.index.passages import Hit
    from rlm_langchain.retrieval.index.subcontext import Slice
    from rlm_langchain.retrieval.option import Search
    from rlm_langchain.run.run_tree import RunTree

KIND = "search"
"""Of the calls."""
MOST = 1_000
"""Passages of one search."""

PRELUDE = '''
import json


def search(query, k=10):
    """Passages about a query, best first: dicts with text, score, source, start, end."""
    if not isinstance(query, str):
        raise TypeError("search takes a query (str), not " + type(query).__name__)
    found = json.loads(_host_call("search", json.dumps([query, int(k)])))
    if found["note"]:
        print("[search] " + found["note"])
    return [_passage_found(hit) for hit in found["hits"]]


def _passage_found(hit):
    at = hit.pop("at", None)
    if at is None:
        return hit
    text = context
    for step in at:
        text = text[step]
    if isinstance(text, (dict, list)):
        text = json.dumps(text, ensure_ascii=False)
    return {"text": str(text[hit["start"]:hit["end"]]), **hit}
'''


class SearchTarget(NamedTuple):
    """A context that is searched, or a part of it."""

    file: ContextFile
    sha256: str
    part: Slice | None = None


class SearchHandler(CallHandler):
    """Handles `search`, where there is a retriever."""

    needs_context = True

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines `search`."""
        return PRELUDE if components.search else ""

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return what the root model reads of `search`, if there is something to search."""
        search = components.search
        if search is None or (context is None and search.external is None):
            return ""
        return search.guidance(components.root_model(depth_of(path)).profile)

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Return the passages that were found, as JSON."""
        search = site.components.search
        if search is None:
            return unhandled(site)
        work = SearchWork(search, site.components.store, site.tree, site.asked.call_path)
        return await work.reply(site.asked.call, site.context, config)


@dataclass(frozen=True, slots=True)
class SearchWork:
    """The work on one call of `search`."""

    search: Search
    store: ContextStore
    tree: RunTree
    call_path: str
    """In the tree."""

    async def reply(self, call: Call, context: ContextRef | None, config: RunnableConfig) -> CallResult:
        """Return what was found, as JSON: on disk before it is used, so that no crash makes it be paid again."""
        key = f"{self.call_path} {KIND} {hashlib.sha256(call.prompt.encode()).hexdigest()}"
        search = partial(self._searched, call, context, config)
        return await recorded(self.tree.receipts, key, self.call_path, search)

    async def _searched(self, call: Call, context: ContextRef | None, config: RunnableConfig) -> CallResult:
        try:
            query, k = json.loads(call.prompt)
            most = max(0, min(int(k), MOST))
        except (ValueError, TypeError, OverflowError, RecursionError):
            return CallResult(None, "search takes a query and how many passages to find")
        try:
            async with asyncio.timeout(self.tree.ledger.seconds_left()):
                return await self._found(str(query), most, context, config)
        except TimeoutError:
            return CallResult(None, "the time of the run is over", refused="seconds")

    async def _found(self, query: str, most: int, context: ContextRef | None, config: RunnableConfig) -> CallResult:
        if self.search.indexes is None:
            return await search_external(self.search.external, query, most, self.tree, config)
        if context is None:
            return found([], "there is no context to search")
        if not query.strip() or not most:
            return found([], no_hits_note(query, most, ""))
        where = await asyncio.to_thread(self._where, self.search.indexes, context)
        try:
            hits = await self.search.indexes.search(*where[:2], query, most, self._paying, where.part)
            return found([_sent(hit) for hit in hits], None if hits else await self._nothing(query, most, where))
        except (BudgetRefused, CallFailed) as failed:
            why = f"by words only, since the embedding model was not asked: {failed}"
            if isinstance(failed, CallFailed):
                why = f"by words only, since the embedding model does not answer: {failed}"
            index = await self.search.indexes.index(*where[:2])
            hits = await asyncio.to_thread(index.search, query, most, None, where.part)
            if not hits:
                why = f"{why}; {await self._nothing(query, most, where)}"
            return found([_sent(hit) for hit in hits], why)

    async def _nothing(self, query: str, most: int, where: SearchTarget) -> str:
        """Return what code is told when nothing was found."""
        assert self.search.indexes is not None  # noqa: S101 - for mypy
        count = len(await self.search.indexes.index(*where[:2]))
        return no_hits_note(query, most, f" in the {count:,} passages of the context")

    def _where(self, indexes: SearchIndexes, context: ContextRef) -> SearchTarget:
        """Return what to search for passages of a context: itself, or the whole that it is a slice of."""
        file = self.store.open(context)
        for above in self.tree.coverage.contexts if self.tree.coverage else ():
            if above["sha256"] == context["sha256"] or above["size"] < context["size"]:
                continue
            whole = self.store.open(above)
            if indexes.is_ready(whole, above["sha256"]) and (part := indexes.slices.find(whole, file)):
                return SearchTarget(whole, above["sha256"], part)
        return SearchTarget(file, context["sha256"])

    @asynccontextmanager
    async def _paying(self, wanted: Usage) -> AsyncIterator[None]:
        """Reserve a request to the embedding model in the budget, and write its receipt."""
        self.tree.check()
        async with self.tree.reserve(self.call_path, wanted) as entry, self._sent(entry):
            costs_nothing = False
            try:
                yield
            except Exception as error:
                costs_nothing = _costs_nothing(error)
                raise
            finally:
                if costs_nothing:
                    entry.withdraw()
                else:  # a request that was cut off on its way is paid for, as far as we know
                    entry.book(wanted)

    @asynccontextmanager
    async def _sent(self, entry: Reservation) -> AsyncIterator[None]:
        """Send a request in here: it waits its turn, and is not sent when the limit has been passed meanwhile."""
        while True:
            await entry.renew()
            async with self.tree.limiter:
                if entry.begin():
                    yield
                    return


def _costs_nothing(error: Exception) -> bool:
    """Return whether a request has failed before anything was embedded."""
    return isinstance(error, RLMError) or classify_error(getattr(error, "error", error)).arrival == "none"


def found(hits: list[dict[str, Any]], note: str | None = None) -> CallResult:
    """Return a reply as the REPL reads it."""
    return CallResult(json.dumps({"hits": hits, "note": note}, ensure_ascii=False))


def _sent(hit: Hit) -> dict[str, Any]:
    return {
        "at": list(hit.unit.path),
        "score": hit.score,
        "source": hit.unit.label,
        "start": hit.start,
        "end": hit.end,
    }
