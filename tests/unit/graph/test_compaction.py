"""A history that grows too long is put in short: again and again, without a loop, and nothing of it is lost."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    Budget,
    RLMOutput,
    create_rlm,
)
from rlm_langchain.graph.nodes.approve import answered, questions
from rlm_langchain.models.model import Model
from rlm_langchain.models.registry import resolve
from rlm_langchain.testing.models import FunctionModel

WINDOW = 8_000
ASKED = "replaced by your own summary"
CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Writer:
    """Works for so many turns, each of them long, and then answers with what it still knows."""

    def __init__(self, turns: int, summary: str = "so far so good", answer: str = "") -> None:
        self.turns, self.summary = turns, summary
        self.answer = answer or "FINAL([total, history.count('step'), len(history)])"
        self.prompts: list[list[tuple[str, str]]] = []
        self.written = 0

    def __call__(self, messages: list[BaseMessage]) -> str:
        self.prompts.append([(message.type, str(message.content)) for message in messages])
        if ASKED in messages[-1].content:
            return f"{self.summary} {self.written}"
        self.written += 1
        if self.written > self.turns:
            return f"```repl\n{self.answer}\n```"
        begin = "total = 0\n" if self.written == 1 else ""
        return f"```repl\n{begin}total += 1\nprint('step', {self.written}, 'w ' * 1500)\n```"

    @property
    def model(self) -> Model:
        return replace(resolve(FunctionModel(function=self), "root"), window=WINDOW)


def summaries(output: RLMOutput) -> list[Any]:
    return [record for record in output["trajectory"] if record.get("summary")]


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_over_several_compactions_variables_and_the_full_text_are_there(ask, sandbox):
    writer = Writer(18)
    output = ask(create_rlm(writer.model, sandbox=sandbox), "q")
    assert len(summaries(output)) >= 3
    total, steps, length = output["answer"]
    assert total == 18
    assert steps >= 2 * 15  # in the code and in what it printed, of all steps before the last summary
    assert length > WINDOW * 4
    assert output["status"] == "complete"


def test_no_prompt_comes_near_the_window(ask):
    writer = Writer(18)
    ask(create_rlm(writer.model), "q")
    sizes = [sum(len(text) for _, text in prompt) / 4 for prompt in writer.prompts]
    assert max(sizes) < WINDOW * 0.85


def test_between_two_compactions_each_prompt_is_a_prefix_of_the_next(ask):
    writer = Writer(18)
    ask(create_rlm(writer.model), "q")
    turns = [prompt for prompt in writer.prompts if ASKED not in prompt[-1][1]]
    breaks = sum(after[: len(before)] != before for before, after in itertools.pairwise(turns))
    assert breaks == sum(ASKED in prompt[-1][1] for prompt in writer.prompts)
    for before, after in itertools.pairwise(writer.prompts):
        if ASKED in after[-1][1]:
            assert after[: len(before)] == before  # the summary itself is asked for on top of a cached prefix


def test_the_history_is_all_that_was_written_and_shown(ask):
    writer = Writer(8, answer="FINAL(history)")
    output = ask(create_rlm(writer.model), "the question itself")
    (first,) = summaries(output)[:1]
    shown = [
        record["text"]
        for record in output["trajectory"]
        if record["type"] in ("turn", "output") and record["time"] <= first["time"]
    ]
    assert "the question itself" in output["answer"]
    assert all(text in output["answer"] for text in shown)


def test_history_is_in_the_records_once_not_twice(ask):
    output = ask(create_rlm(Writer(12).model), "q")
    asked = [record for record in output["trajectory"] if record.get("kind") == "history"]
    assert asked
    assert all(record["value"] is None for record in asked)


@pytest.mark.parametrize("length", [5_000, 40_000, 400_000])
def test_a_summary_that_is_itself_too_long_is_cut_and_starts_no_loop(ask, length):
    writer = Writer(10, summary="very " * (length // 5))
    output = ask(create_rlm(writer.model), "q")
    assert output["answer"][0] == 10
    assert len(summaries(output)) <= 10 / 2
    assert all(len(record["text"]) < WINDOW * 4 * 0.2 for record in summaries(output))


def test_where_a_question_alone_fills_the_window_a_summary_still_has_to_be_worth_it(ask):
    writer = Writer(8, answer="FINAL(total)")
    small = replace(writer.model, window=2_000)
    output = ask(create_rlm(small), "a long question " * 400)
    assert output["answer"] == 8
    assert len(summaries(output)) <= 8 / 2


def test_child_runs_put_their_own_history_in_short(ask):
    kid = Writer(9, answer="FINAL(total)")

    def play(messages: list[BaseMessage]) -> str:
        if "KID" in str(messages[1].content):
            return kid(messages)
        return "```repl\nFINAL(rlm_query('KID'))\n```"

    model = replace(resolve(FunctionModel(function=play), "root"), window=WINDOW)
    output = ask(create_rlm(model, budget=Budget(depth=2)), "q")
    assert output["answer"] == "9"
    call = next(record for record in output["trajectory"] if record["type"] == "call")
    assert any(record.get("summary") for record in call["child"])


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_after_a_restart_the_repl_and_its_history_are_what_they_were(ask, sandbox):
    """A person is asked after the compactions, and answers to a process that has the saver and nothing else."""
    code = "was = history\nx = llm_query_batched(['a', 'b', 'c'])\nFINAL([total, len(history), was == history])"
    lengths = []
    for above in (None, 12):
        model, budget = Writer(9, answer=code).model, Budget(approve_above_calls=above)
        rlm = create_rlm(model, sandbox=sandbox, budget=budget, checkpointer=InMemorySaver())
        output = ask(rlm, "q", CONFIG)
        if above is not None:
            assert questions(output)
            output = ask(rlm.model_copy(), answered(output, lambda _: True), CONFIG)
        assert summaries(output)
        total, length, same = output["answer"]
        assert (total, same) == (9, True)
        lengths.append(length)
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("at", [0, 1])
def test_a_prompt_that_one_of_a_model_and_its_fallback_finds_too_long_is_cut_for_that_one(at: int) -> None:
    """The other one does not accept the key, which is no reason to give up."""
    asked: list[int] = []

    def refused(status: int, words: str) -> Exception:
        error = type("APIStatusError", (Exception,), {})(words)
        vars(error).update(status_code=status, body={"message": words})
        return error

    def small(messages: list[BaseMessage]) -> str:
        asked.append(sum(len(str(message.content)) for message in messages) // 4)
        if asked[-1] > 9_000:
            raise refused(400, f"prompt is too long: {asked[-1]} tokens > 9000 maximum")
        return "```repl\nFINAL('ok')\n```"

    def shut(_: list[BaseMessage]) -> str:
        raise refused(401, "no such key")

    chats = [FunctionModel(function=small, model_name="small"), FunctionModel(function=shut, model_name="shut")]
    first, other = chats if at == 0 else reversed(chats)
    output = create_rlm(first.with_fallbacks([other]), sandbox="monty").invoke("word " * 12_000)
    assert (output["answer"], output["status"]) == ("ok", "complete")
    assert len(asked) == 2, "cut once, to what was said"
    notes = [record["text"] for record in output["trajectory"] if record["type"] == "note"]
    assert any("too long for" in note and "9,000" in note for note in notes)
