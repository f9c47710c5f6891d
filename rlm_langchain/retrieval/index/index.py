"""Builds and searches the index of one context, by words, by meaning, or both."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlm_langchain.context.text_units import TextUnit, read_units
from rlm_langchain.retrieval.index.bm25 import BM25Index, BM25Writer
from rlm_langchain.retrieval.index.fusion import fuse, word_weight
from rlm_langchain.retrieval.index.passages import Hit, split_passages
from rlm_langchain.retrieval.index.subcontext import Slice
from rlm_langchain.retrieval.index.vectors import VectorIndex
from rlm_langchain.types import ContextFile

TABLE, SOURCES = "passages.npy", "sources.json"

MIN_DEPTH = 100
"""Smallest number of passages that each ranking contributes to the fusion."""


class SourcePassage(NamedTuple):
    """A passage to be indexed."""

    source: int
    """Number of its text unit."""
    start: int
    """First character in the text unit."""
    text: str


def read_passages(file: ContextFile, sources: list[TextUnit]) -> Iterator[SourcePassage]:
    """Yield the passages of a context. The text units that they belong to are added to `sources`."""
    for content in read_units(file):
        number = len(sources)
        sources.append(content.unit)
        for passage in split_passages(content.text):
            yield SourcePassage(number, passage.start, passage.text)


def write_index(file: ContextFile, folder: Path, check: Callable[[], None] = lambda: None) -> None:
    """Write the word index of a context. `check` is called for each passage, and may raise to stop."""
    lexicon, sources = BM25Writer(), list[TextUnit]()
    rows = array("q")
    for piece in read_passages(file, sources):
        check()
        rows.extend((piece.source, piece.start, piece.start + len(piece.text)))
        lexicon.add(piece.text)
    np.save(folder / TABLE, np.array(rows, np.int64).reshape(-1, 3), allow_pickle=False)
    units = [[source.path, source.label] for source in sources]
    (folder / SOURCES).write_text(json.dumps(units, ensure_ascii=False), encoding="utf-8")
    lexicon.write(folder)


class Index:
    """An open index on disk."""

    def __init__(self, folder: Path) -> None:
        self._table = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
        units = json.loads((folder / SOURCES).read_bytes())
        self._sources = [TextUnit(tuple(at), label) for at, label in units]
        self._lexical = BM25Index(folder)

    def __len__(self) -> int:
        return len(self._table)

    def search(
        self, query: str, most: int, meaning: tuple[VectorIndex, Any] | None = None, part: Slice | None = None
    ) -> list[Hit]:
        """Return at most `most` passages for a query, best first.

        They are found by words and, with `meaning` (the vector index and the query's vector), also by meaning. With
        `part`, only passages in that part of the context are returned, with offsets relative to the part.
        """
        depth, among = max(MIN_DEPTH, most), None if part is None else self._among(part)
        by_words = self._lexical.search(query, depth, among)
        if meaning is None:
            ranked = list(zip(by_words.numbers.tolist(), by_words.scores.tolist(), strict=True))
        else:
            dense, vector = meaning
            by_meaning = dense.search(vector, depth, among)
            weights = word_weight(by_words.match_share), 1.0
            ranked = fuse(list(zip(weights, (by_words.numbers, by_meaning.numbers), strict=True)))
        hits = [self._hit(number, score) for number, score in ranked[:most]]
        return hits if part is None else [part.relative_hit(hit) for hit in hits]

    def _among(self, part: Slice) -> Any:
        """Return a mask of the passages that are in a part of the context."""
        if part.items is None:
            return (self._table[:, 1] < part.end) & (self._table[:, 2] > part.start)
        wanted = [number for number, source in enumerate(self._sources) if source.path[0] in part.items]
        return np.isin(self._table[:, 0], wanted)

    def _hit(self, number: int, score: float) -> Hit:
        source, start, end = self._table[number].tolist()
        return Hit(self._sources[source], start, end, round(score, 6))
