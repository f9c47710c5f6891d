"""`FAISSStore` and `RLMRetriever`: LangChain's own suites, unmodified, and what they do not ask."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from rlm_langchain import (
    FAISSStore,
    InputError,
    JournalError,
    MissingDependency,
    RLMRetriever,
)


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


def test_metadata_that_is_no_json_cannot_be_saved_and_leaves_what_was_there(store, tmp_path):
    store.save_local(tmp_path)
    store.add_texts(["1 0"], [{"when": object()}])
    with pytest.raises(InputError, match="JSON"):
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


# --- RLMRetriever ------------------------------------------------------------------------------


def test_a_passage_comes_with_the_place_and_the_metadata_of_its_document():
    corpus = [Document("A schooner.", metadata={"source": "boats.pdf", "page": 3}), Document("A heron.")]
    [boat] = RLMRetriever(corpus=corpus).invoke("schooner")
    assert boat.page_content == "A schooner."
    assert {**boat.metadata, "score": 0} == {"source": "boats.pdf", "page": 3, "start": 0, "end": 11, "score": 0}
    [bird] = asyncio.run(RLMRetriever(corpus=corpus).ainvoke("heron"))
    assert bird.metadata["source"] == "1"


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
