"""A run is killed, at every checkpoint and at any moment, and goes on: to the same answer, paying nothing twice.

`RLM_KILLS` is how often each way of dying is tried; with 100 or more, every checkpoint is one to die at.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.durable.arena import Arena, Survived, arena, story
from tests.durable.limit import check_limit, lost_in
from tests.durable.play import WIDE, query

KILLS = int(os.environ.get("RLM_KILLS", "4"))
CONCURRENCY = 32
MODES = ("sync", "async")


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """One server, and one nursery, for all of them."""
    with arena(tmp_path_factory.mktemp("durable")) as opened:
        yield opened


@pytest.fixture(scope="module")
def whole(field: Arena) -> dict[int, dict[str, Any]]:
    """What runs say that nobody kills, by their width."""
    return {wide: field.whole(field.program(query=query(wide))) for wide in (10, WIDE)}


def check(done: Survived, whole: dict[str, Any]) -> None:
    """It came to the same end by the same way at the same cost, and nothing was paid twice."""
    output, expected = done.result["output"], whole["output"]
    assert output["answer"] == expected["answer"]
    assert story(output) == story(expected)
    lost = lost_in(output["trajectory"])
    for part in ("root", "sub"):
        assert output["usage"][part]["calls"] == expected["usage"][part]["calls"] + lost[part]
        assert lost[part] or output["usage"][part] == expected["usage"][part]
    assert sum(lost.values()) <= CONCURRENCY * (len(done.asked) - 1)
    assert not done.paid_twice
    assert set(done.states) <= {"stopped", "complete", "none"}
    assert done.states[-1] != "none" or done.result["anew"]
    assert done.states[-1] == "none" or not done.result["anew"]
    assert max(done.in_flight) <= CONCURRENCY


def test_what_was_billed_is_what_the_output_says(field, whole):
    before = dict(field.server.tokens)
    output = field.whole(field.program())["output"]
    billed = {name: count - before[name] for name, count in field.server.tokens.items()}
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
def test_killed_at_a_write_it_goes_on(field, whole, chance, mode, before, what):
    expected = whole[10]
    for at in boundaries(expected["puts" if what == "put" else "writes"], chance):
        check(field.survive(field.program(mode=mode, kill_before=before, kill_what=what), at), expected)


def test_killed_before_its_first_node_has_ended_it_is_resumed(field, whole):
    """Up to then the state has no record of the run: only its checkpoint knows that it was begun."""
    for at in (1, 2):
        done = field.survive(field.program(kill_what="put_writes"), at)
        check(done, whole[10])
        assert done.states == ["stopped"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wide", [10, WIDE])
def test_killed_at_any_moment_it_goes_on(field, whole, chance, mode, wide):
    for _ in range(KILLS if wide == 10 else -(-KILLS // 4)):
        at = chance.uniform(0, whole[wide]["seconds"])
        check(field.survive(field.program(mode=mode, query=query(wide)), at), whole[wide])


@pytest.mark.parametrize("mode", MODES)
def test_killed_again_and_again_it_goes_on(field, whole, chance, mode):
    for _ in range(-(-KILLS // 4)):
        deaths = [chance.uniform(0, whole[10]["seconds"] / 2) for _ in range(4)]
        check(field.survive(field.program(mode=mode), *deaths), whole[10])


def test_killed_with_calls_in_flight_it_never_sends_more_than_the_limit(tmp_path, chance):
    with arena(tmp_path, latency=0.05) as slow:
        check_limit(slow, chance, KILLS)
