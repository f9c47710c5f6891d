"""BM25 over passages, with `bm25s`: scores are computed when the index is built, and added up in a search.

Import this module only after `extras.check_installed`, because it needs the extra.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import numpy as np

from rlm_langchain.retrieval.index.tokenizer import Vocabulary, words

K1, B = 1.2, 0.75


class Ranking(NamedTuple):
    """Numbers of passages, best first, and their scores."""

    numbers: Any
    scores: Any
    match_share: float = 1.0
    """Score of the first passage as a share (0 to 1) of the highest score that the query's words could have."""


class BM25Writer:
    """Collects the words of passages, and writes the index."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()
        self._passages: list[array[int]] = []

    def add(self, text: str) -> None:
        """Add the next passage."""
        self._passages.append(array("i", self._vocabulary.numbers(text)))

    def write(self, folder: Path) -> None:
        """Write the index to a folder, in the format of `bm25s`. Nothing is written if there are no words."""
        if not self._vocabulary.number_of_word:
            return
        model = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
        # By default an empty word would be added, and a query of that word alone would fail.
        model.index(
            (self._passages, self._vocabulary.number_of_word), create_empty_token=False, show_progress=False
        )
        model.save(folder, show_progress=False)


class BM25Index:
    """A word index on disk, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        has_words = (folder / "params.index.json").exists()
        self._model = bm25s.BM25.load(folder, mmap=True, show_progress=False) if has_words else None

    def search(self, query: str, most: int, among: Any = None) -> Ranking:
        """Return at most `most` passages that contain words of the query, best first, equal ones in their order.

        `among` is a mask: for each passage, whether it may be found. None: all of them.
        """
        known = [] if self._model is None else self._model.get_tokens_ids(words(query))
        if self._model is None or not known:
            return Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
        scores = self._model.get_scores_from_ids(known)
        found = highest_scores(scores if among is None else scores * among, most)
        return found._replace(match_share=_match_share(self._model.scores, known, found.scores))


def _match_share(model: Any, known: list[int], scores: Any) -> float:
    """Return the best score as a share of the sum of each word's highest score in any passage."""
    if not len(scores):
        return 0.0
    data, ends = model["data"], model["indptr"]
    highest = sum(float(data[ends[word] : ends[word + 1]].max(initial=0)) for word in known)
    return min(1.0, float(scores[0]) / highest) if highest else 0.0


def highest_scores(scores: Any, most: int) -> Ranking:
    """Return the highest positive scores, best first, equal ones in their order."""
    found = np.flatnonzero(scores > 0)
    if len(found) > most:
        least = np.partition(scores[found], -most)[-most]
        found = found[scores[found] >= least]
    order = np.lexsort((found, -scores[found]))[:most]
    return Ranking(found[order], scores[found[order]])
