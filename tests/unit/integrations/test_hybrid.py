"""`create_hybrid_rlm`: retrieve a few hundred documents, then read them with code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import Field

from rlm_langchain import (
    ConfigurationError,
    FAISSStore,
    InputError,
    RLMRetriever,
    create_hybrid_rlm,
)
from rlm_langchain.testing.models import FunctionModel, script

CORPUS = [Document(f"Heron {n} waits.", metadata={"n": n}) for n in range(40)]
COUNT = "FINAL([len(context), context[0]['page_content'][:5]])"


class Counting(BaseRetriever):
    """Finds everything, and counts how often it is asked."""

    asked: list[str] = Field(default_factory=list)

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        self.asked.append(query)
        return CORPUS


RETRIEVERS = {
    "retriever with k": lambda: RLMRetriever(corpus=CORPUS),
    "vector store": lambda: FAISSStore.from_documents(CORPUS, DeterministicFakeEmbedding(size=4)),
    "retriever of a store": lambda: FAISSStore.from_documents(
        CORPUS, DeterministicFakeEmbedding(size=4)
    ).as_retriever(),
    "retriever without k": Counting,
}


@pytest.mark.parametrize("name", RETRIEVERS)
def test_as_many_documents_as_asked_for_are_the_context(name):
    rlm = create_hybrid_rlm(RETRIEVERS[name](), script(COUNT), k=25)
    assert rlm.invoke("Which heron?")["answer"] == [25, "Heron"]
    assert asyncio.run(rlm.ainvoke({"query": "Which heron?"}))["answer"] == [25, "Heron"]
    assert rlm.batch(["heron", "heron"])[1]["answer"] == [25, "Heron"]


def test_code_can_ask_the_retriever_for_more():
    rlm = create_hybrid_rlm(
        RLMRetriever(corpus=CORPUS), script("FINAL([len(context), len(search('heron', 30))])"), k=5
    )
    assert rlm.invoke("heron")["answer"] == [5, 30]


class Nothing(BaseRetriever):
    """Finds nothing."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return []


EMPTY = {
    "nothing matches": (lambda: RLMRetriever(corpus=CORPUS), "it searches 40 documents"),
    "empty corpus": (lambda: RLMRetriever(corpus=[]), "there is no document in it"),
    "empty store": (lambda: FAISSStore(DeterministicFakeEmbedding(size=4)), "there is no document in it"),
    "filtered": (
        lambda: FAISSStore.from_documents(CORPUS, DeterministicFakeEmbedding(size=4)).as_retriever(
            search_kwargs={"filter": {"n": {"$gt": 99}}}
        ),
        "it searches 40 documents",
    ),
    "somebody's": (Nothing, "found nothing for the question. "),
}


@pytest.mark.parametrize("name", EMPTY)
def test_that_nothing_was_found_is_told_to_the_model_and_in_the_output(name):
    make, told = EMPTY[name]
    rlm = create_hybrid_rlm(make(), script("print(context, search('quince'))", "FINAL('nothing')"))
    for output in (rlm.invoke("quince?"), asyncio.run(rlm.ainvoke("quince?"))):
        asked, printed = (
            next(record["text"] for record in output["trajectory"] if record["type"] == kind)
            for kind in ("question", "output")
        )
        assert "the retriever found nothing for the question" in asked
        assert told in asked
        assert "None []" in printed
        assert "[search] nothing was found for 'quince'" in printed
        assert "try other words" in printed
        assert output["degraded"] == {"empty_context": 1, "found_nothing": 1}
        assert (output["status"], output["stop_reason"]) == ("complete", "answer")


def test_what_was_found_is_no_shortfall():
    rlm = create_hybrid_rlm(RLMRetriever(corpus=CORPUS), script("FINAL(len(search('heron', 3)))"))
    output = rlm.invoke("heron")
    assert (output["answer"], output["degraded"]) == (3, {})


def test_it_streams_what_happens():
    rlm = create_hybrid_rlm(Counting(), script(COUNT), k=3)
    assert list(rlm.stream("q", stream_mode="values"))[-1]["answer"] == [3, "Heron"]

    async def last() -> Any:
        return [part async for part in rlm.astream("q", stream_mode="values")][-1]

    assert asyncio.run(last())["answer"] == [3, "Heron"]


def test_a_resumed_run_retrieves_nothing_again():
    turns = iter(["```repl\nn = len(context)\n```", RuntimeError("down"), "```repl\nFINAL(n)\n```"])

    def play(messages: Any) -> str:
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    retriever = Counting()
    rlm = create_hybrid_rlm(retriever, FunctionModel(function=play), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        rlm.invoke("q", config)
    assert rlm.invoke(None, config)["answer"] == 40
    assert retriever.asked == ["q"]


def test_a_context_of_the_callers_own_is_refused():
    with pytest.raises(InputError, match="retrieves its context itself"):
        create_hybrid_rlm(Counting(), script(COUNT)).invoke({"query": "q", "context": "x"})


@pytest.mark.parametrize("given", [None, "bm25", DeterministicFakeEmbedding(size=4)])
def test_what_is_no_retriever_is_refused(given):
    with pytest.raises(ConfigurationError, match="retriever"):
        create_hybrid_rlm(given, script(COUNT))
