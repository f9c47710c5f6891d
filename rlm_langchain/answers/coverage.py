"""Coverage: which parts of a context models have read, measured by exact matches of its text in their prompts.

Counted is text of the context in the prompt of an answered sub-call, in the output of a cell that the root model
was shown, and in a question (its preview, or a whole context), at any depth of the tree. Not counted is text that
only code or an embedding model has read, a match of fewer than 32 bytes, text that code changed before a model saw
it, rules and padding without other text, and the rest of a prompt whose search budget is used up. So the figure is
a lower bound. Of text that occurs several times in a context, one occurrence counts.
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
"""Bytes of the longest context that is measured: of a text in the store, which is mapped; and of any other, which
is loaded: the texts of a list or dict, and a file outside the store, which its owner may truncate at any time."""
INDEX_AHEAD_BYTES = 1 << 20
"""Bytes of a context from which its index is built in advance, in a thread beside the first turn."""
MAX_QUICK_SIZE = 1 << 14
"""The most characters of a text, and bytes of a context, that can be searched without blocking an event loop."""
MAX_CACHED_INDEXES = 2
"""The most indexes that are kept for later runs."""
MAX_SPANS = 200
"""The most spans in the coverage of one answer, the longest ones."""

ReadRanges = list[list[int]]
"""Ranges that were read: the number of the context, start and end, in bytes."""


class IndexCache:
    """A cache of the indexes of contexts. Each is built once, by the first thread that needs it. Thread-safe."""

    def __init__(self) -> None:
        self._futures: OrderedDict[str, Future[SubstringIndex]] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, store: ContextStore, ref: ContextRef) -> SubstringIndex:
        """Return the index of a context. Raises `JournalError` if the context is missing or was changed."""
        key = _context_key(ref)
        with self._lock:
            is_first = key not in self._futures
            future = self._futures.setdefault(key, Future())
            self._futures.move_to_end(key)
            while len(self._futures) > MAX_CACHED_INDEXES:
                self._futures.popitem(last=False)
        if is_first:
            try:
                future.set_result(SubstringIndex.of(store.open(ref), ours="path" not in ref))
            except BaseException as error:  # noqa: BLE001 - the other threads that wait for the index get it
                with self._lock:
                    self._futures.pop(key, None)
                future.set_exception(error)
        return future.result()


@dataclass(slots=True)
class CoverageTracker:
    """Measures how much the models of one run tree have read of the contexts of its top run."""

    store: ContextStore
    index_cache: IndexCache
    contexts: list[ContextRef] = field(default_factory=list)
    _index_by_context: dict[str, SubstringIndex] = field(default_factory=dict)
    """The indexes of all contexts of this tree. The cache keeps only a few, for later runs."""

    def set_contexts(self, contexts: Iterable[ContextRef]) -> None:
        """Set the contexts to measure. A long one is indexed at once, in a thread."""
        count_before = len(self.contexts)
        self.contexts = [*contexts]
        for ref in self.contexts[count_before:]:
            if ref["size"] > INDEX_AHEAD_BYTES:
                threading.Thread(target=lambda: [*self._indexes()], daemon=True).start()
                return

    def is_quick_to_search(self, text: str) -> bool:
        """Return whether `ranges_in` is quick enough to run on an event loop."""
        return len(text) <= MAX_QUICK_SIZE and all(ref["size"] <= MAX_QUICK_SIZE for ref in self.contexts)

    def index(self, number: int) -> SubstringIndex | None:
        """Return the index of the context with this number. None if it is too long, is missing, or was changed."""
        ref = self.contexts[number]
        in_store = ref["kind"] == "text" and "path" not in ref
        if ref["size"] > (MAX_MAPPED_BYTES if in_store else MAX_LOADED_BYTES):
            return None
        try:
            return self._index(ref)
        except JournalError:  # code that needs the text itself reports this; an answer can do without coverage
            return None

    def ranges_in(self, text: str) -> ReadRanges:
        """Return the ranges of the contexts that occur word for word in a text."""
        if len(text) < MIN_MATCH_BYTES // 4:
            return []
        budget = SearchBudget.for_text(text)
        found = ((number, index.find(text, budget)) for number, index in self._indexes())
        return [[number, start, end] for number, ranges in found for start, end in ranges]

    def range_of(self, ref: ContextRef | None) -> ReadRanges:
        """Return the range of a whole context, or nothing if it is not measured."""
        is_same = [ref is not None and ref["sha256"] == one["sha256"] for one in self.contexts]
        return [[number, 0, len(index)] for number, index in self._indexes() if is_same[number]]

    def coverage(self, read: Iterable[Sequence[int]]) -> Coverage | None:
        """Return the share and the spans that these ranges cover. None if nothing is measured."""
        by_context: dict[int, list[ByteRange]] = {}
        for number, start, end in read:
            by_context.setdefault(number, []).append((start, end))
        parts = [(number, index, merge_ranges(by_context.get(number, []))) for number, index in self._indexes()]
        size = sum(len(index) for _, index, _ in parts)
        if not size:
            return None
        covered = sum(end - start for _, _, ranges in parts for start, end in ranges)
        located = [(number, index, byte_range) for number, index, ranges in parts for byte_range in ranges]
        longest = sorted(range(len(located)), key=lambda i: located[i][2][0] - located[i][2][1])[:MAX_SPANS]
        spans = [span for i in sorted(longest) for span in _spans(*located[i])]
        left_out = len(located) - len(longest) + max(0, len(spans) - MAX_SPANS)
        return Coverage(share=round(covered / size, 6), where=spans[:MAX_SPANS], left_out=left_out)

    def _indexes(self) -> Iterator[tuple[int, SubstringIndex]]:
        """Yield the number and the index of each context that is measured."""
        for number in range(len(self.contexts)):
            if (index := self.index(number)) is not None:
                yield number, index

    def _index(self, ref: ContextRef) -> SubstringIndex:
        key = _context_key(ref)
        if (index := self._index_by_context.get(key)) is None:
            index = self._index_by_context[key] = self.index_cache.index(self.store, ref)
        return index


def recorded_ranges(records: Iterable[Record]) -> Iterator[list[int]]:
    """Yield the read ranges recorded by calls and child runs, at any depth."""
    for record in records:
        if record["type"] in ("call", "answer"):
            yield from record.get("read", ())
        if record["type"] == "call":
            yield from recorded_ranges(record.get("child", ()))


def _context_key(ref: ContextRef) -> str:
    return f"{ref['kind']} {ref['sha256']}"


def _spans(number: int, index: SubstringIndex, byte_range: ByteRange) -> Iterator[Span]:
    """Yield a range as spans. The source in a further context begins with the context's name, as in citations."""
    for span in index.spans(byte_range):
        name = f"context_{number}"
        inner = name if index.text is not None else f"{name}.{span['source']}"
        yield span if number == 0 else Span(source=inner, start=span["start"], end=span["end"])
