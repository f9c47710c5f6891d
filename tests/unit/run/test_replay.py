"""A REPL that is gone is rebuilt from the journal, a turn is repeated as it was planned; a difference is told."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    Budget,
    JournalError,
    ModelError,
    RLMOutput,
    Strategy,
    create_rlm,
)
from rlm_langchain.testing.models import FunctionModel, script

THREAD: Any = {"configurable": {"thread_id": "t"}}
CELLS = ("a = ask('x')\nb = llm_query('same')", "c = 1", "FINAL([a, b, c])")


class Model:
    """Plays its cells; is down for the turn that it is told."""

    def __init__(self, down: int) -> None:
        self.down: int | None = down
        self.asked: list[str] = []

    def play(self, messages: list[Any]) -> str:
        if messages[0].type != "system":
            self.asked.append(str(messages[0].content))
            return f"<{messages[0].content}>"
        turn = sum(message.type == "ai" for message in messages)
        if turn == self.down:
            raise ValueError("down")
        return f"```repl\n{CELLS[turn]}\n```"


def helper(word: str) -> Strategy:
    """One version of a helper."""
    return Strategy("helper", "asks", "Use `ask(x)`.", f"def ask(x):\n    return llm_query('{word} ' + x)")


def resumed(sandbox: str, before: str, after: str) -> tuple[RLMOutput, Model]:
    """A run that lost its model, and went on with another version of a helper."""
    model, saver = Model(down=2), InMemorySaver()
    options: dict[str, Any] = {"sandbox": sandbox, "checkpointer": saver}
    played = FunctionModel(function=model.play)
    with pytest.raises(ModelError):
        create_rlm(played, strategies=helper(before), **options).invoke("q", THREAD)
    model.down = None
    return create_rlm(played, strategies=helper(after), **options).invoke(None, THREAD), model


def notes(output: RLMOutput) -> list[str]:
    return [record["text"] for record in output["trajectory"] if record["type"] == "note"]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_replayed_call_that_is_not_the_recorded_one_is_told_and_asked_afresh(sandbox: str) -> None:
    output, model = resumed(sandbox, "old", "new")
    assert output["answer"] == ["<new x>", "<same>", 1]
    assert model.asked == ["old x", "same", "new x"], "the call that did not differ is not asked again"
    assert notes(output) == ["replayed calls that are not the recorded ones: 1; asked afresh"]
    assert output["sub_calls"] == 3, "what was paid for stays on the account"


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_replay_that_is_the_same_says_and_asks_nothing(sandbox: str) -> None:
    output, model = resumed(sandbox, "old", "old")
    assert (output["answer"], model.asked, notes(output)) == (["<old x>", "<same>", 1], ["old x", "same"], [])


def test_a_long_replay_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlm_langchain.graph.nodes.execute.REPLAY_NOTE_SECONDS", 0.0)
    output, model = resumed("monty", "old", "old")
    [note] = notes(output)
    assert note.startswith("rebuilding the REPL took")
    assert model.asked == ["old x", "same"]


class Saver(InMemorySaver):
    """A saver whose disk may be gone for a while."""

    gone = False

    def put(self, *args: Any, **kwargs: Any) -> Any:
        if Saver.gone:
            raise OSError("the disk is gone")
        return super().put(*args, **kwargs)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        if Saver.gone:
            raise OSError("the disk is gone")
        super().put_writes(*args, **kwargs)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_turn_whose_checkpoint_is_lost_is_replayed_as_it_was_planned_though_less_is_left(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays, asked = script("print(1)", "print(2)", "FINAL(3)").function, []
    monkeypatch.setattr(Saver, "gone", False)

    def play(messages: list[Any]) -> Any:
        asked.append(str(messages[-1].content))
        if len(asked) == lost:
            monkeypatch.setattr(Saver, "gone", True)
        return plays(messages)

    rlm = create_rlm(
        FunctionModel(function=play), sandbox="monty", budget=Budget(calls=3, iterations=9), checkpointer=Saver()
    )
    with pytest.raises(JournalError, match="cannot be written"):
        rlm.invoke("q", THREAD)
    monkeypatch.setattr(Saver, "gone", False)
    output = rlm.invoke(None, THREAD)
    assert ["The run has to end now" in words for words in asked] == [False, False, True], "each was asked once"
    [note] = notes(output)
    assert note.startswith("The run has to end now: there are no model calls left")
    assert output["answer"] == 3
