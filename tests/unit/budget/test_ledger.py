"""The account: what is reserved and spent together never passes a limit."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import BudgetRefused, Ledger
from rlm_langchain.types import Usage

ONE = Usage(calls=1, input=100, output=50, cost=0.01)


async def spend(ledger: Ledger, wanted: Usage = ONE, used: Usage | None = None, *, last: bool = False) -> None:
    """A call that reserves, and uses, by default all that it reserved."""
    async with ledger.reserve(wanted, last=last) as entry:
        await asyncio.sleep(0)
        entry.book(wanted if used is None else used)


async def refusals(*calls) -> list[bool]:
    """Which of these calls, made at once, were refused."""
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return [isinstance(end, BudgetRefused) for end in ends]


async def test_what_was_reserved_and_not_used_comes_back():
    ledger = Ledger(Budget(tokens=1000))
    async with ledger.reserve(ONE) as entry:
        assert ledger.remaining()["tokens"] == 850
        entry.book(Usage(calls=1, input=10, output=5, cost=0.001))
    assert ledger.remaining()["tokens"] == 985
    assert ledger.spent == Usage(calls=1, input=10, output=5, cost=0.001)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
async def test_an_error_or_a_cancel_settles_too(error):
    ledger = Ledger(Budget(calls=10))
    with pytest.raises(error):
        async with ledger.reserve(ONE):
            raise error
    assert ledger.remaining()["calls"] == 10


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(calls=3), "calls"),
        (Budget(tokens=450), "tokens"),
        (Budget(usd=0.03), "usd"),
    ],
)
async def test_a_spent_limit_refuses_by_name_and_what_is_held_back_still_fits(budget, reason):
    ledger = Ledger(budget, reserve_for_last_call=ONE)
    for _ in range(2):
        await spend(ledger)
    with pytest.raises(BudgetRefused) as refusal:
        await spend(ledger)
    assert refusal.value.reason == reason
    assert ledger.limit_reached(ONE) == reason
    await spend(ledger, last=True)
    with pytest.raises(BudgetRefused):
        await spend(ledger, last=True)


async def test_no_more_than_half_of_a_limit_is_held_back():
    ledger = Ledger(Budget(tokens=400), reserve_for_last_call=Usage(calls=1, input=10_000))
    await spend(ledger)
    with pytest.raises(BudgetRefused):
        await spend(ledger)


async def test_time_runs_over_all_processes_of_a_run():
    now = [0.0]
    ledger = Ledger(Budget(seconds=100), elapsed=70, clock=lambda: now[0])
    assert ledger.seconds_left() == pytest.approx(10)
    assert ledger.seconds_left(last=True) == pytest.approx(30)
    now[0] = 10.0
    assert ledger.limit_reached(ONE) == "seconds"
    async with ledger.reserve(ONE, last=True):
        now[0] = 30.0
    with pytest.raises(BudgetRefused):
        await spend(ledger, last=True)


def test_less_than_a_quarter_is_scarce():
    ledger = Ledger(Budget(calls=8, tokens=None))
    ledger.add_spent(Usage(calls=6))
    assert ledger.running_low() == {}
    ledger.add_spent(Usage(calls=1))
    assert ledger.running_low() == {"calls": 1}


def test_an_unknown_price_makes_the_cost_unknown():
    ledger = Ledger(Budget())
    ledger.add_spent(Usage(calls=1, cost=0.5))
    ledger.add_spent(Usage(calls=1, cost=None))
    assert ledger.spent.cost is None


async def test_a_call_that_only_reservations_stand_in_the_way_of_waits_for_them():
    ledger = Ledger(Budget(tokens=1000), reserve_for_last_call=Usage())
    used = Usage(calls=1, input=10, output=10)
    wide = Usage(calls=1, input=500, output=400)
    assert not any(await refusals(*(spend(ledger, wide, used) for _ in range(5))))
    assert ledger.spent.tokens == 100
    # 100 are spent; 900 fit, then 880 are left
    assert await refusals(*(spend(ledger, wide, used) for _ in range(3))) == [False, True, True]


async def test_who_waits_is_served_in_turn_so_that_large_calls_are_not_passed_for_ever():
    ledger, order = Ledger(Budget(tokens=1000), reserve_for_last_call=Usage()), []

    async def call(name: str, size: int) -> None:
        async with ledger.reserve(Usage(1, size)):
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(call("a", 600), call("large", 900), call("b", 300), call("c", 300))
    assert order == ["a", "large", "b", "c"]


async def test_who_goes_away_while_waiting_leaves_nothing_behind():
    ledger, go = Ledger(Budget(calls=2), reserve_for_last_call=Usage()), asyncio.Event()

    async def call() -> None:
        async with ledger.reserve(Usage(2)):
            await go.wait()

    tasks = [asyncio.create_task(call()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    go.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), asyncio.CancelledError, type(None)]
    assert ledger.remaining()["calls"] == 2


async def test_a_cancel_just_when_its_turn_came_gives_the_reservation_back():
    ledger, go = Ledger(Budget(calls=1), reserve_for_last_call=Usage()), asyncio.Event()

    async def call() -> None:
        async with ledger.reserve(Usage(1)):
            await go.wait()

    first, second, third = (asyncio.create_task(call()) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    second.cancel()  # admitted by now, and not awake yet
    go.set()
    await asyncio.wait([second, third])
    assert second.cancelled()
    assert third.exception() is None
    assert ledger.remaining()["calls"] == 1


async def test_a_call_whose_price_is_unknown_does_not_pass_a_limit_of_dollars():
    ledger = Ledger(Budget(usd=1.0))
    with pytest.raises(BudgetRefused):
        await spend(ledger, Usage(calls=1, cost=None))


LIMITS = [Budget(calls=10), Budget(tokens=1500), Budget(usd=0.1), Budget(seconds=100)]


@pytest.mark.parametrize("budget", LIMITS, ids=str)
async def test_what_is_admitted_and_not_sent_is_refused_when_the_limit_was_passed_meanwhile(budget):
    now = [0.0]
    ledger = Ledger(budget, reserve_for_last_call=Usage(), clock=lambda: now[0])
    async with ledger.reserve(ONE) as first, ledger.reserve(ONE) as second:
        assert first.begin()
        first.book(Usage(calls=10, input=1400, output=100, cost=0.1))
        now[0] = 100.0
        assert not second.begin()
        with pytest.raises(BudgetRefused):
            await second.renew()
    assert ledger.committed == ledger.spent


async def test_who_still_fits_once_what_is_in_flight_is_back_waits_for_it():
    ledger = Ledger(Budget(tokens=1000), reserve_for_last_call=Usage())
    wide, order = Usage(calls=1, input=300, output=0, cost=0.0), []
    async with ledger.reserve(wide) as first, ledger.reserve(wide) as second, ledger.reserve(wide) as third:
        assert first.begin()
        assert second.begin()
        first.book(Usage(calls=1, input=500))
        assert not third.begin(), "beside the second one it does not fit"
        waiting = asyncio.create_task(third.renew())
        await asyncio.sleep(0)
        order.append(waiting.done())
        second.book(Usage(calls=1, input=10))
        await waiting
        order.append(third.begin())
    assert order == [False, True]


async def test_a_retry_is_a_request_of_its_own():
    """Each try that was billed is on the account before the next one."""
    ledger = Ledger(Budget(calls=3), reserve_for_last_call=Usage())
    async with ledger.reserve(Usage(calls=1)) as entry:
        for ends in (entry.lose, lambda: entry.book(Usage(calls=1)), entry.lose):
            await entry.renew()
            assert entry.begin()
            ends()
        with pytest.raises(BudgetRefused):
            await entry.renew()
    assert (ledger.spent.calls, ledger.spent.estimated) == (3, True)


async def test_what_is_cut_off_on_its_way_may_have_cost_what_was_reserved():
    ledger = Ledger(Budget(calls=10))

    async def cut_off(begins: bool) -> None:
        async with ledger.reserve(Usage(calls=1)) as entry:
            assert not begins or entry.begin()
            raise asyncio.CancelledError

    for begins in (True, False):
        with pytest.raises(asyncio.CancelledError):
            await cut_off(begins)
    assert (ledger.spent, ledger.remaining()["calls"]) == (Usage(calls=1, estimated=True), 9)


@given(st.lists(st.tuples(st.integers(1, 400), st.floats(0, 8), st.booleans()), max_size=30), st.integers(1, 5))
def test_nothing_is_sent_that_does_not_fit_beside_what_is_known_to_be_spent(calls, width):
    """Replies cost up to eight times what was reserved: what passes the limit was in flight at that moment."""
    ledger = Ledger(Budget(tokens=2000, calls=None), reserve_for_last_call=Usage())

    async def call(gate: asyncio.Semaphore, read: int, factor: float, lost: bool) -> None:
        try:
            async with ledger.reserve(Usage(1, read)) as entry:
                while True:
                    await entry.renew()
                    async with gate:
                        if not entry.begin():
                            continue
                        assert ledger.spent.tokens + read <= 2000
                        await asyncio.sleep(0)
                        entry.lose() if lost else entry.book(Usage(1, int(read * factor)))
                        return
        except BudgetRefused:
            assert ledger.spent.tokens + read > 2000

    async def together() -> None:
        gate = asyncio.Semaphore(width)
        await asyncio.gather(*(call(gate, *one) for one in calls))

    asyncio.run(together())
    assert ledger.committed == ledger.spent
    assert ledger.spent.tokens <= 2000 + width * 400 * 8


def test_threads_together_never_pass_a_limit():
    ledger = Ledger(Budget(calls=51))

    def work(_: int) -> list[bool]:
        return asyncio.run(refusals(*(spend(ledger, Usage(calls=1)) for _ in range(20))))

    with ThreadPoolExecutor(8) as pool:
        refused = sum(sum(some) for some in pool.map(work, range(10)))
    assert (ledger.spent.calls, refused) == (50, 150)


sizes = st.tuples(st.integers(1, 400), st.integers(0, 400), st.floats(0, 1), st.booleans())


@given(st.lists(sizes, max_size=40))
def test_no_calls_at_once_pass_the_tokens_and_none_is_refused_that_would_have_fitted(calls):
    ledger = Ledger(Budget(tokens=2000, calls=None), reserve_for_last_call=Usage(1, 100))
    most = []

    async def call(read: int, written: int, share: float, fails: bool) -> None:
        try:
            async with ledger.reserve(Usage(1, read, 0, written)) as entry:
                most.append(2000 - (ledger.remaining()["tokens"] or 0))
                await asyncio.sleep(0)
                entry.book(Usage(1, int(read * share), 0, int(written * share)))
                if fails:
                    raise ValueError
        except BudgetRefused:
            assert ledger.spent.tokens + read + written > 1900
        except ValueError:
            pass

    async def together() -> None:
        await asyncio.gather(*(call(*one) for one in calls))

    asyncio.run(together())
    assert ledger.spent.tokens <= max(most, default=0) <= 1900
