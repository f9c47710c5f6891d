"""The purse: grants and spending never pass it, rows that start can be finished, and little is left over."""

from __future__ import annotations

import random

import pytest

from rlm_langchain.batch.purse import Account, Purse
from rlm_langchain.budget.budget import Budget
from rlm_langchain.errors import ConfigurationError
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


def test_a_purse_is_checked() -> None:
    for wrong in ({"usd": -1}, {"calls": 2.5}, {"tokens": True}, {"dollars": 3}):
        with pytest.raises(ConfigurationError):
            Purse(**wrong)
