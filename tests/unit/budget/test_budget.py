"""What the model sees of its budget, what calls cost, and who answers them at which depth."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import fields
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult

from rlm_langchain import (
    Budget,
    Price,
    RLMOutput,
    RLMRunnable,
    create_rlm,
)
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.types import Limits
from tests.virtual_time import run_in_virtual_time


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request):
    """Both ways to ask."""

    def go(rlm: RLMRunnable, input: Any) -> RLMOutput:
        return rlm.invoke(input) if request.param == "invoke" else asyncio.run(rlm.ainvoke(input))

    return go


PRICES = {"function": Price(input=100.0, output=1_000.0, cached=10.0)}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_budget_tells_in_the_repl_what_is_left_of_each_limit(ask, sandbox):
    budget = Budget(calls=10, tokens=50_000, usd=20.0, seconds=1000, iterations=7, depth=3)
    model = script("llm_query('one two three')\nFINAL(budget())")
    left = ask(create_rlm(model, sandbox=sandbox, budget=budget, prices=PRICES), "q")["answer"]
    assert (left["calls"], left["iterations"], left["depth"]) == (8, 6, 2)
    assert 45_000 < left["tokens"] < 50_000
    assert 15 < left["usd"] < 20
    assert 900 < left["seconds"] < 1000


def test_what_has_no_limit_is_none_and_a_child_run_sees_the_account_of_the_tree(ask):
    model = script("FINAL(rlm_query('KID'))", children={"KID": ["FINAL(budget())"]})
    output = ask(create_rlm(model, budget=Budget(depth=2, calls=10)), "q")
    assert output["answer"] == (
        '{"calls": 8, "tokens": null, "usd": null, "seconds": null, "iterations": 29, "depth": 0}'
    )


class Told:
    """A root model that goes on and on, never the same way, and what it is told at the end of each prompt."""

    def __init__(self) -> None:
        self.prompts: list[list[tuple[str, str]]] = []

    def __call__(self, messages: list[BaseMessage]) -> str:
        self.prompts.append([(message.type, str(message.content)) for message in messages])
        return (
            "That is all." if "has to end now" in messages[-1].content else f"```repl\nprint({len(messages)})\n```"
        )

    @property
    def lines(self) -> list[str]:
        """The last line of each prompt."""
        return [prompt[-1][1].splitlines()[-1] for prompt in self.prompts]


def test_a_line_says_so_in_each_turn_when_less_than_a_quarter_is_left(ask):
    told = Told()
    ask(create_rlm(FunctionModel(function=told), budget=Budget(calls=12, iterations=100)), "q")
    left = [line for line in told.lines if line.startswith("Left to spend")]
    assert left == ["Left to spend: 2 calls. Come to an answer soon."]
    assert told.lines[-1].startswith("The run has to end now: there are no model calls left.")


def test_turns_run_out_with_a_word_too(ask):
    told = Told()
    ask(create_rlm(FunctionModel(function=told), budget=Budget(iterations=9)), "q")
    left = [line for line in told.lines if line.startswith("Left to spend")]
    assert left == [f"Left to spend: {turns}. Come to an answer soon." for turns in ("2 turns", "1 turn")]


@pytest.mark.parametrize(("given", "turns"), [(None, 4), (6, 6)])
def test_a_small_model_has_four_turns_unless_it_is_given_others(ask, given, turns):
    told = Told()
    small = FunctionModel(function=told, model_name="tiny-1.5b")
    output = ask(create_rlm(small, budget=Budget(iterations=given)), "q")
    assert (output["stop_reason"], output["iterations"]) == ("iterations", turns + 1)
    assert (output["status"], output["answer"]) == ("failed", None)
    assert output["found"] == str(2 * turns + len(told.prompts[0])), "what was seen last"


def test_the_line_is_part_of_the_history_so_that_each_prompt_is_a_prefix_of_the_next(ask):
    told = Told()
    ask(create_rlm(FunctionModel(function=told), budget=Budget(tokens=60_000, calls=40, iterations=36)), "q")
    assert len({line for line in told.lines if line.startswith("Left to spend")}) > 3
    for before, after in itertools.pairwise(told.prompts):
        assert after[: len(before)] == before


def reply(text: str, **told: Any) -> AIMessage:
    """A reply as its provider bills it."""
    return AIMessage(text, **told)


def figures(read: int, wrote: int, cached: int = 0) -> dict[str, Any]:
    return {
        "input_tokens": read,
        "output_tokens": wrote,
        "total_tokens": read + wrote,
        "input_token_details": {"cache_read": cached},
    }


def test_input_from_a_cache_is_priced_as_such(ask):
    model = FunctionModel(
        function=lambda messages: reply("```repl\nFINAL(1)\n```", usage_metadata=figures(1_000, 10, cached=900))
    )
    output = ask(create_rlm(model, prices=PRICES), "q")
    assert output["cost_usd"] == pytest.approx((100 * 100 + 900 * 10 + 10 * 1_000) / 1e6)
    assert output["usage"]["root"]["cached"] == 900


def test_what_the_provider_says_it_cost_is_what_it_cost(ask):
    told = {"token_usage": {"cost": 0.125}}
    model = FunctionModel(
        function=lambda messages: reply(
            "```repl\nFINAL(1)\n```", usage_metadata=figures(1_000, 10), response_metadata=told
        )
    )
    assert ask(create_rlm(model, prices=PRICES), "q")["cost_usd"] == 0.125


def test_a_reply_without_figures_is_counted_here_and_marked(ask):
    model = FunctionModel(function=lambda messages: reply("```repl\nFINAL(1)\n```"))
    output = ask(create_rlm(model, prices=PRICES), "q")
    used = output["usage"]["root"]
    assert used["estimated"] is True
    assert used["input"] > 500
    assert 4 <= used["output"] <= 8
    assert output["cost_usd"] == pytest.approx((used["input"] * 100 + used["output"] * 1_000) / 1e6)


def test_without_a_price_the_cost_is_unknown_and_nothing_else_is(ask):
    output = ask(create_rlm(script("FINAL(llm_query('a'))")), "q")
    assert output["cost_usd"] is None
    assert output["sub_calls"] == 1


class Named(FunctionModel):
    """A model that says its name: as a leaf, and as the root of a child run."""

    def __init__(self, name: str) -> None:
        super().__init__(function=self._says, model_name=name)

    def _says(self, messages: list[BaseMessage]) -> str:
        if messages[0].type != "system":
            return self.model_name
        below = "rlm_query('deeper ' + str(budget()['depth']))"
        return f"```repl\nFINAL({self.model_name!r} + '(' + llm_query('who') + ' ' + {below} + ')')\n```"


@pytest.mark.parametrize(
    ("subs", "answer"),
    [
        (["a"], "root(a a(a a(a a)))"),
        (["a", "b"], "root(a a(b b(b b)))"),
        (["a", "b", "c"], "root(a a(b b(c c)))"),
    ],
)
def test_the_nth_model_answers_what_runs_at_depth_n_ask_by_a_call_or_a_child_run(ask, subs, answer):
    rlm = create_rlm(
        Named("root"), recursive_model=[Named(name) for name in subs], budget=Budget(depth=3), memo=False
    )
    assert ask(rlm, "q")["answer"] == answer


def test_the_pace_holds_for_the_whole_tree():
    begun: list[float] = []

    class Timed(FunctionModel):
        async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            begun.append(asyncio.get_running_loop().time())
            return self._generate(messages)

    def play(messages: list[BaseMessage]) -> str:
        if messages[0].type != "system":
            return "fine"
        if "KID" in messages[1].content:
            return "```repl\nFINAL(llm_query_batched([f'{context} {i}' for i in range(3)]))\n```"
        return "```repl\nFINAL(rlm_query_batched(['KID', 'KID', 'KID'], ['a', 'b', 'c']))\n```"

    rlm = create_rlm(Timed(function=play), budget=Budget(depth=2, requests_per_minute=4))
    output = run_in_virtual_time(rlm.ainvoke("q"))
    assert (output["status"], len(begun)) == ("complete", 13)
    assert all(fifth - first >= 60 - 1e-6 for first, fifth in zip(begun, begun[4:], strict=False))
    assert begun[-1] - begun[0] == pytest.approx(180, abs=1)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_waiting_parents_never_keep_a_child_run_from_a_worker(ask, sandbox):
    """Four levels, eight wide, two at once: on each level but the last, two runs have eight runs below them."""

    code = """
if context in ('r', 'r0', 'r1', 'r00', 'r10'):
    FINAL(''.join(rlm_query_batched(['go on'] * 8, [context + str(i) for i in range(8)])))
else:
    FINAL(llm_query(context))
"""

    def cells(messages: list[BaseMessage]) -> str:
        return "." if messages[0].type != "system" else f"```repl\n{code}\n```"

    rlm = create_rlm(
        FunctionModel(function=cells), sandbox=sandbox, budget=Budget(depth=4, concurrency=2), memo=False
    )
    output = ask(rlm, {"query": "go on", "context": "r"})
    assert output["answer"] == "." * (6 + 2 * 7 + 2 * 8)  # one for each run that has no runs below it


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), True, "1"])
@pytest.mark.parametrize("limit", [field.name for field in fields(Budget)])
def test_a_limit_that_would_never_apply_is_refused(limit: str, bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Budget\({limit}="):
        Budget(**{limit: bad})


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), True, "1"])
@pytest.mark.parametrize("limit", [field.name for field in fields(Limits)])
def test_a_limit_of_cells_that_would_never_apply_is_refused(limit: str, bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Limits\({limit}="):
        Limits(**{limit: bad})
