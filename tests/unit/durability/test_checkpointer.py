"""What a saver gives back is what was written, or it is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.base import id as checkpoint_ids
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import TASKS
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Send

from rlm_langchain import JournalError, RLMRunnable, create_rlm
from rlm_langchain.durability.checkpointer import checked_saver
from rlm_langchain.testing.models import FunctionModel

THREAD: Any = {"configurable": {"thread_id": "t"}}


def play(messages: list[Any]) -> str:
    return "```repl\nFINAL(llm_query('what'))\n```" if messages[0].type == "system" else "this"


@pytest.fixture
def saver() -> Iterator[SqliteSaver]:
    with SqliteSaver.from_conn_string(":memory:") as opened:
        yield opened


@pytest.fixture
def paused(saver: SqliteSaver) -> RLMRunnable:
    """A run that was stopped before its sub-call."""
    rlm = create_rlm(FunctionModel(function=play), sandbox="monty", checkpointer=saver)
    rlm.invoke("q", THREAD, interrupt_before=["subcall"])
    return rlm


def other_task(kept: CheckpointTuple) -> list[Any]:
    [task] = kept.checkpoint["channel_values"][TASKS]
    return [Send(task.node, {**task.arg, "calls": [7]})]


def test_what_was_not_changed_goes_on(paused: RLMRunnable) -> None:
    assert paused.invoke(None, THREAD)["answer"] == "this"


@pytest.mark.parametrize("changed", [lambda _: [None], lambda _: [], other_task], ids=["none", "fewer", "another"])
def test_a_task_that_was_changed_is_refused(
    paused: RLMRunnable, saver: SqliteSaver, changed: Callable[[CheckpointTuple], list[Any]]
) -> None:
    kept = saver.get_tuple(THREAD)
    assert kept is not None
    assert kept.parent_config is not None
    values = {**kept.checkpoint["channel_values"], TASKS: changed(kept)}
    saver.put(kept.parent_config, {**kept.checkpoint, "channel_values": values}, kept.metadata, {})
    with pytest.raises(JournalError, match="not what was written"):
        paused.invoke(None, THREAD)


def test_what_should_become_a_task_and_is_none_is_refused(paused: RLMRunnable, saver: SqliteSaver) -> None:
    kept = saver.get_tuple(THREAD)
    assert kept is not None
    saver.put_writes(kept.config, [(TASKS, None)], "another task")
    with pytest.raises(JournalError, match="not what was written"):
        paused.invoke(None, THREAD)


@pytest.fixture
def hour_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Begin a new process, by a clock that was set back."""

    def back() -> None:
        now = time.time_ns() - 3_600 * 10**9
        monkeypatch.setattr(time, "time_ns", lambda: now)
        monkeypatch.setattr(checkpoint_ids, "_last_v6_timestamp", None)

    return back


def test_a_clock_that_was_set_back_hides_no_answer(paused: RLMRunnable, hour_back: Callable[[], None]) -> None:
    def told() -> tuple[Any, int]:
        values = paused.graph.get_state(THREAD).values
        return values.get("answer"), len([one for one in values["trajectory"] if one["type"] == "answer"])

    hour_back()
    assert paused.invoke(None, THREAD)["answer"] == "this"
    assert told() == ("this", 1)
    hour_back()
    assert paused.invoke("and?", THREAD)["answer"] == "this"
    assert told() == ("this", 2)
    first = [*paused.graph.get_state_history(THREAD)][-2].config
    hour_back()
    assert paused.invoke("something else", {"configurable": first["configurable"]})["answer"] == "this"
    assert told() == ("this", 1), "the thread goes on where the last run has left it"


@pytest.mark.parametrize("order", [(True, False), (False, True), (True, False, True)])
def test_versions_are_short_and_sort_like_long_ones_whichever_saver_wrote_the_last_one(
    saver: SqliteSaver, order: tuple[bool, ...]
) -> None:
    """LangGraph runs a node when a version is larger than the one that it has seen, as texts are compared."""
    versions: list[str] = []
    for checked in order:
        makes = checked_saver(saver) if checked else saver
        for _ in range(12):
            versions.append(makes.get_next_version(versions[-1] if versions else None, None))
    assert versions == sorted(set(versions))
    assert (len(versions[0]) == 7) is order[0]
    assert checked_saver(saver).get_next_version("+999999", None) > "+999999"
    assert checked_saver(InMemorySaver()).get_next_version(None, None).startswith("0" * 31 + "1.")


def test_a_thread_with_long_versions_goes_on(saver: SqliteSaver) -> None:
    """As another process of an earlier version wrote them."""
    checked = checked_saver(saver)
    type(checked).get_next_version, short = SqliteSaver.get_next_version, type(checked).get_next_version
    try:
        rlm = create_rlm(FunctionModel(function=play), sandbox="monty", checkpointer=saver)
        rlm.invoke("q", THREAD, interrupt_before=["subcall"])
    finally:
        type(checked).get_next_version = short
    assert rlm.invoke(None, THREAD)["answer"] == "this"
    assert rlm.invoke("q", THREAD)["answer"] == "this"
