"""`FAISSStore` and `RLMRetriever`: LangChain's own suites, unmodified, and what they do not ask."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from rlm_langchain import (
    ConfigurationError,
    FAISSStore,
    InputError,
    JournalError,
    MissingDependency,
    RLMError,
    RLMRetriever,
)
from rlm_langchain.retrieval.faiss_store.persistence import save


class TestFAISSStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return FAISSStore(self.get_embeddings())


class TestRLMRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[RLMRetriever]:
        return RLMRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        documents = [Document(f"Heron number {n} waits in the reeds.", metadata={"n": n}) for n in range(12)]
        return {"corpus": documents, "k": 4, "embeddings": DeterministicFakeEmbedding(size=6)}

    @property
    def retriever_query_example(self) -> str:
        return "Which heron waits?"


class TestRLMRetrieverByWords(TestRLMRetriever):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"corpus": "\n\n".join(f"Heron {n} waits. {'Reeds! ' * 90}" for n in range(12))}


class Numbers(Embeddings):
    """A text is a list of numbers."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(part) for part in text.split()]


@pytest.fixture
def store() -> FAISSStore:
    metadatas = [{"n": n, "even": n % 2 == 0} for n in range(4)]
    return FAISSStore.from_texts(["1 0", "1 1", "0 2", "-3 0"], Numbers(), metadatas, ids=["a", "b", "c", "d"])


def test_scores_are_cosines_whatever_the_length(store):
    found = [(document.id, round(score, 4)) for document, score in store.similarity_search_with_score("5 0", k=9)]
    assert found == [("a", 1.0), ("b", 0.7071), ("c", 0.0), ("d", -1.0)]
    assert asyncio.run(store.asimilarity_search_with_score("5 0", k=1)) == store.similarity_search_with_score(
        "5 0", 1
    )


def test_a_filter_leaves_the_best_of_those_that_satisfy_it(store):
    assert [d.id for d in store.similarity_search("5 0", k=2, filter={"even": False})] == ["b", "d"]
    assert [d.id for d in store.similarity_search("5 0", k=2, filter=lambda d: d.metadata["n"] > 1)] == ["c", "d"]
    assert store.similarity_search("5 0", filter={"none": 1}) == []
    assert [d.id for d in store.similarity_search_by_vector([0, 1], k=1, filter={"even": True})] == ["c"]


def test_documents_that_are_alike_give_way_to_others(store):
    store.add_texts(["1 0.01", "1 0.02"], ids=["e", "f"])
    near = [d.id for d in store.similarity_search("1 0", k=2)]
    diverse = [d.id for d in store.max_marginal_relevance_search("1 0", k=2, lambda_mult=0.1)]
    assert near == ["a", "e"]
    assert diverse[0] == "a"
    assert diverse[1] in ("c", "d")
    assert asyncio.run(store.amax_marginal_relevance_search("1 0", k=2, lambda_mult=0.1)) == store.get_by_ids(
        diverse
    )


def test_relevance_is_between_none_and_all(store):
    found = {d.id: s for d, s in store.similarity_search_with_relevance_scores("5 0", k=4)}
    assert found["a"] == pytest.approx(1.0)
    assert found["d"] == 0.0
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.5})
    assert [d.id for d in retriever.invoke("5 0")] == ["a", "b"]


def test_deleting_all_leaves_an_empty_store_that_can_be_filled(store):
    assert store.delete()
    assert len(store) == 0
    assert store.similarity_search("1 0") == []
    store.add_texts(["0 1"], ids=["x"])
    assert [d.id for d in store.similarity_search("1 0")] == ["x"]


def test_what_is_saved_is_loaded(store, tmp_path):
    store.delete(["b"])
    store.save_local(tmp_path / "s")
    again = FAISSStore.load_local(tmp_path / "s", Numbers())
    assert again.similarity_search_with_score("5 0") == store.similarity_search_with_score("5 0")
    again.add_texts(["9 9"], ids=["new"])
    assert again.similarity_search("1 1", k=1)[0].id == "new"
    again.save_local(tmp_path / "s")
    assert len(FAISSStore.load_local(tmp_path / "s", Numbers())) == 4
    assert len([*(tmp_path / "s").iterdir()]) == 2


def test_an_empty_store_is_saved_and_loaded(tmp_path):
    FAISSStore(Numbers()).save_local(tmp_path)
    assert FAISSStore.load_local(tmp_path, Numbers()).similarity_search("1 0") == []


@pytest.mark.parametrize("damage", ["vectors", "documents", "no vectors", "no documents", "other vectors"])
def test_what_is_damaged_or_missing_is_refused(store, tmp_path, damage):
    store.save_local(tmp_path)
    [vectors] = tmp_path.glob("vectors-*.faiss")
    documents = tmp_path / "documents.json"
    match damage:
        case "vectors":
            vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
        case "documents":
            documents.write_bytes(documents.read_bytes()[:-9])
        case "no vectors":
            vectors.unlink()
        case "no documents":
            documents.unlink()
        case _:
            told = json.loads(documents.read_text())
            documents.write_text(json.dumps({**told, "documents": told["documents"][1:]}))
    with pytest.raises(JournalError, match="vector store"):
        FAISSStore.load_local(tmp_path, Numbers())


def test_whatever_is_edited_in_a_saved_store_is_refused(store, tmp_path):
    store.add_texts(["7 7"], [{"year": 2024, "tags": ["x", {"y": 1.5}]}], ids=["e"])
    store.save_local(tmp_path)
    documents = tmp_path / "documents.json"
    whole = documents.read_text()

    def edit(value: Any) -> Iterator[Any]:
        """The value with each of its parts changed, one at a time."""
        match value:
            case dict():
                yield from ({**value, key: one} for key, part in value.items() for one in edit(part))
            case list():
                yield value[1:]
                yield from (
                    [*value[:i], one, *value[i + 1 :]] for i, part in enumerate(value) for one in edit(part)
                )
            case str():
                yield f"{value}0"
            case _:
                yield 7 if value is None else value + 1

    for edited in edit(json.loads(whole)):
        documents.write_text(json.dumps(edited))
        with pytest.raises(JournalError, match=f"the vector store in {tmp_path}"):
            FAISSStore.load_local(tmp_path, Numbers())
    documents.write_text(json.dumps(json.loads(whole), indent=1))  # laid out otherwise, and the same
    assert FAISSStore.load_local(tmp_path, Numbers()).get_by_ids(["e"]) == store.get_by_ids(["e"])


def test_numbers_that_are_not_those_of_the_vectors_are_refused(store, tmp_path):
    kept = {name: one._replace(number=one.number + 9) for name, one in store._table.documents.items()}
    save(tmp_path, store._table.index, kept, 99)
    with pytest.raises(JournalError, match="damaged or was changed"):
        FAISSStore.load_local(tmp_path, Numbers())


def test_a_store_of_an_older_format_says_what_to_do(store, tmp_path):
    store.save_local(tmp_path)
    told = json.loads((tmp_path / "documents.json").read_text())
    (tmp_path / "documents.json").write_text(json.dumps({**told, "format": 2}))
    with pytest.raises(JournalError, match=r"format 2, not 3.*build the store again from its documents"):
        FAISSStore.load_local(tmp_path, Numbers())


def test_metadata_that_is_no_json_cannot_be_saved_and_leaves_what_was_there(store, tmp_path):
    store.save_local(tmp_path)
    store.add_texts(["1 0"], [{"when": object()}])
    with pytest.raises(InputError, match="of type object: give text, numbers"):
        store.save_local(tmp_path)
    assert len(FAISSStore.load_local(tmp_path, Numbers())) == 4


def test_odd_numbers_of_things_are_refused(store):
    with pytest.raises(InputError, match="2 texts were given with 1 ids"):
        store.add_texts(["1 0", "0 1"], ids=["x"])
    with pytest.raises(InputError, match="width 3"):
        store.add_texts(["1 0 0"])
    with pytest.raises(InputError, match="width 3"):
        store.similarity_search("1 0 0")
    assert store.add_texts([]) == []
    assert len(store) == 4


def test_of_equal_ids_in_one_call_the_last_counts(store):
    store.add_texts(["5 5", "0 9"], ids=["a", "a"])
    assert store.get_by_ids(["a"])[0].page_content == "0 9"
    assert len(store) == 4


def test_results_can_be_changed_without_changing_the_store(store):
    store.get_by_ids(["a"])[0].metadata["n"] = 99
    assert store.get_by_ids(["a"])[0].metadata["n"] == 0


def test_containers_in_results_and_copies_are_their_own(store):
    def nested() -> dict[str, Any]:
        return {"tags": ["x"], "more": {"deep": [{"set": {1}}]}}

    store.add_texts(["7 7"], [nested()], ids=["e"])
    other = copy.copy(store)
    results = [
        store.get_by_ids(["e"])[0],
        store.similarity_search("7 7", k=1, filter={"tags": {"$exists": True}})[0],
        store.max_marginal_relevance_search("7 7", k=1, filter=lambda one: one.id == "e")[0],
        other._table.documents["e"],
    ]
    for found in results:
        found.metadata["tags"].append("y")
        found.metadata["more"]["deep"][0]["set"].add(2)
    assert store.get_by_ids(["e"])[0].metadata == nested()


def test_threads_may_add_delete_and_search_at_once():
    store = FAISSStore(DeterministicFakeEmbedding(size=16))

    def work(who: int) -> None:
        for n in range(30):
            store.add_texts([f"{who} {n}"], ids=[f"{who}-{n}"])
            store.similarity_search(f"{who} {n}", k=5)
            if n % 3 == 0:
                store.delete([f"{who}-{n}"])

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 6 * 20
    assert store.similarity_search("3 4", k=1)[0].id == "3-4"


def test_without_the_extra_the_message_names_it(monkeypatch):
    from rlm_langchain.retrieval import extras

    monkeypatch.setattr(extras, "PACKAGES", {"no_such_module": "faiss-cpu"})
    with pytest.raises(MissingDependency, match=r'faiss-cpu.*pip install "rlm-langchain\[retrieval\]"'):
        FAISSStore(Numbers())
    with pytest.raises(MissingDependency, match=r"rlm-langchain\[retrieval\]"):
        RLMRetriever(corpus="a heron").invoke("heron")


# --- filters, thresholds, numbers ------------------------------------------------------------------

PEOPLE: list[dict[str, Any]] = [
    {"name": "Ada", "born": 1815, "tags": ["a", "b"], "died": date(1852, 11, 27)},
    {"name": "Bob", "born": 1901.5, "left": None, "ok": True},
    {"name": "Cyd", "born": "unknown", "address": {"city": "Köln"}},
    {},
]


@pytest.fixture
def people() -> FAISSStore:
    return FAISSStore.from_texts(["4 1", "3 1", "2 1", "1 1"], Numbers(), PEOPLE, ids=list("abcd"))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({}, "abcd"),
        ({"name": "Ada"}, "a"),
        ({"name": {"$eq": "Ada"}}, "a"),
        ({"name": {"$ne": "Ada"}}, "bcd"),
        ({"name": {"$neq": "Ada"}}, "bcd"),
        ({"name": ["Ada", "Cyd"]}, "ac"),
        ({"name": {"$in": ("Ada", "Cyd")}}, "ac"),
        ({"name": {"$in": []}}, ""),
        ({"name": {"$nin": {"Ada", "Cyd"}}}, "bd"),
        ({"tags": ["a", "b"]}, "a"),
        ({"tags": {"$eq": ["a", "b"]}}, "a"),
        ({"born": {"$gt": 1815}}, "b"),
        ({"born": {"$gte": 1815, "$lt": 1901.5}}, "a"),
        ({"born": {"$lte": 1901.5}}, "ab"),
        ({"born": {"$gt": "a"}}, "c"),
        ({"born": {"$gt": np.int64(1900)}}, "b"),
        ({"born": {"$lte": np.float32(1901.5)}}, "ab"),
        ({"born": np.int64(1815)}, "a"),
        ({"tags": np.array(["a", "b"])}, "a"),
        ({"name": {"$nin": np.array(["Ada", "Cyd"])}}, "bd"),
        ({"$not": {"ok": np.bool_(True)}}, "acd"),
        ({"died": {"$lt": date(1900, 1, 1)}}, "a"),
        ({"died": {"$not": {"$lt": date(1900, 1, 1)}}}, "bcd"),
        ({"left": None}, "abcd"),
        ({"left": {"$exists": True}}, "b"),
        ({"left": {"$exists": False}}, "acd"),
        ({"address": {"city": "Köln"}}, "c"),
        ({"$or": [{"name": "Ada"}, {"ok": True}]}, "ab"),
        ({"$and": [{"born": {"$gt": 0}}, {"ok": {"$ne": True}}]}, "a"),
        ({"$and": [{"born": {"$gt": 0}}], "ok": True}, "b"),
        ({"$not": {"$or": [{"name": "Ada"}, {"name": "Bob"}]}}, "cd"),
        (lambda document: document.id in "bc", "bc"),
    ],
)
def test_filters_mean_what_they_mean_in_langchain(people, filter, expected):
    found = people.similarity_search_with_score("1 0", k=9, filter=filter)
    assert "".join(document.id for document, _ in found) == expected
    assert asyncio.run(people.asimilarity_search_with_score("1 0", k=9, filter=filter)) == found
    assert [d.id for d in people.similarity_search("1 0", k=1, filter=filter)] == list(expected[:1])
    assert people.similarity_search_by_vector([1, 0], k=9, filter=filter) == [document for document, _ in found]
    diverse = people.max_marginal_relevance_search("1 0", k=9, filter=filter)
    assert {document.id for document in diverse} == {*expected}


class Unasked(Numbers):
    """Must not be asked."""

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError(text)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filter": {"a": {"$regex": "x"}}}, r"'\$regex' .* use \$eq, \$ne"),
        ({"filter": {"$nor": [{"a": 1}]}}, r"'\$nor' .* use \$and, \$or, \$not"),
        ({"filter": {"a": {"$eq": 1, "b": 2}}}, "'b' in a filter"),
        ({"filter": {1: 2}}, "1 in a filter"),
        ({"filter": {"a": {"$in": "abc"}}}, "takes a list"),
        ({"filter": {"$or": []}}, "takes a non-empty list"),
        ({"filter": {"$and": {"a": 1}}}, "takes a non-empty list"),
        ({"filter": {"a": {"$gt": None}}}, "takes a number"),
        ({"filter": {"a": {"$gt": math.nan}}}, "takes a number"),
        ({"filter": {"a": {"$exists": 1}}}, "True or False"),
        ({"filter": "a = 1"}, "is not a filter"),
        ({"filter": {"a": lambda value: value > 1}}, "function of the whole document"),
        ({"filter": {"a": {"$not": range(3)}}}, "no metadata equals"),
        ({"filters": {"a": 1}}, "no option 'filters'; its options are k, .*filter"),
        ({"k": -1}, "k is -1"),
        ({"k": 1.5}, "k is 1.5"),
        ({"k": True}, "k is True"),
        ({"score_threshold": True}, "score_threshold is True"),
        ({"score_threshold": 1.5}, "score_threshold is 1.5"),
        ({"score_threshold": math.nan}, "score_threshold is nan"),
        ({"score_threshold": "0.5"}, "score_threshold is '0.5'"),
    ],
)
@pytest.mark.parametrize("search", ["similarity_search", "max_marginal_relevance_search", "asimilarity_search"])
def test_what_cannot_be_meant_is_refused_before_anything_is_paid(search, options, match):
    async def ask() -> None:
        found = getattr(FAISSStore(Unasked()), search)("1 0", **options)
        await found

    with pytest.raises(InputError, match=match):
        asyncio.run(ask())


async def anything(document: Document) -> bool:
    return True


class Anything:
    async def __call__(self, document: Document) -> bool:
        return True


@pytest.mark.parametrize("filter", [anything, lambda _: asyncio.sleep(0, True), Anything()])
def test_a_filter_that_would_have_to_be_awaited_is_refused(people, filter):
    with pytest.raises(InputError, match="async"):
        people.similarity_search("1 0", filter=filter)


@pytest.mark.parametrize("name", ["filter", "where", "ids_", "delete_all"])
def test_an_option_that_delete_does_not_know_deletes_nothing(store, name):
    for delete in (lambda: store.delete(**{name: {"n": 1}}), lambda: asyncio.run(store.adelete(**{name: 1}))):
        with pytest.raises(InputError, match=name):
            delete()
    assert len(store) == 4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 1}, r'search_kwargs=\{"k"'),
        ({"score_threshold": 0.9}, "search_kwargs"),
        ({"filter": {"n": 1}}, "search_kwargs"),
        ({"search_kwarg": {"k": 1}}, "did you mean 'search_kwargs'"),
    ],
)
def test_an_option_of_the_search_in_the_wrong_place_is_not_ignored(store, options, match):
    with pytest.raises(ConfigurationError, match=match):
        store.as_retriever(**options)


@pytest.mark.parametrize("wrong", [None, "text-embedding-3-small", len, Numbers, [[1.0]]])
def test_what_is_no_embedding_model_is_refused_when_it_is_given(wrong):
    with pytest.raises(ConfigurationError, match="embedding"):
        FAISSStore(wrong)
    with pytest.raises(ConfigurationError, match="embedding"):
        FAISSStore.from_texts(["1 0"], wrong)


def test_thresholds_leave_out_what_is_further_away(store):
    assert [d.id for d in store.similarity_search("5 0", score_threshold=0.0)] == ["a", "b", "c"]
    assert [d.id for d in store.max_marginal_relevance_search("5 0", score_threshold=0.5)] == ["a", "b"]
    options = {"score_threshold": 0.0, "k": 9, "fetch_k": 50}
    assert [d.id for d in store.as_retriever(search_kwargs=options).invoke("5 0")] == ["a", "b", "c"]
    for threshold, expected in ((0.71, ["a"]), (0.7, ["a", "b"])):
        settings = {"score_threshold": threshold, "filter": {"n": {"$lt": 3}}}
        retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=settings)
        assert [d.id for d in retriever.invoke("5 0")] == expected
        assert [d.id for d in asyncio.run(retriever.ainvoke("5 0"))] == expected
    with pytest.raises(InputError, match="from 0 to 1"):
        store.similarity_search_with_relevance_scores("5 0", score_threshold=-0.5)


# --- all or nothing --------------------------------------------------------------------------------


class Broken(Numbers):
    """Gives what it is told to."""

    given: Any = None

    def embed_documents(self, texts: list[str]) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return super().embed_documents(texts) if self.given is None else self.given


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (RuntimeError("sk-secret"), "embedding model failed"),
        ([[1.0, 0.0]], "returned 1 vectors for 2 texts"),
        ([[1.0, 0.0]] * 3, "returned 3 vectors for 2 texts"),
        ([], "returned 0 vectors"),
        (None, "width 3 does not fit"),
        ([[1.0], [1.0, 2.0]], "of the same width"),
        ([[1.0, 0.0], [1.0, math.nan]], r"vector 1 with a number that is not finite"),
        ([[math.inf, 0.0], [1.0, 0.0]], "not finite"),
        ([["x", "y"], [1, 2]], "not lists of numbers"),
        ([[], []], "not lists of numbers"),
        ({"data": 1}, "returned 1 vectors"),
        (7, "returned a int"),
    ],
)
def test_what_fails_while_it_is_added_changes_nothing(tmp_path, given, match):
    model = Broken()
    store = FAISSStore.from_texts(["1 0", "0 1"], model, ids=["a", "b"])
    before = store.similarity_search_with_score("1 0")
    texts = ["1 0 0", "0 1 0"] if given is None else ["2 0", "0 2"]
    for fill in (store.add_texts, lambda *args, **options: asyncio.run(store.aadd_texts(*args, **options))):
        model.given = given
        with pytest.raises(RLMError, match=match) as raised:
            fill(texts, ids=["a", "c"])
        assert "sk-secret" not in str(raised.value)
        model.given = None
        assert store.similarity_search_with_score("1 0") == before
    store.save_local(tmp_path)
    again = FAISSStore.load_local(tmp_path, model)
    assert again.similarity_search_with_score("1 0") == before
    again.add_texts(["3 0"], ids=["c"])
    assert len(again) == 3
    empty = FAISSStore(model)
    model.given = given
    if given is not None:
        with pytest.raises(RLMError, match=match):
            empty.add_texts(texts)
        model.given = None
    empty.add_texts(["1 2 3"])  # no width is left behind
    assert len(empty) == 1


@pytest.mark.parametrize(
    ("texts", "options", "match"),
    [
        ("1 0", {}, "texts are '1 0'"),
        (["1 0", 7], {}, "7 is a int"),
        (["1 0"], {"ids": "a"}, "given with a str"),
        (["1 0"], {"ids": [7]}, "7 is a int"),
        (["1 0"], {"ids": 7}, "given with a int"),
        (["1 0"], {"metadatas": {"n": 1}}, "given with a dict"),
        (["1 0"], {"metadatas": ["x"]}, "is not a dict"),
        (["1 0"], {"metadatas": [{1: 2}]}, "keys are text"),
        (["1 0"], {"metadata": [{}]}, "no option 'metadata'"),
    ],
)
def test_what_cannot_be_added_is_refused_whole(store, texts, options, match):
    with pytest.raises(InputError, match=match):
        store.add_texts(texts, **options)
    assert len(store) == 4


def test_ids_are_lists_of_texts(store):
    for wrong in ("ab", [1]):
        with pytest.raises(InputError, match="ids"):
            store.delete(wrong)
        with pytest.raises(InputError, match="ids"):
            store.get_by_ids(wrong)
    assert store.delete(["no", "a", "a"])
    assert [document.id for document in store.get_by_ids(["d", "no", "a", "b"])] == ["d", "b"]
    store.add_texts(["7 0"], [{"n": None}], ids=["a"])
    assert store.similarity_search("1 0", k=1)[0].page_content == "7 0"


def test_an_emptied_store_takes_vectors_of_another_width(store):
    store.delete()
    store.add_texts(["1 2 3"], ids=["x"])
    assert store.add_texts(["1 2"], ids=["x"]) == ["x"]  # the only one of the old width gives way
    assert [d.page_content for d in store.similarity_search("1 2")] == ["1 2"]


def test_large_numbers_are_vectors_and_a_broken_question_is_not(store):
    store.add_texts(["1e300 1e300"], ids=["large"])
    [(_, score)] = store.similarity_search_with_score("1 1", k=1)
    assert score == pytest.approx(1.0)
    with pytest.raises(InputError, match="not finite"):
        store.similarity_search("nan 1")


# --- metadata, copies ------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


NATURAL: dict[str, Any] = {
    "none": None,
    "date": date(2026, 1, 31),
    "when": datetime(2026, 1, 31, 12, 0, 1, 5, tzinfo=UTC),
    "time": time(1, 2),
    "span": timedelta(days=-1, microseconds=3),
    "tuple": (1, ("a", None)),
    "set": {3, "x"},
    "frozen": frozenset({1}),
    "decimal": Decimal("1.10"),
    "uuid": UUID(int=7),
    "bytes": b"\x00\xff",
    "float": 1.0,
    "inf": -math.inf,
    "int": 10**30,
    "bool": True,
    "dict": {1: "a", (2, 3): {"$date": "no date"}, None: [{}]},
    "$x": {"$tuple": [1]},
}


def test_metadata_is_loaded_as_it_was(tmp_path):
    store = FAISSStore.from_texts(["1 0"], Numbers(), [{**NATURAL, "i": np.int64(3), "f": np.float32(0.5)}])
    store.add_texts(["0 1"], [{"b": np.bool_(True), "row": np.array([[1, 2]]), "s": np.str_("x")}])
    store.save_local(tmp_path)
    for there in (store, FAISSStore.load_local(tmp_path, Numbers())):
        first, second = there.similarity_search("1 0")
        assert first.metadata == {**NATURAL, "i": 3, "f": 0.5}
        assert [type(value) for value in first.metadata.values()] == [*map(type, NATURAL.values()), int, float]
        assert second.metadata == {"b": True, "row": [[1, 2]], "s": "x"}
        assert [type(value) for value in second.metadata.values()] == [bool, list, str]


@pytest.mark.parametrize("value", [Colour.RED, [Colour.RED], {"a": object()}, np.datetime64("2026-01-31")])
def test_what_could_not_be_loaded_as_it_was_is_not_saved(tmp_path, value):
    store = FAISSStore.from_texts(["1 0"], Numbers(), [{"value": value}], ids=["x"])
    with pytest.raises(InputError, match=r"document 'x' cannot be saved: it holds .*for an Enum, its `value`"):
        store.save_local(tmp_path)
    assert not [*tmp_path.glob("documents*")]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_stores_and_retrievers_are_copied(store, again):
    other = again(store)
    other.add_texts(["9 0.1"], ids=["new"])
    other.delete(["b"])
    assert (len(store), len(other)) == (4, 4)
    assert store.get_by_ids(["b"])
    assert [d.id for d in other.similarity_search("1 0", k=2)] == ["a", "new"]
    for asked in (False, True):
        retriever = RLMRetriever(
            corpus=["A heron.", "A quince."], embeddings=DeterministicFakeEmbedding(size=4), k=1
        )
        if asked:
            retriever.invoke("heron")
        assert again(retriever).invoke("heron")[0].page_content == "A heron."
        assert again(retriever).k == 1


class Connected(Numbers):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_what_cannot_be_pickled_says_what_to_do_instead():
    store = FAISSStore.from_texts(["1 0"], Connected())
    with pytest.raises(InputError, match=r"its embedding \(Connected\) cannot .*: use save_local"):
        pickle.dumps(store)
    assert copy.deepcopy(store).embedding is store.embedding
    with pytest.raises(InputError, match=r"its embeddings \(Connected\) cannot .*: create one with"):
        pickle.dumps(RLMRetriever(corpus="A heron.", embeddings=Connected()))


# --- RLMRetriever ------------------------------------------------------------------------------


def test_a_passage_comes_with_the_place_and_the_metadata_of_its_document():
    corpus = [Document("A schooner.", metadata={"source": "boats.pdf", "page": 3}), Document("A heron.")]
    [boat] = RLMRetriever(corpus=corpus).invoke("schooner")
    assert boat.page_content == "A schooner."
    assert {**boat.metadata, "score": 0} == {"source": "boats.pdf", "page": 3, "start": 0, "end": 11, "score": 0}
    [bird] = asyncio.run(RLMRetriever(corpus=corpus).ainvoke("heron"))
    assert bird.metadata["source"] == "1"


def test_metadata_of_a_corpus_comes_back_as_it_was_given():
    told = {"when": date(2026, 1, 31), "pair": (1, 2), "n": np.int64(3), "none": None, "colour": Colour.RED}
    [hit] = RLMRetriever(corpus=[Document("A heron.", metadata=told)]).invoke("heron")
    assert {name: hit.metadata[name] for name in told} == told
    assert [type(hit.metadata[name]) for name in told] == [date, tuple, int, type(None), Colour]


@pytest.mark.parametrize("line", ["Plain line {} here.", "Füllwort {}: 漢字 😀 здесь."])
def test_a_text_file_is_read_where_it_is(tmp_path: Path, line):
    text = "".join(f"{line}\n".format(n) for n in range(9_000)) + "One quince.\n"
    (tmp_path / "t.txt").write_text(text, encoding="utf-8", newline="")
    [hit] = RLMRetriever(corpus=tmp_path / "t.txt").invoke("quince")
    assert hit.page_content == text[hit.metadata["start"] : hit.metadata["end"]]
    assert hit.page_content.endswith("One quince.")


def test_a_folder_can_be_searched(tmp_path: Path):
    for name, text in {"a.txt": "A heron.", "b/c.txt": "A quince."}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    [hit] = RLMRetriever(corpus=tmp_path).invoke("quince")
    assert (hit.page_content, hit.metadata["source"]) == ("A quince.", "b/c.txt")


def test_nothing_finds_nothing():
    assert RLMRetriever(corpus="").invoke("heron") == []
    assert RLMRetriever(corpus=[]).invoke("heron") == []
    assert RLMRetriever(corpus="A heron.").invoke("quince") == []
