"""What a saver gives back is what was written, or it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import TASKS
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Send

from rlm_langchain import JournalError, RLMRunnable, create_rlm
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
