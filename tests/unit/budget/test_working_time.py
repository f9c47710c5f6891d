"""How long a run has worked is measured by clocks that nobody can set: not by the time of day."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import Budget, ModelError, create_rlm
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.testing.models import FunctionModel
from rlm_langchain.trajectory.journal import Journal
from tests.records import RecordBuilder

THREAD: Any = {"configurable": {"thread_id": "t"}}


class TimeOfDay:
    """A time of day that jumps whenever it is told to; monotonic clocks are not touched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead, real = 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.ahead)


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 1e9, -1e9])
@pytest.mark.parametrize("when", ["in a wave", "between turns", "while nobody works"])
@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_time_of_day_that_jumps_does_not_end_a_run_nor_extend_it(
    jump: float, when: str, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, gone = TimeOfDay(monkeypatch), [True]

    def reply(messages: list[BaseMessage]) -> str:
        if messages[0].type != "system":
            day.ahead += jump if when == "in a wave" and str(messages[0].content) == "b" else 0
            return "fine"
        turn = sum(message.type == "ai" for message in messages)
        if turn == 1 and gone[0]:
            day.ahead += jump if when == "between turns" else 0
            raise ValueError("gone")
        return (
            "```repl\nx = llm_query_batched(['a', 'b', 'c'])\n```" if turn == 0 else "```repl\nFINAL(budget())\n```"
        )

    rlm = create_rlm(
        FunctionModel(function=reply), sandbox=sandbox, budget=Budget(seconds=600), checkpointer=InMemorySaver()
    )
    with pytest.raises(ModelError):
        rlm.invoke("q", THREAD)
    day.ahead += jump if when == "while nobody works" else 0
    gone[0] = False
    output = rlm.invoke(None, THREAD)
    assert (output["status"], output["stop_reason"]) == ("complete", "answer")
    assert 300 < output["answer"]["seconds"] < 600


def test_control_time_that_was_worked_counts_after_a_resume() -> None:
    """Without receipts: by the records."""
    told = RecordBuilder().question().turn(0, "...", "llm_query('a')").cell(0, "llm_query('a')").records
    assert Journal(told).seconds == 2.0


@pytest.mark.parametrize("seconds", [[5.0], [5.0, 3.0], [3.0, 5.0, 4.0]])
@pytest.mark.parametrize("jump", [0.0, 3600.0, -3600.0])
def test_a_wave_takes_as_long_as_its_longest_call(seconds: list[float], jump: float) -> None:
    telling = (
        RecordBuilder()
        .question()
        .turn(0, "...", "llm_query('a')")
        .cell(0, "llm_query('a')")
        .wave(0, 0, len(seconds))
    )
    for number, took in enumerate(seconds):
        telling.call(0, number)
        telling.records[-1].update(seconds=took, time=1_000.0 + jump)  # type: ignore[call-arg]
    assert Journal(telling.records).seconds == 2.0 + max(seconds)


def test_the_latest_reply_tells_how_long_a_run_was_worked_on(tmp_path: Path) -> None:
    written = Receipts(tmp_path / "run.jsonl")
    assert written.seconds_worked() == 0.0
    for worked in (3.0, 70.0, 9.0):
        written.write(str(worked), {"place": "0", "worked": worked})
    written.close()
    assert Receipts(tmp_path / "run.jsonl").seconds_worked() == 70.0
