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


def test_nothing_found_is_no_context():
    rlm = create_hybrid_rlm(RLMRetriever(corpus=CORPUS), script("FINAL(str(context))"))
    assert rlm.invoke("quince")["answer"] == "None"


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
    with pytest.raises(InputError, match="its context it finds itself"):
        create_hybrid_rlm(Counting(), script(COUNT)).invoke({"query": "q", "context": "x"})


@pytest.mark.parametrize("given", [None, "bm25", DeterministicFakeEmbedding(size=4)])
def test_what_is_no_retriever_is_refused(given):
    with pytest.raises(ConfigurationError, match="retriever"):
        create_hybrid_rlm(given, script(COUNT))
