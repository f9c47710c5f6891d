"""The context of a child run as a part of one above it, whose index then serves both.

A child's context is mostly a slice of its parent's: characters of a text, or items of a list or dict. Where the
index of the whole is there already, searching the part of it costs nothing, and passages are ranked by words that
are rare in the whole. A context that is no slice, or whose parent was never searched, has an index of its own.
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
from rlm_langchain.context.text_units import TextUnit, as_text
from rlm_langchain.types import ContextFile

if TYPE_CHECKING:
    from rlm_langchain.retrieval.index.passages import Hit

Step = str | int
T = TypeVar("T")
KEPT = 512
"""Slices that are remembered, and what is known of the items of wholes."""


class Slice(NamedTuple):
    """Where a context is in another one."""

    start: int = 0
    end: int = 0
    """In characters, of a text in a text."""
    items: dict[Step, Step | None] | None = None
    """Of a list or dict: items of the whole, and what the slice calls them; None: the slice is this item."""

    def seen(self, hit: Hit) -> Hit:
        """A hit in the whole, as one in the slice."""
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
class Slices:
    """What is known of which context is a part of which. Safe for threads."""

    _known: OrderedDict[tuple[str, ...], Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, whole: ContextFile, part: ContextFile) -> Slice | None:
        """Where a context is in another one; None when it is not a slice of it. Looks once."""
        if part.size > whole.size:
            return None
        key = (str(whole.path), str(part.path))
        return self._once(key, lambda: self._found(whole, part))

    def _found(self, whole: ContextFile, part: ContextFile) -> Slice | None:
        if whole.kind == "text":
            return _in_text(whole, part) if part.kind == "text" else None
        names = self._once((str(whole.path),), lambda: _names(json.loads(read_context(whole))))
        if part.kind == "text":
            name = names.get(_hash(read_context(part).decode("utf-8", "replace")))
            return None if name is None else Slice(items={name: None})
        value = json.loads(read_context(part))
        items: dict[Step, Step | None] = {}
        for inner, item in value.items() if isinstance(value, dict) else enumerate(value):
            name = names.get(_hash(item))
            if name is None or name in items:
                return None
            items[name] = inner
        return Slice(items=items)

    def _once(self, key: tuple[str, ...], find: Callable[[], T]) -> T:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                known: T = self._known[key]
                return known
        found = find()
        with self._lock:
            self._known[key] = found
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found


def _in_text(whole: ContextFile, part: ContextFile) -> Slice | None:
    with open_mapped(whole) as text:
        at = text.find(read_context(part))
        if at < 0:
            return None
        start = text.character(at)
        return Slice(start=start, end=start + part.length)


def _names(value: list[Any] | dict[str, Any]) -> dict[bytes, Step]:
    """Of the items of a list or dict, by the hash of what is in them."""
    items = [*(value.items() if isinstance(value, dict) else enumerate(value))]
    return {_hash(item): name for name, item in reversed(items)}


def _hash(item: Any) -> bytes:
    kind = "text" if isinstance(item, str) else "json"
    return hashlib.blake2b(f"{kind} {as_text(item)}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
