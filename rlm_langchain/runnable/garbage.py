"""Garbage collection of contexts, indexes and receipts on disk that no run needs any more.

Everything that a checkpoint of a thread refers to is kept, so that the thread can be resumed from any of them, and
so are the pictures of each context that is kept. The rest is removed if it was not used for `older_than` seconds.
While runs hold locks of threads in this home (`durability/thread_lock.py`), everything that was used since the
first of them began is kept, too: they may have it open, and their checkpoints may not refer to it yet. A run
without such a lock, because it is a node of a parent graph or has no checkpointer, is unknown here. What it uses
was last used when it was opened or stored, to the hour. So the run loses nothing if it takes at least an hour less
than `older_than`.
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
    """Contexts and runs that checkpoints refer to, and that must be kept."""

    contexts: frozenset[str] = frozenset()
    """The sha256 of each context."""
    runs: frozenset[str] = frozenset()
    """The id of each run, whose receipts may be needed."""

    def plus(self, other: Reachable) -> Reachable:
        """Return the union."""
        return Reachable(self.contexts | other.contexts, self.runs | other.runs)


class GarbageReport(NamedTuple):
    """The numbers of files that were removed, or would be removed."""

    contexts: int
    indexes: int
    receipts: int
    size: int
    """Size in bytes."""
    images: int = 0


def references(saver: Any) -> Reachable:
    """Return what all checkpoints of a checkpointer refer to. Raises the errors of the checkpointer."""
    return _reachable_in(_values_in(saver.list(None)))


async def areferences(saver: Any) -> Reachable:
    """Do what `references` does, for async checkpointers."""
    return _reachable_in(_values_in([saved async for saved in saver.alist(None)]))


def collect(home: Path, reachable: Reachable, *, older_than: float, dry_run: bool = False) -> GarbageReport:
    """Remove what was not used for `older_than` seconds and is not in `reachable`.

    With `dry_run`, only report what would be removed.
    """
    cutoff = time.time() - max(older_than, GRACE)
    if (since := oldest_lock_time(home)) is not None:
        cutoff = min(cutoff, since - GRACE)
    age = time.time() - cutoff
    store = ContextStore(home)
    contexts = store.collect(older_than=age, keep=reachable.contexts, dry_run=dry_run)
    stay = (path for path in store.folder.glob("*/*") if path.name not in contexts.removed)
    images, images_size = store.images.collect(age, stay, dry_run=dry_run)
    indexes = IndexStore(home / "indexes").collect(older_than=age, keep=reachable.contexts, dry_run=dry_run)
    receipts = list(_receipts(home, reachable.runs, cutoff))
    size = sum(path.stat().st_size for path in receipts)
    for path in () if dry_run else receipts:
        path.unlink(missing_ok=True)
    return GarbageReport(
        len(contexts.removed),
        len(indexes.removed),
        len(receipts),
        contexts.size + images_size + indexes.size + size,
        images,
    )


def _receipts(home: Path, runs: frozenset[str], cutoff: float) -> Iterator[Path]:
    """Yield receipts of runs that are in no checkpoint and have not been written for a while."""
    for path in (home / "receipts").glob("*.jsonl"):
        with suppress(OSError):
            if path.stem not in runs and path.stat().st_mtime < cutoff:
                yield path


def _values_in(checkpoints: Iterable[Any]) -> Iterator[Any]:
    """Yield all values in checkpoints."""
    for saved in checkpoints:
        yield saved.checkpoint["channel_values"]
        yield [value for _, _, value in saved.pending_writes or ()]


def _reachable_in(values: Iterable[Any]) -> Reachable:
    """Return the contexts and runs that values refer to."""
    contexts, runs = set(), set()
    for value_dict in _dicts(values):
        if isinstance(sha256 := value_dict.get("sha256"), str) and "kind" in value_dict:
            contexts.add(sha256)
        if isinstance(run := value_dict.get("run"), str):
            runs.add(run)
    return Reachable(frozenset(contexts), frozenset(runs))


def _dicts(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield every dict in values, at any depth, including messages and LangGraph's wrappers: `Send`s, snapshots."""
    pending = [*values]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending += value.values()
        elif isinstance(value, list | tuple | set):
            pending += value
        elif isinstance(value, BaseModel):
            pending += [vars(value), value.model_extra]
        elif hasattr(value, "arg"):
            pending.append(value.arg)
