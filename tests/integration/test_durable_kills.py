"""A run is killed, at every checkpoint and at any moment, and goes on: to the same answer, paying nothing twice.

`RLM_KILLS` is how often each way of dying is tried; with 100 or more, every checkpoint is one to die at.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.durable.crash_harness import CrashHarness, CrashResult, crash_harness, story
from tests.durable.limit import check_limit, check_usage
from tests.durable.scripted_run import WIDE, query

KILLS = int(os.environ.get("RLM_KILLS", "4"))
CONCURRENCY = 32
MODES = ("sync", "async")


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHarness]:
    """One model server and one fork server for all tests."""
    with crash_harness(tmp_path_factory.mktemp("durable")) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(harness: CrashHarness) -> dict[int, dict[str, Any]]:
    """What runs say that nobody kills, by their width."""
    return {wide: harness.run_undisturbed(harness.program(query=query(wide))) for wide in (10, WIDE)}


def check(done: CrashResult, undisturbed: dict[str, Any]) -> None:
    """It came to the same end by the same way at the same cost, and nothing was paid twice."""
    output, expected = done.result["output"], undisturbed["output"]
    assert output["answer"] == expected["answer"]
    assert story(output) == story(expected)
    check_usage(output, expected, CONCURRENCY * (len(done.asked) - 1))
    assert not done.paid_twice
    assert set(done.states) <= {"stopped", "complete", "none"}
    assert done.states[-1] != "none" or done.result["anew"]
    assert done.states[-1] == "none" or not done.result["anew"]
    assert max(done.in_flight) <= CONCURRENCY


def test_the_output_has_the_billed_tokens(harness, undisturbed):
    before = dict(harness.server.tokens)
    output = harness.run_undisturbed(harness.program())["output"]
    billed = {name: count - before[name] for name, count in harness.server.tokens.items()}
    usage = output["usage"]
    for name in ("input", "output"):
        assert usage["root"][name] + usage["sub"][name] == billed[name]


@pytest.fixture
def chance() -> random.Random:
    """What is drawn, and from which seed: a test that fails says it."""
    seed = os.environ.get("RLM_SEED") or str(random.randrange(10**6))
    print(f"RLM_SEED={seed}")
    return random.Random(seed)


def boundaries(puts: int, chance: random.Random) -> list[int]:
    every = range(1, puts + 1)
    return list(every) if KILLS >= 100 else sorted(chance.sample(every, KILLS // 2))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("what", ["put", "put_writes"])
def test_a_run_killed_at_a_write_is_resumed(harness, undisturbed, chance, mode, before, what):
    expected = undisturbed[10]
    for at in boundaries(expected["puts" if what == "put" else "writes"], chance):
        check(harness.run_with_kills(harness.program(mode=mode, kill_before=before, kill_what=what), at), expected)


def test_a_run_killed_before_the_end_of_its_first_node_is_resumed(harness, undisturbed):
    """Up to then the state has no record of the run: only its checkpoint knows that it was begun."""
    for at in (1, 2):
        done = harness.run_with_kills(harness.program(kill_what="put_writes"), at)
        check(done, undisturbed[10])
        assert done.states == ["stopped"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wide", [10, WIDE])
def test_a_run_killed_at_any_moment_is_resumed(harness, undisturbed, chance, mode, wide):
    for _ in range(KILLS if wide == 10 else -(-KILLS // 4)):
        at = chance.uniform(0, undisturbed[wide]["seconds"])
        check(harness.run_with_kills(harness.program(mode=mode, query=query(wide)), at), undisturbed[wide])


@pytest.mark.parametrize("mode", MODES)
def test_a_run_killed_again_and_again_is_resumed(harness, undisturbed, chance, mode):
    for _ in range(-(-KILLS // 4)):
        deaths = [chance.uniform(0, undisturbed[10]["seconds"] / 2) for _ in range(4)]
        check(harness.run_with_kills(harness.program(mode=mode), *deaths), undisturbed[10])


def test_a_run_killed_with_calls_in_flight_never_sends_more_than_the_limit(tmp_path, chance):
    with crash_harness(tmp_path, latency=0.05) as slow:
        check_limit(slow, chance, KILLS)
