"""`search` in the REPL: words, meaning, other people's retrievers; bounded, journaled, never paid twice."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    Budget,
    ConfigurationError,
    MissingDependency,
    Price,
    RLMRetriever,
    create_rlm,
)
from rlm_langchain.testing.models import FunctionModel, script

TEXTS = {
    "fruit.txt": "Apples grow on trees.\n\nThe quince is a relative of the pear.",
    "boats.txt": "A schooner has two masts.\n\nThe keel lies under the hull.",
    "birds.txt": "A heron waits in the reeds.\n\nSwallows leave in September.",
}
HYBRID = "hits = search('quince', 2)\nFINAL(hits)"


class Topics(Embeddings):
    """Knows three topics by their words, and counts what it is asked."""

    topics = (("apple", "quince", "pear", "fruit", "orchard"), ("mast", "keel", "boat", "ship"), ("heron", "bird"))

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failures: list[Exception] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.failures:
            raise self.failures.pop()
        self.asked += texts
        return [self._vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vector(text)

    def _vector(self, text: str) -> list[float]:
        return [1.0 + sum(text.lower().count(word) for word in words) for words in self.topics]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("retriever", ["bm25", DeterministicFakeEmbedding(size=8)], ids=["words", "hybrid"])
def test_search_finds_passages_of_the_context_with_their_places(sandbox, retriever):
    rlm = create_rlm(script(HYBRID), retriever=retriever, sandbox=sandbox)
    for output in (rlm.completion("q", TEXTS), asyncio.run(rlm.ainvoke({"query": "q", "context": TEXTS}))):
        best = output["answer"][0]
        assert best["source"] == "fruit.txt"
        assert best["text"] == TEXTS["fruit.txt"][best["start"] : best["end"]]
        assert "quince" in best["text"]
        assert best["score"] > 0


CONTEXTS = {
    "a text": ("\n\n".join(TEXTS.values()), "context"),
    "a list": (list(TEXTS.values()), "0"),
    "documents": ([Document(text, metadata={"n": i}) for i, text in enumerate(TEXTS.values())], "0"),
    "records": ([{"id": i, "body": text} for i, text in enumerate(TEXTS.values())], "0"),
    "long records": (
        [{"id": i, "body": text, "rest": "x " * 600} for i, text in enumerate(TEXTS.values())],
        "0.body",
    ),
    "nested": ({"all": {"files": TEXTS, "rest": "x " * 600}}, "all.files"),
}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_any_context_can_be_searched(name, sandbox):
    context, source = CONTEXTS[name]
    rlm = create_rlm(script("FINAL(search('relative of the pear', k=1))"), retriever="bm25", sandbox=sandbox)
    [hit] = rlm.completion("q", context)["answer"]
    assert hit["source"].startswith(source)
    assert "quince is a relative" in hit["text"]
    assert len(hit["text"]) == hit["end"] - hit["start"]


def test_a_text_that_the_repl_reads_lazily_can_be_searched():
    from rlm_langchain import Limits

    text = "".join(f"Line {n} is about nothing at all, né.\n" for n in range(20_000)) + "A lone quince.\n"
    rlm = create_rlm(
        script("h = search('quince')\nFINAL([h, context[h[0]['start']:h[0]['end']]])"),
        retriever="bm25",
        limits=Limits(loaded=1000),
    )
    [[hit], again] = rlm.completion("q", text)["answer"]
    assert hit["text"] == again == text[hit["start"] : hit["end"]]
    assert hit["text"].endswith("A lone quince.")


def test_without_a_retriever_there_is_no_search():
    assert (
        "NameError"
        in create_rlm(script("try:\n    search('x')\nexcept Exception as e:\n    FINAL(repr(e))")).completion(
            "q", TEXTS
        )["answer"]
    )


def test_the_model_is_told_of_search_in_a_few_words():
    told = create_rlm(script("FINAL(1)"), retriever="bm25").completion("q", TEXTS)["trajectory"][0]["text"]
    untold = create_rlm(script("FINAL(1)")).completion("q", TEXTS)["trajectory"][0]["text"]
    assert "`search(query, k=10, within=None)`" in told
    assert "`search(" not in untold
    assert len(told) - len(untold) < 700


def test_meaning_finds_what_words_do_not():
    code = "FINAL([h['source'] for h in search('an orchard', 1)])"
    assert create_rlm(script(code), retriever="bm25").completion("q", TEXTS)["answer"] == []
    assert create_rlm(script(code), retriever=Topics()).completion("q", TEXTS)["answer"] == ["fruit.txt"]


def test_the_journal_holds_places_and_not_the_text():
    output = create_rlm(script("FINAL(len(search('quince')))"), retriever="bm25").completion("q", TEXTS)
    [call] = [record for record in output["trajectory"] if record["type"] == "call"]
    assert call["kind"] == "search"
    assert "pear" not in call["value"]
    assert "pear" not in json.dumps([r for r in output["trajectory"] if r["type"] != "question"])


def test_a_child_run_searches_its_own_slice():
    model = script(
        "FINAL(rlm_query('KID', context['boats.txt']))",
        children={"KID": ["FINAL(str([len(search('quince')), search('keel')[0]['source']]))"]},
    )
    output = create_rlm(model, retriever="bm25", budget=Budget(depth=2)).completion("q", TEXTS)
    assert output["answer"] == "[0, 'context']"


SLICES = {
    "item of a dict": (TEXTS, "context['boats.txt']", "context", "context"),
    "some of a dict": (TEXTS, "{'b': context['boats.txt'], 'c': context['birds.txt']}", "b", "context['b']"),
    "some of a list": (list(TEXTS.values()), "context[1:]", "0", "context[0]"),
    "documents": ([Document(text) for text in TEXTS.values()], "context[1:]", "0", "context[0]['page_content']"),
    "records": ([{"id": i, "body": text} for i, text in enumerate(TEXTS.values())], "context[1:]", "0", None),
    "piece of a text": ("\n\n".join(TEXTS.values()), "context[context.index('A sch'):]", "context", "context"),
}


@pytest.mark.parametrize("name", SLICES)
@pytest.mark.parametrize("retriever", ["bm25", "embeddings"])
def test_children_inherit_the_index_for_their_slice(home, name, retriever):
    context, piece, source, text = SLICES[name]
    look = f"{text}[h[0]['start']:h[0]['end']] == h[0]['text']" if text else "True"
    child = (
        f"h = search('keel', 5)\n"
        f"FINAL(str([h[0]['source'], 'keel' in h[0]['text'], {look}, any('quince' in x['text'] for x in h)]))"
    )
    model = script(f"search('x')\nFINAL(rlm_query('KID', {piece}))", children={"KID": [child]})
    embeddings = Topics()
    output = create_rlm(
        model, retriever=embeddings if retriever == "embeddings" else "bm25", budget=Budget(depth=2)
    ).completion("q", context)
    assert output["answer"] == str([source, True, True, False])
    assert len([*(home / "indexes").glob("??/" + "?" * 64)]) == (2 if retriever == "embeddings" else 1)
    assert len(embeddings.asked) == len(set(embeddings.asked))


@pytest.mark.parametrize("piece", ["context['boats.txt'].upper()", "{'x': 'keel, but not of the context'}"])
def test_what_is_no_slice_has_an_index_of_its_own(home, piece):
    model = script(
        f"search('x')\nFINAL(rlm_query('KID', {piece}))", children={"KID": ["FINAL(str(len(search('keel'))))"]}
    )
    assert create_rlm(model, retriever="bm25", budget=Budget(depth=2)).completion("q", TEXTS)["answer"] == "1"
    assert len([*(home / "indexes").glob("??/" + "?" * 64)]) == 2


def test_a_slice_of_what_was_never_searched_pays_for_itself_only(home):
    model, embeddings = (
        script("FINAL(rlm_query('KID', context['boats.txt']))", children={"KID": [HYBRID]}),
        Topics(),
    )
    create_rlm(model, retriever=embeddings, budget=Budget(depth=2)).completion("q", TEXTS)
    assert embeddings.asked == [TEXTS["boats.txt"]]


def test_searches_at_once_share_one_index_and_one_payment(home):
    model = Topics()
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(search, ['quince', 'keel', 'heron', 'mast']))
FINAL([f[0]['source'] for f in found])
"""
    rlm = create_rlm(script(code), retriever=model, sandbox="cpython")
    assert rlm.completion("q", TEXTS)["answer"] == ["fruit.txt", "boats.txt", "birds.txt", "boats.txt"]
    assert sorted(model.asked) == sorted(set(model.asked))
    assert len(model.asked) == 3


def test_an_index_is_made_once_for_a_context_whoever_asks(home):
    for _ in range(2):
        model = Topics()
        create_rlm(script(HYBRID), retriever=model).completion("q", TEXTS)
    assert model.asked == []
    assert not list(home.rglob("*.pkl"))


def test_another_context_pays_only_for_what_is_new_in_it(home):
    create_rlm(script(HYBRID), retriever=Topics()).completion("q", TEXTS)
    model = Topics()
    create_rlm(script(HYBRID), retriever=model).completion("q", {**TEXTS, "new.txt": "A quince tart."})
    assert model.asked == ["A quince tart."]


def test_what_was_changed_on_disk_is_made_anew(home):
    rlm = create_rlm(script(HYBRID), retriever="bm25")
    whole = rlm.completion("q", TEXTS)["answer"]
    [data] = (home / "indexes").rglob("data.csc.index.npy")
    data.write_bytes(data.read_bytes()[:-3] + b"abc")
    assert create_rlm(script(HYBRID), retriever="bm25").completion("q", TEXTS)["answer"] == whole
    assert b"abc" not in data.read_bytes()[-3:]


def test_embeddings_are_on_the_account():
    prices = {"Topics": Price(1000.0, 0.0), "function": Price(0.0, 0.0)}
    output = create_rlm(script(HYBRID), retriever=Topics(), prices=prices).completion("q", TEXTS)
    [call] = [record for record in output["trajectory"] if record["type"] == "call"]
    read = sum(round(len(text) / 4) for text in [*TEXTS.values(), "quince"])
    assert call["usage"]["input"] == pytest.approx(read, abs=3)
    assert call["usage"]["estimated"]
    assert output["usage"]["sub"]["input"] == call["usage"]["input"]
    assert output["cost_usd"] == pytest.approx(call["usage"]["input"] / 1000)
    assert output["sub_calls"] == 0


def test_what_the_budget_refuses_is_searched_by_words_and_the_cell_is_told():
    model = Topics()
    texts = {**TEXTS, "long.txt": "\n\n".join(f"Paragraph {n} on nothing. " * 20 for n in range(400))}
    code = "print(search('quince')[0]['source'])"
    output = create_rlm(script(code, "FINAL('done')"), retriever=model, budget=Budget(tokens=30_000)).completion(
        "q", texts
    )
    [shown] = [record["text"] for record in output["trajectory"] if record["type"] == "output"][:1]
    assert "by words only, since the embedding model was not asked" in shown
    assert "fruit.txt" in shown
    assert output["usage"]["sub"]["input"] <= 30_000


def test_dollars_need_the_price_of_the_embedding_model():
    free = {"function": Price(0.0, 0.0)}
    with pytest.raises(ConfigurationError, match="Topics"):
        _ = create_rlm(script("FINAL(1)"), retriever=Topics(), prices=free, budget=Budget(usd=1.0)).graph


def test_a_fault_that_passes_is_tried_again_and_others_leave_words():
    rlm = create_rlm(script("print(len(search('quince')))", "FINAL(1)"), retriever=Topics())
    rlm.retriever.failures = [PermissionError("sk-secret")]
    output = rlm.completion("q", TEXTS)
    shown = next(record["text"] for record in output["trajectory"] if record["type"] == "output")
    assert "does not answer" in shown
    assert "sk-secret" not in json.dumps(output["trajectory"])
    assert "1\n" in shown


def test_a_resumed_run_pays_for_no_embedding_twice(home):
    turns = iter(
        ["```repl\nh = search('quince')\n```", RuntimeError("down"), "```repl\nFINAL(h[0]['source'])\n```"]
    )

    def play(messages):
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    model = Topics()
    prices = {"Topics": Price(1000.0, 0.0), "function": Price(0.0, 0.0)}
    rlm = create_rlm(FunctionModel(function=play), retriever=model, checkpointer=InMemorySaver(), prices=prices)
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        rlm.invoke({"query": "q", "context": TEXTS}, config)
    paid = len(model.asked)
    output = rlm.invoke(None, config)
    assert output["answer"] == "fruit.txt"
    assert len(model.asked) == paid == 3
    assert 0 < output["cost_usd"] < 0.1


def test_an_index_that_a_crash_left_half_embedded_is_finished_without_paying_again(home, monkeypatch):
    from rlm_langchain.retrieval import embedder

    monkeypatch.setattr(embedder, "BATCH_SIZE", 1)
    monkeypatch.setattr(embedder, "MAX_PARALLEL_REQUESTS", 1)
    model = Topics()

    def broken(texts: list[str]) -> Any:
        if len(model.asked) == 2:
            raise PermissionError("no")
        return Topics.embed_documents(model, texts)

    model.embed_documents = broken  # type: ignore[method-assign]
    create_rlm(script(HYBRID), retriever=model).completion("q", TEXTS)
    assert len(model.asked) == 2
    again = Topics()
    create_rlm(script(HYBRID), retriever=again).completion("q", TEXTS)
    assert len(again.asked) == 1


def test_a_damaged_cache_of_vectors_is_an_error_once_and_then_made_anew(home):
    create_rlm(script(HYBRID), retriever=Topics()).completion("q", TEXTS)
    [cache] = (home / "vectors").glob("*.sqlite")
    cache.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    texts = {**TEXTS, "new.txt": "A quince tart."}
    with pytest.raises(Exception, match="vectors cannot be stored"):
        create_rlm(script(HYBRID), retriever=Topics()).completion("q", texts)
    assert create_rlm(script(HYBRID), retriever=Topics()).completion("q", texts)["status"] == "complete"
    with closing(sqlite3.connect(cache)) as database, database:
        assert database.execute("SELECT count(*) FROM vectors").fetchone() == (4,)
    database.close()


class Fixed(BaseRetriever):
    """Finds the same, whatever it is asked."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if query == "fail":
            raise RuntimeError("sk-secret")
        return [
            Document("A keel.", metadata={"source": "boats", "start_index": 7}),
            Document("A mast.", id="17"),
        ]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_retriever_of_the_users_own_is_used_instead(sandbox):
    rlm = create_rlm(script("FINAL([search('x'), len(search('x', 1))])"), retriever=Fixed(), sandbox=sandbox)
    assert rlm.invoke("q")["answer"] == [
        [
            {"text": "A keel.", "score": None, "source": "boats", "start": 7, "end": 14},
            {"text": "A mast.", "score": None, "source": "17", "start": None, "end": None},
        ],
        1,
    ]


def test_a_vector_store_of_the_users_own_is_used_with_its_scores():
    store = InMemoryVectorStore(Topics())
    store.add_texts(list(TEXTS.values()), metadatas=[{"source": name} for name in TEXTS])
    [hit] = create_rlm(script("FINAL(search('a ship', 1))"), retriever=store).invoke("q")["answer"]
    assert hit["source"] == "boats.txt"
    assert math.isclose(hit["score"], 1.0, abs_tol=0.2)


def test_a_retriever_that_fails_is_an_error_of_the_cell_without_its_secrets():
    code = "try:\n    search('fail')\nexcept LLMError as e:\n    FINAL(str(e))"
    answer = create_rlm(script(code), retriever=Fixed()).invoke("q")["answer"]
    assert "RuntimeError" in answer
    assert "sk-secret" not in answer


def test_odd_searches_find_nothing_and_break_nothing():
    code = """
asked = [('', 3), ('quince', 0), ('!?', 5), ('zzz', 5), ('quince', 10**9), ('quince', -1)]
found = [search(q, k) for q, k in asked]
try:
    search(None)
except TypeError as e:
    found.append([str(e)])
try:
    _host_call('search', 'no json')
except LLMError as e:
    found.append([str(e)])
FINAL([len(f) for f in found[:6]] + found[6:])
"""
    answer = create_rlm(script(code), retriever="bm25").completion("q", TEXTS)["answer"]
    assert answer[:6] == [0, 0, 0, 0, 1, 0]
    assert "takes a query" in answer[6][0]
    assert "takes a query" in answer[7][0]


def test_contexts_without_words_and_no_context_find_nothing():
    rlm = create_rlm(script("FINAL(search('x'))"), retriever="bm25")
    assert rlm.completion("q", "!!! --- ???")["answer"] == []
    assert rlm.invoke("q")["answer"] == []
    assert rlm.completion("q", [1, 2, 3])["answer"] == []


@pytest.mark.parametrize("given", ["bm52", 7, object()])
def test_what_cannot_search_is_refused_before_anything_is_paid(given):
    with pytest.raises(ConfigurationError, match="retriever is"):
        _ = create_rlm(script("FINAL(1)"), retriever=given).graph


def test_a_tool_called_search_and_a_retriever_do_not_go_together():
    def search(query: str) -> str:
        """Search."""
        return query

    with pytest.raises(ConfigurationError, match="rename one"):
        _ = create_rlm(script("FINAL(1)"), retriever="bm25", tools=[search]).graph


def test_the_extra_is_named_when_it_is_missing(monkeypatch):
    from rlm_langchain.retrieval import extras

    monkeypatch.setattr(extras, "PACKAGES", {"no_such_module": "bm25s"})
    with pytest.raises(MissingDependency, match=r'pip install "rlm-langchain\[retrieval\]"'):
        _ = create_rlm(script("FINAL(1)"), retriever="bm25").graph


def test_hybrid_uses_search_when_it_is_there():
    code = "p = gather(['quince', 'relative pear'])\nFINAL([p[0]['source'], len(p), 'score' in p[0]])"
    rlm = create_rlm(script(code), retriever="bm25", strategies=["hybrid"])
    output = rlm.completion("q", TEXTS)
    assert output["answer"] == ["fruit.txt", 1, True]
    assert [r["kind"] for r in output["trajectory"] if r["type"] == "call"] == ["search", "search"]
    outside = create_rlm(script("FINAL(len(gather(['a', 'b'])))"), retriever=Fixed(), strategies=["hybrid"])
    assert outside.invoke("q")["answer"] == 2


def test_indexes_that_nobody_used_for_long_are_removed(home: Path):
    import os

    from rlm_langchain.retrieval.cache.index_store import IndexStore

    create_rlm(script(HYBRID), retriever="bm25").completion("q", TEXTS)
    shelf = IndexStore(home / "indexes")
    assert shelf.collect(older_than=3600).removed == ()
    for folder in (home / "indexes").glob("??/" + "?" * 64):
        os.utime(folder, (0, 0))
    assert len(shelf.collect(older_than=3600).removed) == 1
    assert create_rlm(script(HYBRID), retriever="bm25").completion("q", TEXTS)["status"] == "complete"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("embeddings", [None, DeterministicFakeEmbedding(size=8)])
def test_words_are_found_however_they_are_encoded(form: Any, embeddings):
    hangul = "\ud55c\uae00 \u30d0\u30b9"
    texts = [
        "Der Zug nach K\u00f6ln.",
        "Die \ufb02ache \uff21lster.",
        "Zusammen\u00adarbeit.",
        hangul,
    ]
    corpus = [unicodedata.normalize(form, text) for text in texts]
    other = "NFD" if form == "NFC" else "NFC"
    retriever = RLMRetriever(corpus=corpus, embeddings=embeddings, k=1)
    for number, query in enumerate(["K\u00f6ln", "flache Alster", "zusammenarbeit", hangul]):
        [hit] = retriever.invoke(unicodedata.normalize(other, query))
        assert hit.page_content == corpus[number][hit.metadata["start"] : hit.metadata["end"]] == corpus[number]


class Odd(Topics):
    """Gives vectors that cannot be used."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def embed_documents(self, texts: list[str]) -> Any:
        return self.given(texts)


@pytest.mark.parametrize(
    "given",
    [
        lambda texts: [[1.0, math.nan, 0.0]] * len(texts),
        lambda texts: [[1.0, 0.0, 0.0]],
        lambda texts: [[1.0] * (2 + number % 2) for number in range(len(texts))],
        lambda texts: [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]] * len(texts),
        lambda texts: None,
    ],
)
def test_vectors_that_cannot_be_used_leave_a_search_by_words_that_says_so(given):
    output = create_rlm(script(HYBRID), retriever=Odd(given)).completion("q", TEXTS)
    assert output["answer"][0]["source"] == "fruit.txt"
    [told] = [record["text"] for record in output["trajectory"] if record["type"] == "output"]
    assert "by words only, since the embedding model" in told


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_search_without_a_hit_says_so_and_is_counted(sandbox):
    cell = "for query, k in [('zzz', 5), (' ', 5), ('quince', 0)]:\n    print(len(search(query, k)))"
    output = create_rlm(script(cell, "FINAL(1)"), retriever="bm25", sandbox=sandbox).completion("q", TEXTS)
    printed = next(record["text"] for record in output["trajectory"] if record["type"] == "output")
    assert "[search] nothing was found for 'zzz' in the 3 passages of the context: try other words" in printed
    assert "[search] the query was blank" in printed
    assert "[search] k was below 1" in printed
    assert (output["degraded"], output["status"]) == ({"found_nothing": 3}, "complete")


@pytest.mark.parametrize("context", [[], "", {}])
def test_a_context_that_is_empty_is_told(context):
    output = create_rlm(script("print(search('x'))", "FINAL(1)"), retriever="bm25").completion("q", context)
    assert "The given context is empty" in output["trajectory"][0]["text"]
    assert output["degraded"] == {"empty_context": 1, "found_nothing": 1}
    assert create_rlm(script("FINAL(1)")).invoke("q")["degraded"] == {}


WITHIN = """
found = []
pages, rows = context['a.pdf'], context['rows']
parts = [pages, pages[1:3], pages[2], pages[2]['text'], rows, rows[1:2], context['note'][6:], ('a.pdf', 0)]
for part in parts:
    hits = search('apple', 20, within=part)
    found.append(sorted([hit['source'], hit['text']] for hit in hits))
    for hit in hits:
        assert len(hit['text']) == hit['end'] - hit['start'] and 'apple' in hit['text']
for wrong in ('nowhere', 3, ('b.pdf',)):
    try:
        search('apple', within=wrong)
    except (ValueError, TypeError, LLMError) as error:
        found.append(type(error).__name__)
FINAL(found)
"""


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("before", ["", "search('apple')\n"], ids=["alone", "in the index of the whole"])
def test_a_part_of_the_context_is_searched_by_reference(sandbox: str, before: str, tmp_path: Path) -> None:
    filler = "No fruit is named here. " * 45
    pages = [{"page": n, "text": f"On page {n} an apple falls. {filler}"} for n in (1, 2, 3)]
    notes = "apple pie, and a second apple pie"
    rows = [{"id": n, "name": f"apple {n}"} for n in (1, 2)]
    context = {"a.pdf": pages, "rows": rows, "note": notes}
    rlm = create_rlm(script(before + WITHIN), sandbox=sandbox, retriever="bm25", home=tmp_path)
    answer = rlm.invoke({"query": "?", "context": context})["answer"]
    assert [[source for source, _ in found] for found in answer[:4]] == [
        ["a.pdf.0.text", "a.pdf.1.text", "a.pdf.2.text"],
        ["a.pdf.1.text", "a.pdf.2.text"],
        ["a.pdf.2.text"],
        ["a.pdf.2.text"],
    ]
    assert answer[4] == [["rows.0", json.dumps(rows[0])], ["rows.1", json.dumps(rows[1])]]
    assert answer[5] == [["rows.1", json.dumps(rows[1])]]
    assert answer[6] == [["note", notes[6:]]]
    assert [source for source, _ in answer[7]] == ["a.pdf.0.text"]
    assert answer[8:] == ["ValueError", "TypeError", "RuntimeError" if sandbox == "monty" else "LLMError"]
