"""How much of a context models have read, and where: found by its words in what they were asked and shown.

Counted: what stands word for word in the prompt of a sub-call that was answered, in what a cell printed and the
root model was shown, in a question (the preview, a context that is given whole), at any depth of the tree.
Not counted: what only code has looked at; embedding models; stretches of fewer than 32 bytes; text that was changed
on its way; rules and padding that stand alone; the rest of a prompt that would have to be compared with too many
places. So it is a lower bound. Of a text that stands at several places, one counts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rlm_langchain.answers.substring_index import (
    SHORTEST,
    ByteRange,
    SearchBudget,
    SubstringIndex,
    merged,
)
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import JournalError
from rlm_langchain.records import Coverage, Record, Span
from rlm_langchain.types import ContextRef

MAPPED, LOADED = 256 << 20, 64 << 20
"""Bytes of a context that is measured: of a text in the store, and of what has to be in memory for it, the texts of
a list or dict, and a file in place, which its owner may cut off at any time."""
WARM = 1 << 20
"""Bytes of a context from which on its index is made ahead, beside the first turn."""
QUICK = 1 << 14
"""Characters and bytes that are looked through in no time."""
KEPT = 2
"""Indexes that are kept for the next run."""
TOLD = 200
"""Pieces that an answer names."""

ReadRanges = list[list[int]]
"""Number of a context, begin and end."""


class IndexCache:
    """Indexes of contexts, each made once, by whoever needs it first. Safe for threads."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Future[SubstringIndex]] = OrderedDict()
        self._lock = threading.Lock()

    def places(self, store: ContextStore, ref: ContextRef) -> SubstringIndex:
        """The index of a context. Raises `JournalError` when that is missing or was changed."""
        key = _key(ref)
        with self._lock:
            is_first = key not in self._made
            made = self._made.setdefault(key, Future())
            self._made.move_to_end(key)
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        if is_first:
            try:
                made.set_result(SubstringIndex.of(store.open(ref), ours="path" not in ref))
            except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
                with self._lock:
                    self._made.pop(key, None)
                made.set_exception(error)
        return made.result()


@dataclass(slots=True)
class CoverageTracker:
    """What is looked for in the prompts of one tree: the contexts of its top run."""

    store: ContextStore
    shelf: IndexCache
    contexts: list[ContextRef] = field(default_factory=list)
    _held: dict[str, SubstringIndex] = field(default_factory=dict)
    """Their indexes, however many: the shelf keeps a few for the next run."""

    def set_contexts(self, contexts: Iterable[ContextRef]) -> None:
        """Measure these; the index of a long one is begun at once."""
        known = len(self.contexts)
        self.contexts = [*contexts]
        for ref in self.contexts[known:]:
            if ref["size"] > WARM:
                threading.Thread(target=lambda: [*self._places()], daemon=True).start()
                return

    def is_quick(self, text: str) -> bool:
        """Whether an event loop may wait for `read`."""
        return len(text) <= QUICK and all(ref["size"] <= QUICK for ref in self.contexts)

    def read(self, text: str) -> ReadRanges:
        """Where the contexts stand in a text."""
        if len(text) < SHORTEST // 4:
            return []
        effort = SearchBudget.on(text)
        found = ((number, places.found(text, effort)) for number, places in self._places())
        return [[number, start, end] for number, stretches in found for start, end in stretches]

    def whole_context(self, ref: ContextRef | None) -> ReadRanges:
        """The whole of a context, when it is one of these."""
        is_it = [ref is not None and ref["sha256"] == one["sha256"] for one in self.contexts]
        return [[number, 0, len(places)] for number, places in self._places() if is_it[number]]

    def coverage(self, read: Iterable[Sequence[int]]) -> Coverage | None:
        """All that was read, put together; None when nothing is measured."""
        by_context: dict[int, list[ByteRange]] = {}
        for number, start, end in read:
            by_context.setdefault(number, []).append((start, end))
        parts = [(number, places, merged(by_context.get(number, []))) for number, places in self._places()]
        size = sum(len(places) for _, places, _ in parts)
        if not size:
            return None
        covered = sum(end - start for _, _, stretches in parts for start, end in stretches)
        where = [(number, places, stretch) for number, places, stretches in parts for stretch in stretches]
        longest = sorted(range(len(where)), key=lambda i: where[i][2][0] - where[i][2][1])[:TOLD]
        spans = [span for i in sorted(longest) for span in _spans(*where[i])]
        left_out = len(where) - len(longest) + max(0, len(spans) - TOLD)
        return Coverage(share=round(covered / size, 6), where=spans[:TOLD], left_out=left_out)

    def _places(self) -> Iterator[tuple[int, SubstringIndex]]:
        """The indexes of what is measured. A context that is gone, or was changed, is measured no more."""
        for number, ref in enumerate(self.contexts):
            if ref["size"] <= (MAPPED if ref["kind"] == "text" and "path" not in ref else LOADED):
                try:
                    yield number, self._index(ref)
                except JournalError:  # who needs the text itself says so; an answer needs no figure
                    continue

    def _index(self, ref: ContextRef) -> SubstringIndex:
        key = _key(ref)
        if (held := self._held.get(key)) is None:
            held = self._held[key] = self.shelf.places(self.store, ref)
        return held


def in_records(records: Iterable[Record]) -> Iterator[list[int]]:
    """What calls and child runs have noted, at any depth."""
    for record in records:
        if record["type"] in ("call", "answer"):
            yield from record.get("read", ())
        if record["type"] == "call":
            yield from in_records(record.get("child", ()))


def _key(ref: ContextRef) -> str:
    return f"{ref['kind']} {ref['sha256']}"


def _spans(number: int, places: SubstringIndex, stretch: ByteRange) -> Iterator[Span]:
    """The names of what is in further contexts begin with theirs, as they do in citations."""
    for span in places.spans(stretch):
        name = f"context_{number}"
        inner = name if places.text is not None else f"{name}.{span['source']}"
        yield span if number == 0 else Span(source=inner, start=span["start"], end=span["end"])
