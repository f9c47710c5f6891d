"""Garbage collection of contexts, indexes and receipts on disk that no run needs any more.

Everything that a thread refers to in any of its checkpoints is kept, so that going back in it works. The rest
is removed if it was not used for a while. While runs hold threads of this home (`durability/thread_lock.py`),
with any checkpointer, everything that was used since the first of them began is kept, too: they may have it
open, and their checkpoints may not name it yet. A run that holds no thread, as a node of a parent graph or
without a checkpointer, cannot be seen. What it uses counts as used when it was opened or stored, to the hour.
So it is safe if the run takes at least an hour less than `older_than`.
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
"""Minimum age in seconds. Uses are recorded to the hour, so something used within the last hour may look older."""


class Reachable(NamedTuple):
    """What must be kept."""

    contexts: frozenset[str] = frozenset()
    """Contexts by sha256."""
    runs: frozenset[str] = frozenset()
    """Runs whose receipts may be needed."""

    def plus(self, other: Reachable) -> Reachable:
        """Return the union."""
        return Reachable(self.contexts | other.contexts, self.runs | other.runs)


class GarbageReport(NamedTuple):
    """What was removed, or would be removed."""

    contexts: int
    indexes: int
    receipts: int
    size: int
    """Size in bytes."""


def references(saver: Any) -> Reachable:
    """Return what the threads of a checkpointer refer to, in all their checkpoints. Errors of the checkpointer
    are passed on."""
    return _found(_parts(saver.list(None)))


async def areferences(saver: Any) -> Reachable:
    """Do what `references` does, for async checkpointers."""
    return _found(_parts([kept async for kept in saver.alist(None)]))


def collect(home: Path, kept: Reachable, *, older_than: float, dry_run: bool = False) -> GarbageReport:
    """Remove what was not used for `older_than` seconds and is not in `kept`.

    With `dry_run`, only report what would be removed.
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
    """Yield receipts of runs that are in no checkpoint and have not been written for a while."""
    for path in (home / "receipts").glob("*.jsonl"):
        with suppress(OSError):
            if path.stem not in runs and path.stat().st_mtime < before:
                yield path


def _parts(checkpoints: Iterable[Any]) -> Iterator[Any]:
    """Yield all values in checkpoints."""
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
    """Yield every dict in values, at any depth, including messages and LangGraph's wrappers: `Send`s, snapshots."""
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
