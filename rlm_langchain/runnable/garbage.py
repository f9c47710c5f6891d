"""Garbage: contexts, indexes and receipts on disk that no run needs any more.

What a thread refers to is kept, in whichever of its checkpoints, so that going back in it works too. What nobody
refers to goes when it was not used for a while. While runs hold threads of this home
(`durability/thread_lock.py`), with any saver, nothing goes that was used since the first of them began: they may
have it open, and their checkpoints may not name it yet. A run that holds none, as a node of a parent graph or
without a saver, is not seen. What it uses counts as used when it opened or stored it, to the hour: it is safe
while it takes an hour less than `older_than`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from rlm_langchain.context.store import ContextStore
from rlm_langchain.durability.thread_lock import oldest_lock_time
from rlm_langchain.retrieval.cache.index_store import IndexStore

GRACE = 7_200.0
"""Seconds: uses are counted to the hour, so what was used by an hour ago may look older than it is."""


class Reachable(NamedTuple):
    """What must stay."""

    contexts: frozenset[str] = frozenset()
    """By sha256."""
    runs: frozenset[str] = frozenset()
    """Whose receipts may be needed."""

    def plus(self, other: Reachable) -> Reachable:
        """Both together."""
        return Reachable(self.contexts | other.contexts, self.runs | other.runs)


class GarbageReport(NamedTuple):
    """What was removed, or would be."""

    contexts: int
    indexes: int
    receipts: int
    size: int
    """Bytes."""


def references(saver: Any) -> Reachable:
    """What the threads of a saver refer to, in all their checkpoints. Raises what the saver raises."""
    return _found(_parts(saver.list(None)))


async def areferences(saver: Any) -> Reachable:
    """The same, for savers that are async."""
    return _found(_parts([kept async for kept in saver.alist(None)]))


def collect(home: Path, kept: Reachable, *, older_than: float, dry_run: bool = False) -> GarbageReport:
    """Remove from a home what was not used for `older_than` seconds, and what nobody in `kept` refers to.

    With `dry_run`, say only what that would be.
    """
    before = time.time() - max(older_than, GRACE)
    if (since := oldest_lock_time(home)) is not None:
        before = min(before, since - GRACE)
    age = time.time() - before
    contexts = ContextStore(home).collect(older_than=age, keep=kept.contexts, dry_run=dry_run)
    indexes = IndexStore(home / "indexes").collect(older_than=age, keep=kept.contexts, dry_run=dry_run)
    receipts = list(_receipts(home, kept.runs, before))
    size = sum(path.stat().st_size for path in receipts)
    for path in () if dry_run else receipts:
        path.unlink(missing_ok=True)
    return GarbageReport(
        len(contexts.removed), len(indexes.removed), len(receipts), contexts.size + indexes.size + size
    )


def _receipts(home: Path, runs: frozenset[str], before: float) -> Iterator[Path]:
    """Of runs that no checkpoint knows, not written for a while."""
    for path in (home / "receipts").glob("*.jsonl"):
        with suppress(OSError):
            if path.stem not in runs and path.stat().st_mtime < before:
                yield path


def _parts(checkpoints: Iterable[Any]) -> Iterator[Any]:
    """All that checkpoints hold."""
    for kept in checkpoints:
        yield kept.checkpoint["channel_values"]
        yield [value for _, _, value in kept.pending_writes or ()]


def _found(parts: Iterable[Any]) -> Reachable:
    contexts, runs = set(), set()
    for found in _dicts(parts):
        if isinstance(sha256 := found.get("sha256"), str) and "kind" in found:
            contexts.add(sha256)
        if isinstance(run := found.get("run"), str):
            runs.add(run)
    return Reachable(frozenset(contexts), frozenset(runs))


def _dicts(parts: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Every dict in values, however deep; also in messages, and in what LangGraph wraps: `Send`s, snapshots."""
    waiting = [*parts]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, BaseModel):
            waiting += [vars(value), value.model_extra]
        elif hasattr(value, "arg"):
            waiting.append(value.arg)
