"""BM25 over passages, by `bm25s`: scores are worked out when the index is made, and added up in a search.

Imported when the extra is known to be there.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import numpy as np

from rlm_langchain.retrieval.index.tokenizer import Vocabulary, words

K1, B = 1.2, 0.75


class Ranked(NamedTuple):
    """Passages by number, best first, and their scores."""

    numbers: Any
    scores: Any
    met: float = 1.0
    """Of what the words of a query could score at most: the share that the first passage has."""


class Lexicon:
    """What goes into an index of words."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()
        self._passages: list[array[int]] = []

    def add(self, text: str) -> None:
        """One passage more."""
        self._passages.append(array("i", self._vocabulary.numbers(text)))

    def write(self, folder: Path) -> None:
        """Make the index, in `bm25s`' own format. Nothing is written when there was no word at all."""
        if not self._vocabulary.known:
            return
        model = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
        # With the empty word that it would add, a query for it alone would fail.
        model.index((self._passages, self._vocabulary.known), create_empty_token=False, show_progress=False)
        model.save(folder, show_progress=False)


class Lexical:
    """An index of words on disk, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        there = (folder / "params.index.json").exists()
        self._model = bm25s.BM25.load(folder, mmap=True, show_progress=False) if there else None

    def search(self, query: str, most: int, among: Any = None) -> Ranked:
        """The passages that have words of the query, best first; of equals the first in the context first.

        `among` says of each passage whether it may be found.
        """
        known = [] if self._model is None else self._model.get_tokens_ids(words(query))
        if self._model is None or not known:
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        scores = self._model.get_scores_from_ids(known)
        found = best(scores if among is None else scores * among, most)
        return found._replace(met=_met(self._model.scores, known, found.scores))


def _met(model: Any, known: list[int], scores: Any) -> float:
    """Each word has a passage where it scores highest; one that had all of these scores would be the best."""
    if not len(scores):
        return 0.0
    data, ends = model["data"], model["indptr"]
    highest = sum(float(data[ends[word] : ends[word + 1]].max(initial=0)) for word in known)
    return min(1.0, float(scores[0]) / highest) if highest else 0.0


def best(scores: Any, most: int) -> Ranked:
    """The highest scores above zero, best first, equals in their order."""
    found = np.flatnonzero(scores > 0)
    if len(found) > most:
        least = np.partition(scores[found], -most)[-most]
        found = found[scores[found] >= least]
    order = np.lexsort((found, -scores[found]))[:most]
    return Ranked(found[order], scores[found[order]])
