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
    MIN_MATCH_BYTES,
    ByteRange,
    SearchBudget,
    SubstringIndex,
    merge_ranges,
)
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import JournalError
from rlm_langchain.records import Coverage, Record, Span
from rlm_langchain.types import ContextRef

MAX_MAPPED_BYTES, MAX_LOADED_BYTES = 256 << 20, 64 << 20
"""Bytes of a context that is measured: of a text in the store, and of what has to be in memory for it, the texts of
a list or dict, and a file in place, which its owner may cut off at any time."""
INDEX_AHEAD_BYTES = 1 << 20
"""Bytes of a context from which on its index is made ahead, beside the first turn."""
QUICK_LENGTH = 1 << 14
"""Characters and bytes that are looked through in no time."""
MAX_CACHED = 2
"""Indexes that are kept for the next run."""
MAX_SPANS = 200
"""Pieces that an answer names."""

ReadRanges = list[list[int]]
"""Number of a context, begin and end."""


class IndexCache:
    """Indexes of contexts, each made once, by whoever needs it first. Safe for threads."""

    def __init__(self) -> None:
        self._futures: OrderedDict[str, Future[SubstringIndex]] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, store: ContextStore, ref: ContextRef) -> SubstringIndex:
        """The index of a context. Raises `JournalError` when that is missing or was changed."""
        key = _context_key(ref)
        with self._lock:
            is_first = key not in self._futures
            made = self._futures.setdefault(key, Future())
            self._futures.move_to_end(key)
            while len(self._futures) > MAX_CACHED:
                self._futures.popitem(last=False)
        if is_first:
            try:
                made.set_result(SubstringIndex.of(store.open(ref), ours="path" not in ref))
            except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
                with self._lock:
                    self._futures.pop(key, None)
                made.set_exception(error)
        return made.result()


@dataclass(slots=True)
class CoverageTracker:
    """What is looked for in the prompts of one tree: the contexts of its top run."""

    store: ContextStore
    index_cache: IndexCache
    contexts: list[ContextRef] = field(default_factory=list)
    _index_by_context: dict[str, SubstringIndex] = field(default_factory=dict)
    """Their indexes, however many: the shelf keeps a few for the next run."""

    def set_contexts(self, contexts: Iterable[ContextRef]) -> None:
        """Measure these; the index of a long one is begun at once."""
        known = len(self.contexts)
        self.contexts = [*contexts]
        for ref in self.contexts[known:]:
            if ref["size"] > INDEX_AHEAD_BYTES:
                threading.Thread(target=lambda: [*self._indexes()], daemon=True).start()
                return

    def is_quick(self, text: str) -> bool:
        """Return whether `find_read` is quick enough to run on an event loop."""
        return len(text) <= QUICK_LENGTH and all(ref["size"] <= QUICK_LENGTH for ref in self.contexts)

    def index(self, number: int) -> SubstringIndex | None:
        """The index of a context by its number; None when it is too long, is gone, or was changed."""
        ref = self.contexts[number]
        in_store = ref["kind"] == "text" and "path" not in ref
        if ref["size"] > (MAX_MAPPED_BYTES if in_store else MAX_LOADED_BYTES):
            return None
        try:
            return self._index(ref)
        except JournalError:  # who needs the text itself says so; an answer needs no figure
            return None

    def find_read(self, text: str) -> ReadRanges:
        """Return the ranges of the contexts that occur word for word in a text."""
        if len(text) < MIN_MATCH_BYTES // 4:
            return []
        effort = SearchBudget.for_text(text)
        found = ((number, places.find(text, effort)) for number, places in self._indexes())
        return [[number, start, end] for number, stretches in found for start, end in stretches]

    def whole_context(self, ref: ContextRef | None) -> ReadRanges:
        """The whole of a context, when it is one of these."""
        is_it = [ref is not None and ref["sha256"] == one["sha256"] for one in self.contexts]
        return [[number, 0, len(places)] for number, places in self._indexes() if is_it[number]]

    def coverage(self, read: Iterable[Sequence[int]]) -> Coverage | None:
        """All that was read, put together; None when nothing is measured."""
        by_context: dict[int, list[ByteRange]] = {}
        for number, start, end in read:
            by_context.setdefault(number, []).append((start, end))
        parts = [(number, places, merge_ranges(by_context.get(number, []))) for number, places in self._indexes()]
        size = sum(len(places) for _, places, _ in parts)
        if not size:
            return None
        covered = sum(end - start for _, _, stretches in parts for start, end in stretches)
        where = [(number, places, stretch) for number, places, stretches in parts for stretch in stretches]
        longest = sorted(range(len(where)), key=lambda i: where[i][2][0] - where[i][2][1])[:MAX_SPANS]
        spans = [span for i in sorted(longest) for span in _spans(*where[i])]
        left_out = len(where) - len(longest) + max(0, len(spans) - MAX_SPANS)
        return Coverage(share=round(covered / size, 6), where=spans[:MAX_SPANS], left_out=left_out)

    def _indexes(self) -> Iterator[tuple[int, SubstringIndex]]:
        """The indexes of what is measured."""
        for number in range(len(self.contexts)):
            if (index := self.index(number)) is not None:
                yield number, index

    def _index(self, ref: ContextRef) -> SubstringIndex:
        key = _context_key(ref)
        if (held := self._index_by_context.get(key)) is None:
            held = self._index_by_context[key] = self.index_cache.index(self.store, ref)
        return held


def read_in_records(records: Iterable[Record]) -> Iterator[list[int]]:
    """Yield the read ranges recorded by calls and child runs, at any depth."""
    for record in records:
        if record["type"] in ("call", "answer"):
            yield from record.get("read", ())
        if record["type"] == "call":
            yield from read_in_records(record.get("child", ()))


def _context_key(ref: ContextRef) -> str:
    return f"{ref['kind']} {ref['sha256']}"


def _spans(number: int, places: SubstringIndex, stretch: ByteRange) -> Iterator[Span]:
    """The names of what is in further contexts begin with theirs, as they do in citations."""
    for span in places.spans(stretch):
        name = f"context_{number}"
        inner = name if places.text is not None else f"{name}.{span['source']}"
        yield span if number == 0 else Span(source=inner, start=span["start"], end=span["end"])
