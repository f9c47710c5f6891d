"""What a tree of runs knows of the processes before it, by their receipts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rlm_langchain import Budget
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.types import CallResult, Usage

REQUEST = Usage(calls=1, input=10)
VECTORS = Usage(input=10)
PRICE = Usage(cost=0.5)


def after(path: Path) -> RunTree:
    """The tree in the next process."""
    tree = RunTree(Budget())
    tree.open_receipts(path)
    return tree


def test_a_tool_that_was_cut_off_is_no_request_without_a_reply(tmp_path: Path) -> None:
    async def killed() -> None:
        await after(tmp_path / "receipts").tool_call("0").__aenter__()

    asyncio.run(killed())
    tree = after(tmp_path / "receipts")
    assert tree.charged("0", CallResult("x")).lost == 0

    async def is_left() -> bool:
        tree.ledger.budget = Budget(tool_calls=1)
        async with tree.tool_call("0") as is_left:
            return is_left

    assert asyncio.run(is_left()) is False, "it counts as a call: it may have run"


@pytest.mark.parametrize(("wanted", "lost"), [(REQUEST, 1), (VECTORS, 1), (PRICE, 0)])
def test_requests_to_models_that_were_cut_off_are_counted_and_all_that_was_paid(
    wanted: Usage, lost: int, tmp_path: Path
) -> None:
    after(tmp_path / "receipts").sent("0", wanted)
    told = after(tmp_path / "receipts").charged("0", CallResult("x"))
    assert (told.lost, told.used) == (lost, wanted._replace(estimated=True))
