"""Whole runs under a simulated clock, disk and death: 500 seeds, or as many as `RLM_SIMULATIONS` says.

A seed that fails is printed, and shown again by `python -m tests.durable.simulation SEED`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from tests.durable.postgres import postgres, tool
from tests.durable.simulation import MOST_CALLS, bench, failures

SIMULATIONS = int(os.environ.get("RLM_SIMULATIONS", "500"))
PLANS = int(os.environ.get("RLM_PLANS", "200"))
"""Ways of dying twice, half of them with each database."""
SEEN = {"killed", "killed with requests in flight", "ended with lost requests", "another process was refused"}
SEEN |= {f"ended: {reason}" for reason in ("answer", "calls", "tokens", "usd")}
"""What a simulation is about: without it, nothing was shown."""


def test_whatever_kills_a_run_its_books_are_right_and_its_answer_is_the_same() -> None:
    wrong, said = failures(range(SIMULATIONS))
    assert not wrong, "each is shown by `python -m tests.durable.simulation SEED`"
    assert set(said) >= SEEN or SIMULATIONS < 500


def test_a_seed_says_all_that_happens() -> None:
    logs = []
    for _ in range(2):
        with bench() as at:
            at.simulate(23)
            logs.append(at.machine.log)
    assert logs[0] == logs[1]
    assert "killed" in logs[0]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
        return
    if not (tool("initdb") and tool("pg_ctl")) and not os.environ.get("CI"):
        pytest.skip("there is no Postgres on this machine: apt-get install postgresql")
    with postgres() as address:
        with PostgresSaver.from_conn_string(address) as saver:
            saver.setup()
        yield address


def test_killed_twice_with_calls_in_flight_it_never_sends_more_than_the_limit(database: str) -> None:
    """`Budget(calls=12, concurrency=8)`: the provider sees 12 requests at most."""
    sent, lost = Counter[int](), 0
    with bench(database) as at:
        for plan in range(PLANS // 2):
            world = at.kill_twice(plan)
            sent[len(world.requests)] += 1
            lost += world.said["ended with lost requests"]
            assert len(world.requests) <= MOST_CALLS, f"plan {plan}"
    print(f"requests in {PLANS // 2} runs: {dict(sorted(sent.items()))}; {lost} of them had lost some")
    assert lost > PLANS // 8
    if database:
        with psycopg.connect(database) as connection:
            held = connection.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone()
        assert held == (0,), "a thread is still locked"
