"""The purse: grants and spending never pass it, rows that start can be finished, and little is left over."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain.batch import questions
from rlm_langchain.batch.purse import Account, Purse
from rlm_langchain.batch.questions import Questions
from rlm_langchain.batch.results import ResultFile
from rlm_langchain.budget.budget import Budget
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.types import Usage

PLACES = 16


def campaign(purse: Purse, needs: list[Usage], chance: random.Random) -> tuple[Account, list[int]]:
    """Work on rows that use what they need, as far as their grants go, and end in any order.

    Returns the account at the end, and the rows that were cut short.
    """
    account, todo, working, cut = Account(purse), list(range(len(needs))), dict[int, Budget](), list[int]()
    while True:
        while todo and (places := (1 if account.needs_pilot else PLACES) - len(working)) > 0:
            budget = account.grant(str(todo[0]), Budget(), places)
            if budget is None:
                break
            working[todo.pop(0)] = budget
            check_never_passed(account)
        if not working:
            return account, cut
        row = chance.choice(list(working))
        budget, need = working.pop(row), needs[row]
        calls = min(need.calls, budget.calls or need.calls)
        cost = min(need.cost or 0.0, need.cost if budget.usd is None else budget.usd)
        is_cut = calls < need.calls or cost < (need.cost or 0.0)
        cut += [row] * is_cut
        reason = "answer" if not is_cut else "calls" if calls < need.calls else "usd"
        account.settle(str(row), need._replace(calls=calls, cost=cost), reason)
        check_never_passed(account)


def check_never_passed(account: Account) -> None:
    for name, limit in account.purse.limits.items():
        granted = sum(grant.amounts[name] for grant in account._granted.values())
        spent = {"calls": account.spent.calls, "usd": account.spent.cost}[name]
        assert spent + granted <= limit + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_any_size_never_pass_it_and_use_most_of_it(seed: int) -> None:
    chance = random.Random(seed)
    needs = [Usage(calls := chance.randint(5, 15), cost=calls * 0.002) for _ in range(400)]
    for purse in (Purse(calls=1_000), Purse(usd=2.0), Purse(calls=1_200, usd=2.0)):
        account, cut = campaign(purse, needs, chance)
        used = max(
            account.spent.calls / (purse.calls or 1_000_000), (account.spent.cost or 0) / (purse.usd or 1_000_000)
        )
        assert used >= 0.95
        assert len(cut) <= 3, "rows that start can be finished"


def test_a_small_purse_is_not_split_so_that_no_row_can_be_finished() -> None:
    account, cut = campaign(Purse(calls=100), [Usage(10, cost=0.0)] * 60, random.Random(0))
    assert (account.spent.calls, cut) == (90, [])


def test_an_unused_rest_comes_back() -> None:
    account = Account(Purse(calls=100))
    assert account.grant("a", Budget(), 1) == Budget(calls=50), "half of it for the first row"
    account.settle("a", Usage(10), "answer")
    assert account.left("calls") == 90
    assert [account.grant(name, Budget(), places) for name, places in (("b", 2), ("c", 1))] == [
        Budget(calls=45)
    ] * 2
    assert account.grant("d", Budget(), 1) is None
    account.settle("b", Usage(10), "answer")
    assert account.grant("d", Budget(), 1) == Budget(calls=35)


def test_what_a_row_used_before_counts_for_its_budget_and_only_once_for_the_purse() -> None:
    account = Account(Purse(calls=100), spent=Usage(30))
    account.learn(Usage(10))
    assert account.grant("begun", Budget(), 1, Usage(20)) == Budget(calls=90)
    assert account.left("calls") == 0
    account.settle("begun", Usage(25), "answer")
    assert account.left("calls") == 65


def test_a_row_that_lost_replies_needs_as_much_again() -> None:
    account = Account(Purse(calls=100), spent=Usage(92))
    account.learn(Usage(10))
    assert account.grant("begun", Budget(), 1, Usage(6), Usage(3)) == Budget(calls=14)
    account = Account(Purse(calls=100), spent=Usage(93))
    account.learn(Usage(10))
    assert account.grant("begun", Budget(), 1, Usage(6), Usage(3)) is None
    assert account.grant("begun", Budget(), 1, Usage(6)) == Budget(calls=13)


def test_the_limit_of_a_row_is_kept_and_teaches_nothing() -> None:
    account = Account(Purse(calls=100))
    assert account.grant("a", Budget(calls=4), 1) == Budget(calls=4)
    account.settle("a", Usage(4), "calls")
    assert account.need("calls") == 5
    account.grant("b", Budget(), 8)
    account.settle("b", Usage(12), "calls")
    assert account.need("calls") == 25, "cut short by its grant, it would have needed more"


def test_what_is_not_known_counts_as_spent() -> None:
    account = Account(Purse(calls=100))
    account.grant("a", Budget(), 1)
    account.settle("a", None)
    assert account.left("calls") == 50
    dollars = Account(Purse(usd=5.0), spent=Usage(1, cost=None))
    assert dollars.grant("a", Budget(), 1) is None
    assert dollars.empty() == "usd"


LARGE = "9" * 5_000


class _Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "row",
    [
        f'{{"id": {LARGE}, "query": "x"}}',
        f'{{"id": {LARGE[:30]}, "query": "x"}}',
        f'{{"id": 1, "query": "x", "context": [{LARGE}]}}',
        f'{{"id": 1, "query": "x", "budget": {{"usd": {LARGE[:400]}}}}}',
        f'{{"id": 1, "query": "x", "budget": {{"calls": {LARGE[:400]}}}}}',
        '{"id": 1, "query": "x", "budget": {"usd": 1e999}}',
        '{"id": 1, "query": "x", "budget": 0}',
        '{"id": 1, "query": "x", "budget": ""}',
        {"id": 10**5_000, "query": "x"},
        {"id": 1, "query": "x", "context": 10**5_000},
        {"id": 1, "query": "x", "context": _Unshowable()},
        {"id": _Unshowable(), "query": "x"},
    ],
    ids=lambda row: str(row)[:30] if isinstance(row, str) else "of Python",
)
def test_values_that_no_row_can_have_are_mistakes_of_the_row(row: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(str(row) if isinstance(row, str) else "")
    with pytest.raises(
        InputError, match=r"nothing was asked or paid for, because .* has mistakes:\n +(line|row) 1: "
    ):
        Questions(path if isinstance(row, str) else [row], "campaign").check(Budget())


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "endless line"])
def test_questions_and_results_are_files_with_an_end(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(questions, "MAX_LINE", 1_000)
    path = {"device": Path("/dev/zero"), "folder": tmp_path}.get(kind, tmp_path / "rows.jsonl")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless line":
        path.write_text('{"id": 1, "query": "' + "x" * 1_000)
    with pytest.raises(InputError, match="is no file" if kind != "endless line" else "has more than"):
        Questions(path, "campaign").check(Budget())
    if kind != "endless line":
        with pytest.raises(InputError, match="is no file"):
            ResultFile(path).read("campaign", {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost": -1_000.0},
        {"cost": math.nan},
        {"cost": math.inf},
        {"cost": "1"},
        {"cost": True},
        {"calls": -5},
        {"calls": True},
        {"output": 10**400},
        {"input": 1.5},
    ],
    ids=str,
)
def test_a_result_with_an_impossible_usage_is_not_one(wrong: dict[str, Any], tmp_path: Path) -> None:
    usage = {"calls": 1, "input": 1, "cached": 0, "output": 1, "cost": 0.5, "estimated": False}
    row = {"thread": "campaign/1", "question": "x", "status": "complete", "usage": {"root": usage, "sub": usage}}
    path = tmp_path / "results.jsonl"
    path.write_text(f"{json.dumps(row)}\n")
    assert set(ResultFile(path).read("campaign", {})) == {"campaign/1"}
    row["usage"]["sub"] = {**usage, **wrong}  # type: ignore[index]
    path.write_text(f"{json.dumps(row)}\n")
    with pytest.raises(InputError, match="is not a result of the batch"):
        ResultFile(path).read("campaign", {})


def test_a_purse_is_checked() -> None:
    for wrong in ({"usd": -1}, {"calls": 2.5}, {"tokens": True}, {"dollars": 3}):
        with pytest.raises(ConfigurationError):
            Purse(**wrong)
