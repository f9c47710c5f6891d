"""Finds the context of a child run inside that of a run above it, so that one index serves both.

A child's context is usually a slice of its parent's: characters of a text, or items of a list or dict. If the index
of the parent exists, searching a part of it costs nothing, and passages are ranked by words that are rare in the
whole. A context that is no slice, or whose parent was never searched, gets a separate index.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rlm_langchain.context.mapped_text import open_mapped
from rlm_langchain.context.opening import read_context
from rlm_langchain.context.text_units import PathStep, TextUnit, as_text
from rlm_langchain.types import ContextFile

if TYPE_CHECKING:
    from rlm_langchain.retrieval.index.passages import Hit


T = TypeVar("T")
MAX_REMEMBERED = 512
"""Most results that are remembered."""


class Slice(NamedTuple):
    """The position of a context inside another one."""

    start: int = 0
    """First character of the slice, for a text in a text."""
    end: int = 0
    """Character after the last one."""
    items: dict[PathStep, PathStep | None] | None = None
    """Keys of the items of a list or dict, each with its key in the slice; None as key: the slice is this item.
    None: the context is a text."""

    def relative_hit(self, hit: Hit) -> Hit:
        """Return a hit in the whole as a hit in the slice."""
        if self.items is None:
            start, end = max(hit.start, self.start), min(hit.end, self.end)
            return hit._replace(unit=TextUnit((), "context"), start=start - self.start, end=end - self.start)
        name = self.items[hit.unit.path[0]]
        if name is None:
            return hit._replace(unit=TextUnit((), "context"))
        at = (name, *hit.unit.path[1:])
        inner = hit.unit.label.removeprefix(str(hit.unit.path[0]))
        return hit._replace(unit=TextUnit(at, f"{name}{inner}"))


@dataclass(slots=True)
class SliceFinder:
    """Finds contexts inside others, and remembers the results. Safe for threads."""

    _known: OrderedDict[tuple[str, ...], Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, whole: ContextFile, part: ContextFile) -> Slice | None:
        """Return the position of a context inside another one, or None if it is no slice of it."""
        if part.size > whole.size:
            return None
        key = (str(whole.path), str(part.path))
        return self._cached(key, lambda: self._find_slice(whole, part))

    def _find_slice(self, whole: ContextFile, part: ContextFile) -> Slice | None:
        if whole.kind == "text":
            return _in_text(whole, part) if part.kind == "text" else None
        names = self._cached((str(whole.path),), lambda: _keys_by_hash(json.loads(read_context(whole))))
        if part.kind == "text":
            name = names.get(_hash(read_context(part).decode("utf-8", "replace")))
            return None if name is None else Slice(items={name: None})
        value = json.loads(read_context(part))
        items: dict[PathStep, PathStep | None] = {}
        for inner, item in value.items() if isinstance(value, dict) else enumerate(value):
            name = names.get(_hash(item))
            if name is None or name in items:
                return None
            items[name] = inner
        return Slice(items=items)

    def _cached(self, key: tuple[str, ...], find: Callable[[], T]) -> T:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                known: T = self._known[key]
                return known
        found = find()
        with self._lock:
            self._known[key] = found
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return found


def _in_text(whole: ContextFile, part: ContextFile) -> Slice | None:
    with open_mapped(whole) as text:
        at = text.find(read_context(part))
        if at < 0:
            return None
        start = text.character(at)
        return Slice(start=start, end=start + part.length)


def _keys_by_hash(value: list[Any] | dict[str, Any]) -> dict[bytes, PathStep]:
    """Return the keys of the items of a list or dict, by the hash of their content."""
    items = [*(value.items() if isinstance(value, dict) else enumerate(value))]
    return {_hash(item): name for name, item in reversed(items)}


def _hash(item: Any) -> bytes:
    kind = "text" if isinstance(item, str) else "json"
    return hashlib.blake2b(f"{kind} {as_text(item)}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
