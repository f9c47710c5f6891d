"""The machine end to end: a scripted model, everything else for real."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from rlm_langchain import (
    Budget,
    BudgetExhausted,
    InputError,
    ModelError,
    RLMOutput,
    create_rlm,
    create_rlm_graph,
)
from rlm_langchain.testing.models import FunctionModel, script

SANDBOXES = ("cpython", "monty")


def records(output: RLMOutput, kind: str) -> list[Any]:
    return [record for record in output["trajectory"] if record["type"] == kind]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_question_is_answered_by_code_over_the_context(ask, sandbox):
    rlm = create_rlm(script("n = context.count('a')\nprint(n)", "FINAL(n)"), sandbox=sandbox)
    output = ask(rlm, {"query": "How many a?", "context": "banana" * 1000})
    assert (output["answer"], output["status"], output["stop_reason"]) == (3000, "complete", "answer")
    assert output["iterations"] == 2
    assert "3000" in records(output, "output")[0]["text"]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_sub_calls_come_back_in_order(ask, sandbox):
    code = "one = llm_query('1')\nmany = llm_query_batched([f'p{i}' for i in range(30)])\nFINAL([one] + many)"
    output = ask(create_rlm(script(code), sandbox=sandbox), "q")
    assert output["answer"] == ["<1>"] + [f"<p{i}>" for i in range(30)]
    assert output["sub_calls"] == 31


def test_a_wave_wider_than_its_tasks_comes_back_in_order(ask):
    code = "FINAL(llm_query_batched([f'p{i}' for i in range(450)]))"
    assert ask(create_rlm(script(code)), "q")["answer"] == [f"<p{i}>" for i in range(450)]


def test_usage_is_told_apart_for_root_and_sub_calls(ask):
    output = ask(create_rlm(script("FINAL(llm_query('one two three'))")), "q")
    root, sub = output["usage"]["root"], output["usage"]["sub"]
    assert root["calls"] == 1
    assert (sub["calls"], sub["input"], sub["output"]) == (1, 3, 3)


def test_a_failed_sub_call_is_an_error_in_the_cell_and_never_stops_its_siblings(ask):
    def leaf(prompt: str) -> str:
        if "bad" in prompt:
            raise ValueError("sk-secret")
        return "good"

    code = """
many = llm_query_batched(['a', 'bad', 'c'])
try:
    llm_query('bad')
except Exception as e:
    FINAL([many, str(e)])
"""
    output = ask(create_rlm(script(code, leaf=leaf)), "q")
    many, error = output["answer"]
    assert many == ["good", None, "good"]
    assert error
    assert "sk-secret" not in json.dumps(output)


def test_several_blocks_stop_at_the_first_error_and_the_model_is_told(ask):
    reply = "```repl\nx = 1\n```\n```repl\n1/0\n```\n```repl\nx = 3\n```"
    seen: list[str] = []

    def play(messages):
        if len(messages) == 2:
            return reply
        seen.append(messages[-1].content)
        return "```repl\nFINAL(x)\n```"

    assert ask(create_rlm(FunctionModel(function=play)), "q")["answer"] == 1
    assert "ZeroDivisionError" in seen[0]
    assert "1 later block" in seen[0]


def test_an_answer_that_is_ready_is_taken_before_any_limit(ask):
    output = ask(create_rlm(script("FINAL(42)"), budget=Budget(iterations=1)), "q")
    assert (output["answer"], output["status"]) == (42, "complete")


def test_a_model_that_only_talks_gets_one_nudge_then_its_words_are_the_answer(ask):
    output = ask(create_rlm(script("prose:It is Paris.")), "q")
    assert (output["answer"], output["stop_reason"], output["iterations"]) == ("It is Paris.", "prose", 2)
    assert len(records(output, "note")) == 1


def test_talk_between_code_is_no_answer(ask):
    output = ask(create_rlm(script("prose:Let me see.", "print(1)", "prose:Hm.", "FINAL(2)")), "q")
    assert (output["answer"], output["stop_reason"]) == (2, "answer")


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(iterations=3), "iterations"),
        (Budget(calls=4), "calls"),
        (Budget(tokens=20_000), "tokens"),
    ],
)
def test_a_limit_ends_in_a_last_call_for_the_best_answer(ask, budget, reason):
    def play(messages):
        last = "has to end now" in messages[-1].content
        # Each turn prints something else: a model that repeats itself would be stopped for that.
        return "About seven." if last else f"```repl\nprint('seven?', {len(messages)})\n```"

    output = ask(create_rlm(FunctionModel(function=play), budget=budget), "q")
    assert (output["answer"], output["status"], output["stop_reason"]) == ("About seven.", "partial", reason)
    used = output["usage"]["root"]
    assert used["calls"] <= (budget.calls or 1000)
    assert used["input"] + used["output"] <= (budget.tokens or 10**9)


def test_the_last_call_may_answer_by_code_but_asks_no_more_models(ask):
    def play(messages):
        if messages[0].type != "system":
            return "asked"
        last = "has to end now" in messages[-1].content
        code = "try:\n    x = llm_query('more')\nexcept Exception:\n    x = 7\nFINAL(x)"
        return f"```repl\n{code if last else 'print(0)'}\n```"

    output = ask(create_rlm(FunctionModel(function=play), budget=Budget(iterations=1)), "q")
    assert (output["answer"], output["status"], output["sub_calls"]) == (7, "partial", 0)


def test_a_run_that_finds_nothing_says_failed_and_what_it_saw(ask):
    output = ask(create_rlm(script("print('found: 7')"), budget=Budget(calls=1)), "q")
    assert output["status"] == "failed"
    assert output["stop_reason"] == "calls"


def test_a_spent_budget_raises_only_for_those_who_ask_for_it(ask):
    rlm = create_rlm(script("print(1)", "prose:words"), budget=Budget(iterations=1), on_budget="raise")
    with pytest.raises(BudgetExhausted) as spent:
        ask(rlm, "q")
    assert (spent.value.output["answer"], spent.value.output["stop_reason"]) == ("words", "iterations")


def test_budget_shows_what_is_left_in_the_repl(ask):
    output = ask(create_rlm(script("llm_query('x')\nFINAL(budget())"), budget=Budget(calls=10)), "q")
    assert output["answer"]["calls"] == 8


def test_each_root_prompt_is_the_previous_one_and_new_messages(ask):
    prompts: list[list[tuple[str, str]]] = []

    def play(messages):
        prompts.append([(m.type, m.content) for m in messages])
        return "```repl\nFINAL(1)\n```" if len(prompts) == 5 else "```repl\nprint(len(context))\n```"

    ask(create_rlm(FunctionModel(function=play)), {"query": "q", "context": "c" * 5000})
    assert len(prompts) == 5
    for before, after in itertools.pairwise(prompts):
        assert after[: len(before)] == before


def test_identical_sub_calls_are_asked_once_unless_samples_are_wanted(ask):
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        return str(len(asked))

    code = "a = llm_query('same')\nb = llm_query_batched(['same', 'same', 'other'])\nFINAL([a] + b)"
    assert ask(create_rlm(script(code, leaf=leaf)), "q")["answer"] == ["1", "1", "1", "2"]
    asked.clear()
    assert len(set(ask(create_rlm(script(code, leaf=leaf), memo=False), "q")["answer"])) == 4


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_child_runs_have_a_repl_a_context_and_a_history_of_their_own(ask, sandbox):
    model = script(
        "x = 'mine'",
        "kids = rlm_query_batched(['MID one', 'MID two'], [context[:5], context[5:]])\nFINAL(kids + [x])",
        children={
            "MID": ["x = len(context)", "low = rlm_query('LOW', context + '!')\nFINAL(f'{x} {low}')"],
            "LOW": ["FINAL(context + llm_query('leaf'))"],
        },
    )
    rlm = create_rlm(model, sandbox=sandbox, budget=Budget(depth=3))
    output = ask(rlm, {"query": "q", "context": "abcdefghij"})
    assert output["answer"] == ["5 abcde!<leaf>", "5 fghij!<leaf>", "mine"]
    assert output["sub_calls"] == 2 * (2 + 1) + 1  # the same leaf question is asked once
    child = records(output, "call")[0]["child"]
    assert child[0]["path"] == "0"
    assert records({"trajectory": child}, "call")[0]["child"][0]["path"] == "0/0"


def test_at_the_depth_of_the_budget_child_runs_are_leaf_calls(ask):
    output = ask(create_rlm(script("FINAL(rlm_query('who', 'text'))"), budget=Budget(depth=1)), "q")
    assert output["answer"].startswith("<who")
    assert "text" in output["answer"]


def test_the_failure_of_a_child_is_a_value_for_its_parent(ask):
    def play(messages):
        if "KID" in messages[1].content:
            raise ValueError("down")
        return "```repl\ntry:\n    rlm_query('KID')\nexcept Exception as e:\n    FINAL(str(e))\n```"

    output = ask(create_rlm(FunctionModel(function=play), budget=Budget(depth=2)), "q")
    assert "does not answer" in output["answer"]
    assert (output["status"], output["degraded"]) == ("partial", {"failed": 1})


def test_a_root_model_that_does_not_answer_is_an_error_of_ours(ask):
    def play(messages):
        raise ValueError("sk-secret")

    with pytest.raises(ModelError) as error:
        ask(create_rlm(FunctionModel(function=play)), "q")
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize("input", ["", "  ", {"query": ""}, {"context": "x"}, {"query": 3}, 7])
def test_a_question_that_is_none_is_refused_before_any_model_is_asked(ask, input):
    asked: list[int] = []
    with pytest.raises(InputError):
        ask(create_rlm(FunctionModel(function=lambda m: asked.append(1) or "x")), input)
    assert not asked


def test_an_empty_reply_is_survived(ask):
    replies = iter([AIMessage(""), AIMessage(""), AIMessage("```repl\nFINAL(3)\n```")])
    assert ask(create_rlm(FunctionModel(function=lambda m: next(replies))), "q")["answer"] == 3


def test_a_long_history_is_put_in_short_and_kept_in_the_repl(ask):
    from dataclasses import replace

    from rlm_langchain.models.registry import resolve

    prompts: list[int] = []

    def play(messages):
        prompts.append(sum(len(m.content) for m in messages))
        if "replaced by your own summary" in messages[-1].content:
            return "Summary: x is 1."
        if any("Summary: x is 1." in m.content for m in messages):
            return "```repl\nFINAL([x, len(history) > 10000])\n```"
        return f"```repl\nx = 1\nprint('w{len(messages)} ' * 3000)\n```"

    model = replace(resolve(FunctionModel(function=play), "root"), window=8000)
    output = ask(create_rlm(model), "q")
    assert output["answer"] == [1, True]
    assert prompts[-1] < max(prompts) / 2


def test_a_person_is_asked_before_a_fan_out_that_costs_more(ask):
    asked: list[str] = []

    def leaf(prompt: str) -> str:
        asked.append(prompt)
        return prompt.upper()

    code = "a = llm_query('a')\nb = llm_query_batched(['b', 'c', 'd'])\nFINAL([a] + b)"
    for said, answer in ((True, ["A", "B", "C", "D"]), (False, ["A", None, None, None])):
        asked.clear()
        rlm = create_rlm(
            script(code, leaf=leaf), budget=Budget(approve_above_calls=3), checkpointer=InMemorySaver()
        )
        config = {"configurable": {"thread_id": "t"}}
        pause = rlm.invoke("q", config)["__interrupt__"][0].value
        assert (pause["calls"], pause["spent_calls"], asked) == (3, 2, ["a"])
        assert ask(rlm, Command(resume=said), config)["answer"] == answer
        assert sorted(asked) == ["a", *(["b", "c", "d"] if said else [])]


def test_nothing_is_left_running_when_a_run_is_over(ask):
    rlm = create_rlm(script("FINAL(1)"))
    ask(rlm, "q")
    trees = rlm.built.components.trees
    assert not trees._alive
    assert not trees._ended


def test_the_graph_alone_takes_plain_json():
    graph = create_rlm_graph(script("FINAL(len(context))")).compile()
    assert graph.invoke({"query": "q", "context": "abc"})["answer"] == 3
