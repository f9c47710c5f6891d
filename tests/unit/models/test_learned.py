"""What a run learns about its models: how far they exceed what was reserved for them."""

import asyncio

import pytest

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.ledger import Ledger
from rlm_langchain.models.learned import Learned, Overrun
from rlm_langchain.types import Usage

ONE = Usage(calls=1, input=100, output=50, cost=0.01)


def test_a_model_that_goes_beyond_its_reservation_has_a_larger_one_the_next_time():
    learned = Learned()
    learned.add_usage("m", Usage(calls=1, input=90, output=40, cost=0.005), 100, ONE, 0.01)
    assert learned.of("m").overrun == Overrun(), "it stayed within"
    learned.add_usage("m", Usage(calls=1, input=150, output=5000, cost=0.6), 100, ONE, 0.3)
    learned.add_usage("m", Usage(calls=1, input=100, output=300, cost=0.1), 100, ONE, 0.1)
    found = learned.of("m").overrun
    assert found.tokens(ONE)[:4] == (1, 150, 0, 5000)
    assert found.dollars(0.2) == pytest.approx(0.4)
    assert learned.of("another").overrun == Overrun()


async def test_calls_in_flight_at_once_that_go_beyond_their_reservations_do_not_add_up():
    """64 calls, each 50 tokens over, show 50 tokens, in waves too: the second wave has reserved them."""
    ledger, learned = Ledger(Budget(concurrency=64)), Learned()
    most = [0]

    async def wave(read: int) -> None:
        sent = asyncio.Event()

        async def call() -> None:
            async with ledger.reserve(ONE, estimate=lambda: learned.of("m").overrun.tokens(ONE)) as entry:
                assert entry.begin()
                await sent.wait()
                used = Usage(calls=1, input=read, output=10, cost=0.0)
                learned.add_usage("m", used, ONE.input, entry.wanted, 0.0)
                entry.book(used)
                most.append(learned.of("m").overrun.input)

        calls = [asyncio.create_task(call()) for _ in range(64)]
        await asyncio.sleep(0)
        sent.set()
        await asyncio.gather(*calls)

    await wave(ONE.input + 50)
    assert max(most) == 50
    await wave(ONE.input + 50)
    assert max(most) == 50
    await wave(ONE.input + 70)
    assert max(most) == 70, "beyond what was reserved since"
