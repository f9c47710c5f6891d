"""`search` in the REPL: the code that defines it there, and its handler in the host.

A reply has the positions of the passages, not their text, because the REPL has the text.
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
from rlm_langchain.context.mapped_text import open_mapped
from rlm_langchain.context.opening import read_context
from rlm_langchain.context.text_units import PathStep, label_of
from rlm_langchain.durability.receipts import recorded
from rlm_langchain.errors import RLMError
from rlm_langchain.graph.calls.handler import CallHandler, CallSite, unhandled
from rlm_langchain.graph.components import Components
from rlm_langchain.models.call import CallFailed
from rlm_langchain.models.provider_errors import classify_error
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
"""The kind of the calls."""
MAX_PASSAGES = 1_000
"""Most passages of one search."""

PRELUDE = '''
import json


def search(query, k=10, within=None):
    """Passages about a query, best first: dicts with text, score, source, start, end. `within`: a part of the
    context to look in."""
    if not isinstance(query, str):
        raise TypeError("search takes a query (str), not " + type(query).__name__)
    part = [] if within is None else [_part_to_search(within)]
    found = json.loads(_host_call("search", json.dumps([query, int(k), *part])))
    if found["note"]:
        print("[search] " + found["note"])
    return [_passage_found(hit) for hit in found["hits"]]


def _part_to_search(value):
    try:
        places = _rlm_places
    except NameError:
        raise ValueError("there is no context to search in") from None
    name, _, _, path, at, _ = places[1](places[2], value)
    if name != "context":
        raise ValueError("search looks in `context`, and `within` is a part of " + name)
    return [[*path], at, None if at is None else at + len(value)]


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


class Part(NamedTuple):
    """A part of the context, to search in."""

    path: tuple[PathStep, ...]
    """Keys and numbers that lead to it, or to the text or list that it is in."""
    start: int | None
    """The number of its first character or item there. None: it is all of it."""
    end: int | None

    def reference(self, store: ContextStore, context: ContextRef) -> ContextRef | None:
        """Return a reference to the part as a context of its own. None if it is empty. Raises `LookupError` or
        `TypeError` if it is not there, `JournalError` if the context has changed."""
        file = store.open(context)
        if file.kind == "text" and not self.path:
            with open_mapped(file) as text:
                return store.reference_from_repl(
                    text.slice(self.start or 0, file.length if self.end is None else self.end)
                )
        value = json.loads(read_context(file))
        for step in self.path:
            value = value[step]
        if not isinstance(value, str | list | dict):
            raise TypeError
        return store.reference_from_repl(value if self.start is None else value[self.start : self.end])

    def outer(self, path: tuple[PathStep, ...]) -> tuple[tuple[PathStep, ...], int]:
        """Return a path in the part as one in the context, and how many characters are before the part there."""
        if path and isinstance(path[0], int):
            return (*self.path, path[0] + (self.start or 0), *path[1:]), 0
        return (*self.path, *path), 0 if path else self.start or 0


class SearchTarget(NamedTuple):
    """The context to search, or a part of it."""

    file: ContextFile
    sha256: str
    part: Slice | None = None


class SearchHandler(CallHandler):
    """Handles `search`, if the RLM has a retriever."""

    needs_context = True

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines `search`."""
        return PRELUDE if components.search else ""

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return the prompt's part about `search`, if there is something to search."""
        search = components.search
        if search is None or (context is None and search.external is None):
            return ""
        return search.guidance(components.root_model(path).profile)

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Return the passages that were found, as JSON."""
        search = site.components.search
        if search is None:
            return unhandled(site)
        search_call = SearchCall(search, site.components.store, site.tree, site.numbered.call_path)
        return await search_call.reply(site.numbered.call, site.context, config)


@dataclass(frozen=True, slots=True)
class SearchCall:
    """Answers one call of `search`."""

    search: Search
    store: ContextStore
    tree: RunTree
    call_path: str
    """The path of the call in the run tree."""

    async def reply(self, call: Call, context: ContextRef | None, config: RunnableConfig) -> CallResult:
        """Return the passages as JSON. The reply is on disk before it is used, so no crash makes it cost twice."""
        key = f"{self.call_path} {KIND} {hashlib.sha256(call.prompt.encode()).hexdigest()}"
        search = partial(self._search, call, context, config)
        return await recorded(self.tree.receipts, key, self.call_path, search)

    async def _search(self, call: Call, context: ContextRef | None, config: RunnableConfig) -> CallResult:
        try:
            query, k, *rest = json.loads(call.prompt)
            most = max(0, min(int(k), MAX_PASSAGES))
            part = Part(tuple(rest[0][0]), *rest[0][1:]) if rest else None
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            return CallResult(None, "search takes a query and how many passages to find")
        try:
            async with asyncio.timeout(self.tree.ledger.seconds_left()):
                if part is None or context is None:
                    return await self._find(str(query), most, context, None, config)
                return await self._find_within(str(query), most, context, part, config)
        except TimeoutError:
            return CallResult(None, "the time of the run is over", refused="seconds")

    async def _find_within(
        self, query: str, most: int, context: ContextRef, part: Part, config: RunnableConfig
    ) -> CallResult:
        if self.search.indexes is None:
            return CallResult(None, "`within` needs an index of the context, and this one was made before")
        try:
            inner = await asyncio.to_thread(part.reference, self.store, context)
        except (LookupError, TypeError):
            return CallResult(None, "search: `within` is no part of the context")
        return await self._find(query, most, inner, part, config)

    async def _find(
        self, query: str, most: int, context: ContextRef | None, part: Part | None, config: RunnableConfig
    ) -> CallResult:
        if self.search.indexes is None:
            return await search_external(self.search.external, query, most, self.tree, config)
        if context is None:
            return search_result([], "there is no context to search")
        if not query.strip() or not most:
            return search_result([], no_hits_note(query, most, ""))
        target = await asyncio.to_thread(self._target, self.search.indexes, context)
        try:
            hits = await self.search.indexes.search(*target[:2], query, most, self._paid_request, target.part)
            note = None if hits else await self._no_hits_note(query, most, target)
            return search_result([_position(hit, part) for hit in hits], note)
        except (BudgetRefused, CallFailed) as failed:
            note = f"by words only, since the embedding model was not asked: {failed}"
            if isinstance(failed, CallFailed):
                note = f"by words only, since the embedding model does not answer: {failed}"
            index = await self.search.indexes.index(*target[:2])
            hits = await asyncio.to_thread(index.search, query, most, None, target.part)
            if not hits:
                note = f"{note}; {await self._no_hits_note(query, most, target)}"
            return search_result([_position(hit, part) for hit in hits], note)

    async def _no_hits_note(self, query: str, most: int, target: SearchTarget) -> str:
        """Return the note for a search without hits."""
        assert self.search.indexes is not None  # noqa: S101 - for mypy
        count = len(await self.search.indexes.index(*target[:2]))
        return no_hits_note(query, most, f" in the {count:,} passages of the context")

    def _target(self, indexes: SearchIndexes, context: ContextRef) -> SearchTarget:
        """Return the context; for a slice of an indexed context of the top run, that part of it."""
        file = self.store.open(context)
        for above in self.tree.coverage.contexts if self.tree.coverage else ():
            if above["sha256"] == context["sha256"] or above["size"] < context["size"]:
                continue
            whole = self.store.open(above)
            if indexes.is_ready(whole, above["sha256"]) and (part := indexes.slices.find(whole, file)):
                return SearchTarget(whole, above["sha256"], part)
        return SearchTarget(file, context["sha256"])

    @asynccontextmanager
    async def _paid_request(self, wanted: Usage) -> AsyncIterator[None]:
        """Send a request to the embedding model in this context: its cost is reserved before, and charged after."""
        self.tree.check()
        async with self.tree.reserve(self.call_path, wanted) as entry, self._in_turn(entry):
            costs_nothing = False
            try:
                yield
            except Exception as error:
                costs_nothing = _costs_nothing(error)
                raise
            finally:
                if costs_nothing:
                    entry.withdraw()
                else:  # an interrupted request may have been charged
                    entry.book(wanted)

    @asynccontextmanager
    async def _in_turn(self, entry: Reservation) -> AsyncIterator[None]:
        """Wait for a free place among the running requests. Raises `BudgetRefused` if a limit is reached."""
        while True:
            await entry.renew()
            async with self.tree.limiter:
                if entry.begin():
                    yield
                    return


def _costs_nothing(error: Exception) -> bool:
    """Return whether a request failed before it could be charged."""
    return isinstance(error, RLMError) or classify_error(getattr(error, "error", error)).arrival == "none"


def search_result(hits: list[dict[str, Any]], note: str | None = None) -> CallResult:
    """Return the result of a call, as JSON for the REPL."""
    return CallResult(json.dumps({"hits": hits, "note": note}, ensure_ascii=False))


def _position(hit: Hit, part: Part | None) -> dict[str, Any]:
    """Return the position of a passage, which the REPL completes by its text."""
    path, label, moved = hit.unit.path, hit.unit.label, 0
    if part is not None:
        path, moved = part.outer(path)
        label = label_of(path) or "context"
    return {
        "at": list(path),
        "score": hit.score,
        "source": label,
        "start": hit.start + moved,
        "end": hit.end + moved,
    }
