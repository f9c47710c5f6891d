"""The budget of a batch: never exceeded, large enough for each row that starts, and almost used up."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

from rlm_langchain.batch import questions
from rlm_langchain.batch.budget import BatchBudget, BudgetAllocator
from rlm_langchain.batch.questions import Questions
from rlm_langchain.batch.results import ResultFile
from rlm_langchain.budget.budget import Budget
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.types import Usage

SLOTS = 16


def run_batch(budget: BatchBudget, needs: list[Usage], rng: random.Random) -> tuple[BudgetAllocator, list[int]]:
    """Run rows that use what they need, as far as their grants go, and end in any order.

    Returns the allocator at the end, and the rows that were cut short.
    """
    allocator, todo = BudgetAllocator(budget), list(range(len(needs)))
    running, cut = dict[int, Budget](), list[int]()
    while True:
        while todo and (slots := (1 if allocator.needs_pilot else SLOTS) - len(running)) > 0:
            granted = allocator.grant(str(todo[0]), Budget(), slots)
            if granted is None:
                break
            running[todo.pop(0)] = granted
            check_within_budget(allocator)
        if not running:
            return allocator, cut
        row = rng.choice(list(running))
        granted, need = running.pop(row), needs[row]
        calls = min(need.calls, granted.calls or need.calls)
        cost = min(need.cost or 0.0, need.cost if granted.usd is None else granted.usd)
        is_cut = calls < need.calls or cost < (need.cost or 0.0)
        cut += [row] * is_cut
        reason = "answer" if not is_cut else "calls" if calls < need.calls else "usd"
        allocator.release(str(row), need._replace(calls=calls, cost=cost), reason)
        check_within_budget(allocator)


def check_within_budget(allocator: BudgetAllocator) -> None:
    for name, limit in allocator.budget.limits.items():
        granted = sum(grant.amounts[name] for grant in allocator._granted.values())
        spent = {"calls": allocator.spent.calls, "usd": allocator.spent.cost}[name]
        assert spent + granted <= limit + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_any_size_stay_within_the_budget_and_use_most_of_it(seed: int) -> None:
    rng = random.Random(seed)
    needs = [Usage(calls := rng.randint(5, 15), cost=calls * 0.002) for _ in range(400)]
    for budget in (BatchBudget(calls=1_000), BatchBudget(usd=2.0), BatchBudget(calls=1_200, usd=2.0)):
        allocator, cut = run_batch(budget, needs, rng)
        used = max(
            allocator.spent.calls / (budget.calls or 1_000_000),
            (allocator.spent.cost or 0) / (budget.usd or 1_000_000),
        )
        assert used >= 0.95
        assert len(cut) <= 3, "rows that start can be finished"


def test_a_small_budget_is_not_split_into_parts_too_small_for_a_row() -> None:
    allocator, cut = run_batch(BatchBudget(calls=100), [Usage(10, cost=0.0)] * 60, random.Random(0))
    assert (allocator.spent.calls, cut) == (90, [])


def test_the_unused_part_of_a_grant_goes_back() -> None:
    allocator = BudgetAllocator(BatchBudget(calls=100))
    assert allocator.grant("a", Budget(), 1) == Budget(calls=50), "half of it for the first row"
    allocator.release("a", Usage(10), "answer")
    assert allocator.remaining("calls") == 90
    assert [allocator.grant(name, Budget(), slots) for name, slots in (("b", 2), ("c", 1))] == [
        Budget(calls=45)
    ] * 2
    assert allocator.grant("d", Budget(), 1) is None
    allocator.release("b", Usage(10), "answer")
    assert allocator.grant("d", Budget(), 1) == Budget(calls=35)


def test_earlier_usage_counts_for_the_row_and_only_once_for_the_batch() -> None:
    allocator = BudgetAllocator(BatchBudget(calls=100), spent=Usage(30))
    allocator.record_usage(Usage(10))
    assert allocator.grant("begun", Budget(), 1, Usage(20)) == Budget(calls=90)
    assert allocator.remaining("calls") == 0
    allocator.release("begun", Usage(25), "answer")
    assert allocator.remaining("calls") == 65


def test_a_row_that_lost_replies_needs_as_much_again() -> None:
    allocator = BudgetAllocator(BatchBudget(calls=100), spent=Usage(92))
    allocator.record_usage(Usage(10))
    assert allocator.grant("begun", Budget(), 1, Usage(6), Usage(3)) == Budget(calls=14)
    allocator = BudgetAllocator(BatchBudget(calls=100), spent=Usage(93))
    allocator.record_usage(Usage(10))
    assert allocator.grant("begun", Budget(), 1, Usage(6), Usage(3)) is None
    assert allocator.grant("begun", Budget(), 1, Usage(6)) == Budget(calls=13)


def test_a_row_cut_short_by_its_own_limit_does_not_raise_the_estimated_need() -> None:
    allocator = BudgetAllocator(BatchBudget(calls=100))
    assert allocator.grant("a", Budget(calls=4), 1) == Budget(calls=4)
    allocator.release("a", Usage(4), "calls")
    assert allocator.need("calls") == 5
    allocator.grant("b", Budget(), 8)
    allocator.release("b", Usage(12), "calls")
    assert allocator.need("calls") == 25, "cut short by its grant, it would have needed more"


def test_an_unknown_usage_counts_as_spent() -> None:
    allocator = BudgetAllocator(BatchBudget(calls=100))
    allocator.grant("a", Budget(), 1)
    allocator.release("a", None)
    assert allocator.remaining("calls") == 50
    dollars = BudgetAllocator(BatchBudget(usd=5.0), spent=Usage(1, cost=None))
    assert dollars.grant("a", Budget(), 1) is None
    assert dollars.exhausted_limit() == "usd"


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
        InputError, match=r"nothing was asked or paid for, because .* has errors:\n +(line|row) 1: "
    ):
        Questions(path if isinstance(row, str) else [row], "batch").check(Budget())


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "endless line"])
def test_questions_and_results_are_files_with_an_end(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(questions, "MAX_LINE", 1_000)
    path = {"device": Path("/dev/zero"), "folder": tmp_path}.get(kind, tmp_path / "rows.jsonl")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless line":
        path.write_text('{"id": 1, "query": "' + "x" * 1_000)
    with pytest.raises(InputError, match="is no file" if kind != "endless line" else "has more than"):
        Questions(path, "batch").check(Budget())
    if kind != "endless line":
        with pytest.raises(InputError, match="is no file"):
            ResultFile(path).read("batch", {})


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
    row = {"thread": "batch/1", "question": "x", "status": "complete", "usage": {"root": usage, "sub": usage}}
    path = tmp_path / "results.jsonl"
    path.write_text(f"{json.dumps(row)}\n")
    assert set(ResultFile(path).read("batch", {})) == {"batch/1"}
    row["usage"]["sub"] = {**usage, **wrong}  # type: ignore[index]
    path.write_text(f"{json.dumps(row)}\n")
    with pytest.raises(InputError, match="is not a result of the batch"):
        ResultFile(path).read("batch", {})


def test_a_batch_budget_is_validated() -> None:
    for wrong in ({"usd": -1}, {"calls": 2.5}, {"tokens": True}, {"dollars": 3}):
        with pytest.raises(ConfigurationError):
            BatchBudget(**wrong)
