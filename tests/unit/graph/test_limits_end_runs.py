"""Whatever limit ends a run, at whatever depth: a usable answer, a status and a reason. Nothing raises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult

from rlm_langchain import (
    Budget,
    BudgetExhausted,
    ConfigurationError,
    Price,
    RLMOutput,
    RLMRunnable,
    create_rlm,
)
from rlm_langchain.testing.models import FunctionModel, script

LAST = "has to end now"
"""What the last turn of a run is told."""
PRICES = {"function": Price(input=10.0, output=100.0)}


class Patient(FunctionModel):
    """A model that takes for ever where its function says "hang"."""

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        result = self._generate(messages)
        if result.generations[0].message.content == "hang":
            await asyncio.Event().wait()
        return result


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request):
    """Both ways to ask."""

    def go(rlm: RLMRunnable, input: Any) -> RLMOutput:
        return rlm.invoke(input) if request.param == "invoke" else asyncio.run(rlm.ainvoke(input))

    return go


def level(messages: list[BaseMessage]) -> str:
    """Who is asked: the `root`, a `MID` run, a `LOW` run, or a `leaf`."""
    if messages[0].type != "system":
        return "leaf"
    question = str(messages[1].content)
    return next((name for name in ("LOW", "MID") if f"{name} run" in question), "root")


def turn_of(messages: list[BaseMessage]) -> int:
    return sum(message.type == "ai" for message in messages)


def spender(leaf: str = "fine", cell: str = "") -> FunctionModel:
    """A tree that never has enough: three runs below the root, two below each, four leaf calls in each turn."""

    def play(messages: list[BaseMessage]) -> str:
        who, turn = level(messages), turn_of(messages)
        if who == "leaf":
            return leaf
        if LAST in messages[-1].content:
            return f"the best that {who} knows"
        asked = str(messages[1].content)[-400:].__hash__()
        code = {
            "root": f"{cell}\nprint(rlm_query_batched(['MID run {turn}' + c for c in 'abc']))",
            "MID": f"print(rlm_query_batched(['LOW run {turn}' + c + '{asked}' for c in 'de']))",
            "LOW": f"print(llm_query_batched(['{turn}' + c + '{asked}' for c in 'wxyz']))",
        }[who]
        return f"```repl\n{code}\n```"

    return Patient(function=play)


def total(output: RLMOutput) -> dict[str, Any]:
    root, sub = output["usage"]["root"], output["usage"]["sub"]
    return {
        "calls": root["calls"] + sub["calls"],
        "tokens": root["input"] + root["output"] + sub["input"] + sub["output"],
        "usd": output["cost_usd"],
    }


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"iterations": 2}, "iterations"),
        ({"calls": 25}, "calls"),
        ({"tokens": 60_000}, "tokens"),
        ({"usd": 0.9}, "usd"),
    ],
)
def test_each_limit_ends_in_an_answer_and_is_never_passed(ask, depth, limits, reason):
    budget = Budget(**{"calls": None, "iterations": 50, **limits}, depth=depth, concurrency=4)
    output = ask(create_rlm(spender(), budget=budget, prices=PRICES, sandbox="monty"), "q")
    assert (output["answer"], output["status"]) == ("the best that root knows", "partial")
    assert output["stop_reason"] == reason
    used = total(output)
    assert used["calls"] <= (budget.calls or 10**9)
    assert used["tokens"] <= (budget.tokens or 10**9)
    assert used["usd"] <= (budget.usd or 10**9)
    if reason != "iterations":
        assert used[reason] > 0.2 * limits[reason]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(
    "model",
    [spender(leaf="hang"), spender(cell="while True:\n    pass")],
    ids=["a model that does not reply", "a cell that computes"],
)
def test_time_stops_models_and_cells_and_leaves_enough_for_an_answer(ask, depth, model, monkeypatch):
    monkeypatch.setattr("rlm_langchain.budget.ledger.LAST_CALL_TIME_SHARE", 0.8)  # of a busy machine's time
    output = ask(create_rlm(model, budget=Budget(seconds=12, depth=depth)), "q")
    assert (output["answer"], output["status"]) == ("the best that root knows", "partial")
    assert output["stop_reason"] == "seconds"


def test_a_root_model_that_does_not_reply_in_time_is_asked_once_more_for_the_answer(ask, monkeypatch):
    monkeypatch.setattr("rlm_langchain.budget.ledger.LAST_CALL_TIME_SHARE", 0.8)

    def play(messages: list[BaseMessage]) -> str:
        return "Seven." if LAST in messages[-1].content else "hang"

    output = ask(create_rlm(Patient(function=play), budget=Budget(seconds=12)), "q")
    assert (output["answer"], output["status"], output["stop_reason"]) == ("Seven.", "partial", "seconds")


def test_when_even_the_last_call_fails_to_come_the_output_says_so_and_what_was_seen(ask):
    def play(messages: list[BaseMessage]) -> str:
        return "```repl\nprint('seen: 7')\n```" if turn_of(messages) == 0 else "hang"

    output = ask(create_rlm(Patient(function=play), budget=Budget(seconds=2)), "q")
    assert (output["status"], output["stop_reason"]) == ("failed", "seconds")
    assert (output["answer"], output["found"]) == (None, "seen: 7")


def test_an_answer_that_code_gives_when_time_is_over_is_kept(ask, monkeypatch):
    monkeypatch.setattr("rlm_langchain.budget.ledger.LAST_CALL_TIME_SHARE", 0.8)
    code = "r = llm_query_batched(['a', 'hang', 'b'])\nFINAL([x for x in r if x])"

    def play(messages: list[BaseMessage]) -> str:
        return str(messages[0].content) if level(messages) == "leaf" else f"```repl\n{code}\n```"

    output = ask(create_rlm(Patient(function=play), budget=Budget(seconds=12)), "q")
    assert (output["answer"], output["status"], output["stop_reason"]) == (["a", "b"], "partial", "seconds")
    assert output["degraded"] == {"refused": 1}


def test_what_of_a_batch_does_not_fit_is_none_and_the_output_says_why(ask):
    code = "r = llm_query_batched([str(i) for i in range(9)])\nprint(sum(x is not None for x in r))"
    replies = iter([f"```repl\n{code}\n```", "that is all"])

    def play(messages: list[BaseMessage]) -> str:
        return "fine" if level(messages) == "leaf" else next(replies)

    output = ask(create_rlm(FunctionModel(function=play), budget=Budget(calls=6)), "q")
    shown = next(record["text"] for record in output["trajectory"] if record["type"] == "output")
    assert "4" in shown.splitlines()
    assert "7 calls do not fit into 6" in shown or "6 calls do not fit into 6, with 1 held back" in shown
    assert (total(output)["calls"], output["stop_reason"]) == (6, "calls")


def test_a_call_that_does_not_fit_is_an_error_that_code_can_catch(ask):
    code = "a = llm_query('1')\ntry:\n    llm_query('2')\nexcept LLMError as e:\n    FINAL([a, str(e)])"

    def play(messages: list[BaseMessage]) -> str:
        return "fine" if level(messages) == "leaf" else f"```repl\n{code}\n```"

    output = ask(create_rlm(FunctionModel(function=play), budget=Budget(calls=3)), "q")
    first, error = output["answer"]
    assert first == "fine"
    assert error == "not asked: 3 calls do not fit into 3, with 1 held back for a last call"
    assert (output["status"], output["stop_reason"], output["degraded"]) == ("partial", "calls", {"refused": 1})


def test_a_child_run_that_the_limit_ends_may_still_answer_in_short(ask):
    """Its last call is shorter than a turn, so it may fit where a turn does not."""
    asked: list[str] = []

    def play(messages: list[BaseMessage]) -> str:
        who, last = level(messages), LAST in messages[-1].content
        asked.append(f"{who} last" if last else who)
        if who == "root":
            return "root knows" if last else "```repl\nprint(rlm_query('MID run'))\n```"
        return "mid knows" if last else "```repl\nx = 'x ' * 400\nprint(x)\n```"

    output = ask(create_rlm(FunctionModel(function=play), budget=Budget(tokens=20_000, depth=2)), "q")
    assert asked[-2:] == ["MID last", "root last"] or asked[-1] == "root"
    call = next(record for record in output["trajectory"] if record["type"] == "call")
    assert call["value"] == "mid knows"


def test_a_limit_that_leaves_no_room_at_all_fails_with_a_reason_and_asks_nobody(ask):
    asked: list[int] = []
    model = FunctionModel(function=lambda messages: asked.append(1) or "x")
    output = ask(create_rlm(model, budget=Budget(tokens=50)), "q")
    assert (output["answer"], output["status"], output["stop_reason"]) == (None, "failed", "tokens")
    assert not asked


def test_a_cap_on_output_is_sent_with_each_call_and_is_no_stop():
    caps: list[Any] = []

    class Capped(FunctionModel):
        max_tokens: int | None = None

        async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            caps.append(kwargs.get("max_tokens"))
            return self._generate(messages)

    code = "```repl\nFINAL(llm_query('x'))\n```"
    model = Capped(function=lambda messages: "fine" if level(messages) == "leaf" else code)
    output = create_rlm(model, budget=Budget(output_tokens=77)).invoke("q")
    assert (caps, output["status"]) == ([77, 77], "complete")


@pytest.mark.parametrize("limits", [{"calls": 2}, {"iterations": 1}])
def test_a_spent_budget_raises_for_those_who_ask_and_the_error_holds_the_output(ask, limits):
    rlm = create_rlm(spender(), budget=Budget(**limits), on_budget="raise")
    with pytest.raises(BudgetExhausted) as spent:
        ask(rlm, "q")
    assert spent.value.output["answer"] == "the best that root knows"


@pytest.mark.parametrize("budget", [Budget(usd=1.0), Budget(approve_above_usd=0.5)])
def test_dollars_without_a_price_are_refused_before_anything_is_asked(ask, budget):
    asked: list[int] = []
    model = FunctionModel(function=lambda messages: asked.append(1) or "x")
    with pytest.raises(ConfigurationError, match=r"none is known for function: .*prices=.*Price\(.*limit `tokens`"):
        ask(create_rlm(model, budget=budget), "q")
    assert not asked


def test_a_price_for_a_model_that_is_not_used_is_a_slip(ask):
    with pytest.raises(ConfigurationError, match="'fnction'"):
        ask(create_rlm(spender(), prices={"fnction": Price(1, 2)}), "q")


def test_calls_limited_by_a_person_are_no_dollars(ask):
    create_rlm(spender(), budget=Budget(approve_above_calls=5)).graph  # noqa: B018 - builds it


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize(
    ("cells", "seen"),
    [
        (["FINAL(1 / 0)"], ["ZeroDivisionError"]),
        (["FINAL(nope)"], ["NameError"]),
        (["print('seen', 40 + 2)", "FINAL(1 / 0)", "FINAL(nope)"], ["seen 42", "NameError"]),
        (["FINAL(1 / 0)", "print('seen', 40 + 2)"], ["seen 42"]),
    ],
    ids=str,
)
def test_a_run_that_failed_says_what_was_raised_last(sandbox, cells, seen):
    rlm = create_rlm(script(*cells), sandbox=sandbox, budget=Budget(iterations=len(cells)))
    output = rlm.invoke("q")
    assert output["status"] == "failed"
    assert all(text in output["found"] for text in seen)
    assert output["found"].count("Error") == sum("Error" in text for text in seen)
