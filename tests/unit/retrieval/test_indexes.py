"""What `search` rests on: exact and approximate vectors, memory-mapped files, and how two rankings become one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from rlm_langchain.retrieval.index import vectors as index_vectors
from rlm_langchain.retrieval.index.bm25 import BM25Index, BM25Writer
from rlm_langchain.retrieval.index.fusion import fuse, word_weight


def rows(count: int, width: int = 24) -> np.ndarray:
    """Vectors in clusters, as those of texts are."""
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(20, width))
    return index_vectors.normalized(centres[draw.integers(0, 20, count)] + 0.3 * draw.normal(size=(count, width)))


def test_beyond_a_number_of_vectors_only_cells_near_the_query_are_searched(tmp_path: Path):
    import faiss

    vectors, kinds = rows(4_000), {}
    for exact in (4_000, 3_999):
        folder = tmp_path / str(exact)
        folder.mkdir()
        index_vectors.write_vectors(vectors, folder, exact)
        kinds[exact] = index_vectors.VectorIndex(folder)
    assert isinstance(kinds[4_000]._index, faiss.IndexFlat)
    assert isinstance(kinds[3_999]._index, faiss.IndexIVF)
    assert kinds[3_999]._index.nprobe < kinds[3_999]._index.nlist / 10
    same = [
        len(np.intersect1d(*(index.search(vector, 10).numbers for index in kinds.values()))) for vector in rows(60)
    ]
    assert sum(same) >= 0.9 * 10 * len(same)
    first = kinds[3_999].search(vectors[7], 1)
    assert (first.numbers[0], round(float(first.scores[0]), 3)) == (7, 1.0)


@pytest.mark.parametrize("exact", [4_000, 3_000])
def test_a_search_may_be_among_some_of_the_vectors(tmp_path: Path, exact):
    vectors = rows(4_000)
    index_vectors.write_vectors(vectors, tmp_path, exact)
    among = np.arange(4_000) % 5 == 2
    found = index_vectors.VectorIndex(tmp_path).search(vectors[7], 20, among)
    assert found.numbers[0] == 7
    assert len(found.numbers) == 20
    assert among[found.numbers].all()


def test_a_million_vectors_are_still_compared_one_by_one():
    assert index_vectors.MAX_EXACT == 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_indexes_are_memory_mapped(tmp_path: Path):
    lexicon = BM25Writer()
    for n in range(3_000):
        lexicon.add(f"line {n} of {n * 7} about herons")
    lexicon.write(tmp_path)
    opened = [BM25Index(tmp_path)]
    for exact in (4_000, 2_000):
        folder = tmp_path / f"v{exact}"
        folder.mkdir()
        index_vectors.write_vectors(rows(3_000), folder, exact)
        opened.append(index_vectors.VectorIndex(folder))
    maps = Path("/proc/self/maps").read_text()
    assert f"{tmp_path}/data.csc.index.npy" in maps
    assert f"{tmp_path}/v4000/{index_vectors.NAME}" in maps
    assert f"{tmp_path}/v2000/{index_vectors.NAME}" in maps
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pickle")]
    assert len(opened) == 3


def test_words_that_are_met_say_more_than_meaning_and_those_that_are_not_say_little():
    by_words, by_meaning = [1, 2, 3], [7, 8, 9]
    met = [number for number, _ in fuse([(word_weight(1.0), by_words), (1.0, by_meaning)])]
    unmet = [number for number, _ in fuse([(word_weight(0.2), by_words), (1.0, by_meaning)])]
    assert met == [1, 2, 3, 7, 8, 9]
    assert unmet == [7, 8, 9, 1, 2, 3]
    assert fuse([(1.0, [5, 6]), (1.0, [6, 5])]) == [
        (5, pytest.approx(1 / 11 + 1 / 12)),
        (6, pytest.approx(1 / 11 + 1 / 12)),
    ]


def test_how_well_words_are_met_is_told_with_the_ranking(tmp_path: Path):
    lexicon = BM25Writer()
    for text in ("heron quince mast", "heron reed", "quince reed", "keel hull"):
        lexicon.add(text)
    lexicon.write(tmp_path)
    index = BM25Index(tmp_path)
    assert index.search("keel hull", 3).match_share == pytest.approx(1.0)
    assert 0.4 < index.search("keel mast", 3).match_share < 0.7
    assert index.search("nothing", 3).match_share == 1.0  # no ranking to weigh
    assert len(index.search("nothing", 3).numbers) == 0
