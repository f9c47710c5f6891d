"""The gate: how many requests at once, and how many in any minute."""

from __future__ import annotations

import asyncio

import pytest

from rlm_langchain.budget.limiters import Pace, RequestLimiter
from tests.virtual_time import run_in_virtual_time


async def begin(gate: RequestLimiter, calls: int, lasting: float) -> list[float]:
    """When each of so many requests, asked for at once, begins."""
    loop, begun = asyncio.get_running_loop(), []

    async def call() -> None:
        async with gate:
            begun.append(loop.time() - 1000)
            await asyncio.sleep(lasting)

    await asyncio.gather(*(call() for _ in range(calls)))
    return begun


@pytest.mark.parametrize("lasting", [0.0, 7.0, 100.0])
@pytest.mark.parametrize("concurrency", [1, 3, 32])
def test_in_no_minute_more_requests_begin_than_allowed(lasting, concurrency):
    gate = RequestLimiter(Pace(concurrency, requests_per_minute=5))
    begun = run_in_virtual_time(begin(gate, 23, lasting))
    assert len(begun) == 23
    assert all(sixth - first >= 60 - 1e-6 for first, sixth in zip(begun, begun[5:], strict=False))


def test_the_pace_costs_nothing_that_it_need_not():
    begun = run_in_virtual_time(begin(RequestLimiter(Pace(32, requests_per_minute=5)), 11, 1.0))
    assert begun == pytest.approx([0] * 5 + [60] * 5 + [120])


def test_without_a_pace_only_the_flight_is_bounded():
    assert run_in_virtual_time(begin(RequestLimiter(Pace(2)), 6, 10.0)) == pytest.approx([0, 0, 10, 10, 20, 20])


def test_who_goes_away_while_waiting_gives_its_place_back():
    async def go() -> float:
        gate = RequestLimiter(Pace(1, requests_per_minute=1))
        waiting = asyncio.create_task(begin(gate, 3, 0))
        await asyncio.sleep(30)
        waiting.cancel()
        await asyncio.wait([waiting])
        async with gate:
            return asyncio.get_running_loop().time() - 1000

    assert run_in_virtual_time(go()) == pytest.approx(60)


def test_gates_at_one_pace_are_not_faster_than_one():
    pace = Pace(3, requests_per_minute=5)

    async def several() -> list[float]:
        each = await asyncio.gather(*(begin(RequestLimiter(pace), 4, 7.0) for _ in range(5)))
        return sorted(time for times in each for time in times)

    begun = run_in_virtual_time(several())
    assert len(begun) == 20
    assert all(sixth - first >= 60 - 1e-6 for first, sixth in zip(begun, begun[5:], strict=False))
    assert all(fourth - first >= 7 - 1e-6 for first, fourth in zip(begun, begun[3:], strict=False))
