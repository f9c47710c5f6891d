"""The account: what is reserved and spent together never passes a limit."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_langchain.ledger import Ledger, Refused
from rlm_langchain.types import Budget, Usage

ONE = Usage(calls=1, input=100, output=50, cost=0.01)


def test_what_was_reserved_and_not_used_comes_back():
    ledger = Ledger(Budget(tokens=1000))
    with ledger.reserve(ONE) as entry:
        assert ledger.left()["tokens"] == 850
        entry.used = Usage(calls=1, input=10, output=5, cost=0.001)
    assert ledger.left()["tokens"] == 985
    assert ledger.spent == Usage(calls=1, input=10, output=5, cost=0.001)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_an_error_or_a_cancel_settles_too(error):
    ledger = Ledger(Budget(calls=10))
    with pytest.raises(error), ledger.reserve(ONE):
        raise error
    assert ledger.left()["calls"] == 10


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(calls=3), "calls"),
        (Budget(tokens=450), "tokens"),
        (Budget(usd=0.03), "usd"),
    ],
)
def test_a_spent_limit_refuses_by_name_and_what_is_held_back_still_fits(budget, reason):
    ledger = Ledger(budget, held=ONE)
    for _ in range(2):
        with ledger.reserve(ONE) as entry:
            entry.used = ONE
    with pytest.raises(Refused) as refusal, ledger.reserve(ONE):
        pass
    assert refusal.value.reason == reason
    assert ledger.stop(ONE) == reason
    with ledger.reserve(ONE, last=True) as entry:
        entry.used = ONE
    with pytest.raises(Refused), ledger.reserve(ONE, last=True):
        pass


def test_no_more_than_half_of_a_limit_is_held_back():
    ledger = Ledger(Budget(tokens=400), held=Usage(calls=1, input=10_000))
    with ledger.reserve(ONE) as entry:
        entry.used = ONE
    with pytest.raises(Refused), ledger.reserve(ONE):
        pass


def test_time_runs_over_all_processes_of_a_run():
    now = [0.0]
    ledger = Ledger(Budget(seconds=100), elapsed=80, clock=lambda: now[0])
    assert ledger.seconds_left() == pytest.approx(10)
    assert ledger.seconds_left(last=True) == pytest.approx(20)
    now[0] = 10.0
    assert ledger.stop(ONE) == "seconds"
    with ledger.reserve(ONE, last=True):
        now[0] = 20.0
    with pytest.raises(Refused), ledger.reserve(ONE, last=True):
        pass


def test_less_than_a_quarter_is_scarce():
    ledger = Ledger(Budget(calls=8, tokens=None))
    ledger.book(Usage(calls=6))
    assert ledger.scarce() == {}
    ledger.book(Usage(calls=1))
    assert ledger.scarce() == {"calls": 1}


def test_an_unknown_price_makes_the_cost_unknown():
    ledger = Ledger(Budget())
    ledger.book(Usage(calls=1, cost=0.5))
    ledger.book(Usage(calls=1, cost=None))
    assert ledger.spent.cost is None


def test_threads_together_never_pass_a_limit():
    ledger = Ledger(Budget(calls=51))
    admitted = []

    def work(_: int) -> None:
        try:
            with ledger.reserve(Usage(calls=1)) as entry:
                entry.used = Usage(calls=1)
                admitted.append(1)
        except Refused:
            pass

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(200)))
    assert len(admitted) == ledger.spent.calls == 50


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 400), st.floats(0, 1)), max_size=40))
def test_no_sequence_of_calls_passes_the_tokens(calls):
    ledger = Ledger(Budget(tokens=2000, calls=None))
    for read, written, share in calls:
        try:
            with ledger.reserve(Usage(1, read, 0, written)) as entry:
                entry.used = Usage(1, int(read * share), 0, int(written * share))
        except Refused:
            assert ledger.stop(Usage(1, read, 0, written)) == "tokens"
    assert ledger.spent.tokens <= 2000
