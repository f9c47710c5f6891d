"""What is not paid twice, and what is not sent at all."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    Budget,
    RLMOutput,
    create_rlm,
)
from rlm_langchain.models.registry import resolve
from rlm_langchain.testing.models import FunctionModel, script


def calls(output: RLMOutput) -> list[Any]:
    return [record for record in output["trajectory"] if record["type"] == "call"]


class Counted:
    """A leaf model that says how often it was asked before."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, prompt: str) -> str:
        with self._lock:
            self.asked.append(prompt)
            return f"{prompt} {len(self.asked)}"


def test_the_same_in_one_wave_is_asked_once_and_the_records_say_which_was(ask):
    leaf = Counted()
    output = ask(create_rlm(script("FINAL(llm_query_batched(['a', 'b', 'a', 'a']))", leaf=leaf)), "q")
    assert sorted(leaf.asked) == ["a", "b"]
    first, other, *same = output["answer"]
    assert same == [first, first] != [other, other]
    assert sorted(record.get("memo", False) for record in calls(output)) == [False, False, True, True]
    assert sum(record["usage"]["calls"] for record in calls(output)) == output["sub_calls"] == 2


def test_the_same_in_another_run_of_the_tree_is_known_too(ask):
    leaf = Counted()
    model = script(
        "a = llm_query('same')\nFINAL([a, rlm_query('KID')])",
        children={"KID": ["FINAL(llm_query('same'))"]},
        leaf=leaf,
    )
    output = ask(create_rlm(model, budget=Budget(depth=2)), "q")
    assert output["answer"] == ["same 1", "same 1"]


def test_a_failure_is_not_remembered(ask):
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 1:
            raise ValueError("bad luck")
        return "good"

    code = "a = llm_query_batched(['x'])\nb = llm_query_batched(['x'])\nFINAL(a + b)"
    assert ask(create_rlm(script(code, leaf=leaf)), "q")["answer"] == [None, "good"]


def test_samples_are_all_different_calls(ask):
    leaf = Counted()
    output = ask(create_rlm(script("FINAL(llm_query_batched(['a'] * 5))", leaf=leaf), memo=False), "q")
    assert len(set(output["answer"])) == 5
    assert not any("memo" in record for record in calls(output))


def test_child_runs_that_are_asked_the_same_run_once(ask):
    model = script(
        "a = rlm_query_batched(['KID', 'KID', 'KID'], ['x', 'x', 'y'])\nFINAL(a + [rlm_query('KID', 'x')])",
        children={"KID": ["print(len(context))", "FINAL(context + '!')"]},
    )
    output = ask(create_rlm(model, budget=Budget(depth=2)), "q")
    assert output["answer"] == ["x!", "x!", "y!", "x!"]
    assert output["sub_calls"] == 4
    assert sum("child" in record for record in calls(output)) == 2
    assert sum(record.get("memo", False) for record in calls(output)) == 2


def test_a_child_run_that_failed_is_run_again(ask):
    tried: list[int] = []

    def play(messages: Any) -> str:
        if "KID" not in messages[1].content:
            return "```repl\nFINAL(rlm_query_batched(['KID', 'KID']))\n```"
        tried.append(1)
        if len(tried) == 1:
            raise ValueError("down")
        return "```repl\nFINAL('up')\n```"

    output = ask(create_rlm(FunctionModel(function=play), budget=Budget(depth=2)), "q")
    assert sorted(output["answer"], key=str) == [None, "up"]


def test_what_a_child_run_answered_is_known_after_a_pause(ask):
    code = "a = rlm_query('KID', 'x')\nb = llm_query_batched(['1', '2', '3'])\nFINAL([a, rlm_query('KID', 'x')])"
    model = script(code, children={"KID": ["FINAL(context + '!')"]})
    rlm = create_rlm(model, budget=Budget(depth=2, approve_above_calls=4), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    assert "__interrupt__" in ask(rlm, "q", config)
    from langgraph.types import Command

    output = ask(rlm, Command(resume=True), config)
    assert output["answer"] == ["x!", "x!"]
    assert output["sub_calls"] == 4


def test_a_prompt_that_the_model_cannot_read_is_not_sent_and_the_cell_is_told_what_to_do(ask):
    leaf = Counted()
    sub = replace(resolve(FunctionModel(function=lambda m: leaf(m[0].content)), "sub"), window=1_000)
    code = """
try:
    llm_query('x ' * 10_000)
except LLMError as e:
    print(e)
print(llm_query_batched(['fits', 'y ' * 20_000]))
FINAL('seen')
"""
    output = ask(create_rlm(script(code), recursive_model=sub), "q")
    shown = next(record["text"] for record in output["trajectory"] if record["type"] == "output")
    assert leaf.asked == ["fits"]
    assert output["sub_calls"] == 1
    assert "about 5,008 tokens" in shown
    assert "reads 1,000" in shown
    assert "llm_query_batched" in shown
    assert "['fits 1', None]" in shown


def test_a_cell_whose_calls_all_fail_does_not_go_on_for_ever(ask):
    def leaf(prompt: str) -> str:
        raise ValueError("down")

    code = "while True:\n    try:\n        x = llm_query('x')\n        break\n    except LLMError:\n        pass"
    seen: list[str] = []

    def play(messages: Any) -> str:
        if messages[0].type != "system":
            return leaf("")
        if len(messages) > 2:
            seen.append(messages[-1].content)
            return "```repl\nFINAL('gave up')\n```"
        return f"```repl\n{code}\n```"

    assert ask(create_rlm(FunctionModel(function=play)), "q")["answer"] == "gave up"
    assert "none of the calls that it waited for was answered" in seen[0]


def test_what_is_known_is_answered_in_place_and_is_in_the_records(ask):
    cells = "a = llm_query_batched(['x', 'y'])", "b = [llm_query('x'), llm_query('y')]\nFINAL([a == b, b])"
    output = ask(create_rlm(script(*cells, leaf=Counted())), "q")
    assert output["answer"][0] is True
    assert [record.get("memo", False) for record in calls(output)] == [False, False, True, True]
    assert sum(record["type"] == "wave" for record in output["trajectory"]) == 1


def test_a_cell_that_asks_only_what_it_knows_does_not_go_on_for_ever(ask, monkeypatch):
    monkeypatch.setattr("rlm_langchain.graph.nodes.execute.MAX_REPEATED_BATCHES", 50)  # thousands would take long
    model = script("while llm_query('again') != 'other':\n    pass", "FINAL('gave up')")
    output = ask(create_rlm(model), "q")
    assert (output["answer"], output["sub_calls"]) == ("gave up", 1)


def test_a_loop_around_a_spent_budget_ends(ask):
    code = "i = 0\nwhile True:\n    i += 4\n    llm_query_batched([str(i + k) for k in range(4)])"
    output = ask(create_rlm(script(code, "prose:That was all."), budget=Budget(calls=6)), "q")
    assert (output["answer"], output["stop_reason"]) == ("That was all.", "calls")
