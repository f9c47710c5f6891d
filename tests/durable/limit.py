"""Runs that are killed with calls in flight, whose limit is smaller than what they want to ask."""

from __future__ import annotations

import random
from typing import Any

from tests.durable.crash_harness import AtRequest, CrashHarness
from tests.durable.scripted_run import query

BUDGET = {"calls": 12, "concurrency": 8, "depth": 1}


def check_limit(harness: CrashHarness, chance: random.Random, plans: int, **options: Any) -> None:
    """Kill runs twice each, at random requests: the server never sees more requests than the budget allows.

    A request is on disk before it leaves. One whose reply never came counts after a resume, as an estimate.
    """
    died = 0
    asked = {"query": query(40, "SCARCE"), "budget": BUDGET, **options}
    for _ in range(plans):
        since = len(harness.asked())
        program = harness.program(**asked, mode=chance.choice(["sync", "async"]), thread=f"scarce {harness.runs}")
        done = harness.run_with_kills(program, *(AtRequest(chance.randint(1, 9)) for _ in range(2)))
        output, sent = done.result["output"], len(harness.asked(since))
        usage = output["usage"]
        lost = lost_in(output["trajectory"])
        died += sum(lost.values())
        assert sent <= BUDGET["calls"]
        assert sent <= usage["root"]["calls"] + usage["sub"]["calls"] <= BUDGET["calls"], "all of them are booked"
        for part, count in lost.items():
            assert usage[part]["estimated"] or not count
        assert output["stop_reason"] == "calls"
        assert not done.paid_twice
    assert died, "no kill came while a call was in flight"


def lost_in(records: list[Any]) -> dict[str, int]:
    """How many requests had no reply: of the root's turns, and of all calls below."""
    lost = {"root": 0, "sub": 0}
    for record in records:
        if record["type"] == "call" and "child" in record:
            lost["sub"] += sum(lost_in(record["child"]).values())
        lost["sub" if record["type"] == "call" else "root"] += record.get("lost", 0)
    return lost


def check_usage(output: dict[str, Any], undisturbed: dict[str, Any], most: int) -> None:
    """A run used what one used that nobody killed, and no more than `most` requests that had no reply."""
    lost = lost_in(output["trajectory"])
    assert sum(lost.values()) <= most
    for part, count in lost.items():
        assert output["usage"][part]["calls"] == undisturbed["usage"][part]["calls"] + count
        assert count or output["usage"][part] == undisturbed["usage"][part]
