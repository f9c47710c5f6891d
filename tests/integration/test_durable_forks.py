"""Time travel: a thread is looked at as it was, and goes on from there with other models, budgets, strategies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from rlm_langchain import (
    Budget,
    ConfigurationError,
    InputError,
    RLMOutput,
    RLMRunnable,
    Strategy,
    create_rlm,
)
from rlm_langchain.testing.models import FunctionModel, script

THREAD: Any = {"configurable": {"thread_id": "t"}}
CELLS = ("a = llm_query('one')", "b = llm_query('two')", "FINAL([a, b])")
SHOUT = Strategy("shout", "loud", "Use `shout(text)`.", "def shout(text):\n    return text.upper() + '!'")


class Asked(list[str]):
    """What sub-calls were asked, over all models."""

    def model(self, *cells: str) -> FunctionModel:
        def leaf(prompt: str) -> str:
            self.append(prompt)
            return f"<{prompt}>"

        return script(*cells, leaf=leaf)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def rlm(model: Any, saver: Any, **options: Any) -> RLMRunnable:
    return create_rlm(model, checkpointer=saver, **{"sandbox": "monty", **options})


@pytest.fixture
def saver() -> InMemorySaver:
    return InMemorySaver()


@pytest.fixture
def done(asked: Asked, saver: InMemorySaver) -> RLMOutput:
    """A run of three turns."""
    return rlm(asked.model(*CELLS), saver).invoke({"query": "q", "context": "abc"}, THREAD)


def test_a_fork_goes_on_with_another_model_and_pays_for_nothing_before_it(asked, saver, done):
    other = rlm(asked.model("", "b = llm_query('other')", "FINAL([a, b, context])"), saver)
    forked = other.fork(THREAD, at=2)
    assert asked == ["one", "two"]
    output = other.invoke(None, forked)
    assert output["answer"] == ["<one>", "<other>", "abc"]
    assert asked == ["one", "two", "other"]
    assert (output["iterations"], output["sub_calls"], output["usage"]["root"]["calls"]) == (3, 2, 3)
    assert rlm(asked.model(*CELLS), saver).graph.get_state(THREAD).values["answer"] == done["answer"]


def test_a_fork_from_the_first_turn_makes_all_of_them_anew(asked, saver, done):
    other = rlm(asked.model("FINAL(llm_query('anew'))"), saver)
    assert other.invoke(None, other.fork(THREAD, at=1))["answer"] == "<anew>"


def test_a_fork_may_have_the_budget_that_its_thread_had_not(asked, saver):
    spent = rlm(asked.model(*CELLS[:2], "print(1)"), saver, budget=Budget(iterations=2)).invoke("q", THREAD)
    assert (spent["status"], spent["stop_reason"]) == ("failed", "iterations")
    richer = rlm(asked.model(*CELLS), saver, budget=Budget(iterations=5))
    output = richer.invoke(None, richer.fork(THREAD, at=3))
    assert (output["answer"], output["status"]) == (["<one>", "<two>"], "complete")
    assert asked == ["one", "two"]
    assert not [r for r in output["trajectory"] if r["type"] == "note"], "the last words were of another budget"


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_fork_may_have_more_strategies_and_its_model_is_told(asked, saver, done, sandbox):
    thread: Any = {"configurable": {"thread_id": sandbox}}
    rlm(asked.model(*CELLS), saver, sandbox=sandbox).invoke("q", thread)
    heard: list[str] = []

    def play(messages: list[Any]) -> str:
        heard.append(str(messages[-1].content))
        return "```repl\nFINAL(shout(a))\n```"

    louder = rlm(FunctionModel(function=play), saver, strategies=SHOUT, sandbox=sandbox)
    forked = louder.fork(thread, at=2)
    assert louder.invoke(None, forked)["answer"] == "<ONE>!"
    assert "Use `shout(text)`." in heard[0]
    with pytest.raises(ConfigurationError, match=r"lacks shout"):
        rlm(asked.model("", "", "print(1)"), saver, sandbox=sandbox).invoke("more?", forked)


def test_a_fork_of_a_finished_thread_is_another_conversation(asked, saver, done):
    talker = rlm(asked.model("", "", "", "FINAL([a, b, 'more'])"), saver)
    forked = talker.fork(THREAD, thread="other")
    assert talker.invoke("and?", forked)["answer"] == ["<one>", "<two>", "more"]
    assert len(talker.graph.get_state(THREAD).values["trajectory"]) == len(done["trajectory"])


def test_a_fork_of_a_fork_and_of_a_moment(asked, saver, done):
    again = rlm(asked.model(*CELLS), saver)
    forked = again.fork(THREAD, at=2)
    assert again.invoke(None, again.fork(forked))["answer"] == ["<one>", "<two>"]
    with pytest.raises(InputError, match="before it was made"):
        again.fork(forked, at=1)
    moment = next(s for s in again.graph.get_state_history(THREAD) if s.next == ("generate",))
    assert again.invoke(None, again.fork(moment.config))["answer"] == ["<one>", "<two>"]
    assert asked == ["one", "two", "two"]


@pytest.mark.parametrize("at", [0, 4, 5])
def test_a_turn_that_there_was_not_is_no_place_to_go_back_to(asked, saver, done, at):
    with pytest.raises(InputError, match=rf"no turn {at}.*has made 3"):
        rlm(asked.model(*CELLS), saver).fork(THREAD, at=at)


def test_a_fork_takes_no_other_threads_place_and_needs_something_to_fork(asked, saver, done):
    components = rlm(asked.model(*CELLS), saver)
    with pytest.raises(InputError, match="on the thread 't' already"):
        components.fork(THREAD, at=2, thread="t")
    with pytest.raises(InputError, match="nothing to fork"):
        components.fork({"configurable": {"thread_id": "nobody"}}, at=2)


def test_langgraphs_own_time_travel_goes_on_from_any_moment(asked, saver, done):
    components = rlm(asked.model(*CELLS), saver)
    for moment in list(components.graph.get_state_history(THREAD)):
        if moment.next:
            assert components.invoke(None, moment.config)["answer"] == done["answer"], moment.next


def test_an_async_saver_forks_too(asked, tmp_path: Path):
    async def travel() -> RLMOutput:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")) as saver:
            components = rlm(asked.model(*CELLS), saver)
            await components.ainvoke("q", THREAD)
            return await components.ainvoke(None, await components.afork(THREAD, at=2))

    assert asyncio.run(travel())["answer"] == ["<one>", "<two>"]
    assert asked == ["one", "two", "two"]


def test_a_run_goes_on_in_the_sandbox_that_it_used(asked, saver):
    rlm(asked.model("x = 1\nFINAL(x)"), saver).invoke("q", THREAD)
    with pytest.raises(ConfigurationError, match=r"used the sandbox 'monty'.*sandbox='monty'"):
        rlm(asked.model("", "FINAL(x)"), saver, sandbox="cpython").invoke("and?", THREAD)
