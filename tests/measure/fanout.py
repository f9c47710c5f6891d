"""Measures a wide fan-out over HTTP: `ainvoke` and `invoke` against a bare `asyncio.gather` over the same model.

    python -m tests.measure.fanout --calls 1000 --concurrency 64 --latency 0.05 --rounds 3
    python -m tests.measure.fanout --rlms VENV/bin/python       # that Python has the package `rlms`

All ways are taken in turn, in each round, against one server; ratios are of medians over the rounds. The client's
CPU is what bounds this work, and on a busy machine the seconds of computing say more than those of the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rlm_langchain import Budget, create_rlm
from rlm_langchain.models.http.pool import keep_pool_open
from rlm_langchain.models.registry import resolve
from tests.measure.servers import scripted, told

NAME = "openai:scripted"


class Took(NamedTuple):
    """Seconds."""

    clock: float
    computing: float
    """Of this process, its sandbox not included."""


Way = Callable[[int], Took]
"""Makes so many calls."""

RLMS = """
import sys, time
from rlm import RLM
rlm = RLM(backend="openai", backend_kwargs={"model_name": "m", "base_url": sys.argv[1], "api_key": "k"})
clock, computing = time.perf_counter(), time.process_time()
answer = rlm.completion("a context", "a question").response
took = time.perf_counter() - clock, time.process_time() - computing
assert answer == sys.argv[2], answer
print(*took)
"""
"""The same work by the reference implementation, which has 16 calls in flight unless its code says otherwise."""


def main() -> None:
    """Run each way once to warm up, then measure."""
    given = _options()
    asked = f"llm_query_batched([f'what is in part {{i}}?' for i in range({given.calls})])"
    count = f"str(sum(reply is not None for reply in {asked}))"
    with scripted(f"answer = {{'content': {count}, 'ready': True}}", latency=given.latency) as url:
        os.environ.update(OPENAI_BASE_URL=url, OPENAI_API_KEY="k")
        ways = _ways(given, url)
        for way in ways.values():
            way(given.calls)
        rounds = [{name: way(given.calls) for name, way in ways.items()} for _ in range(given.rounds)]
        report(given, rounds, told(url, "stats"))


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=1000)
    options.add_argument("--concurrency", type=int, default=64)
    options.add_argument("--latency", type=float, default=0.05, help="seconds before each reply")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--sandbox", default="auto")
    options.add_argument("--rlms", help="a Python that has the package rlms")
    return options.parse_args()


def _ways(given: argparse.Namespace, url: str) -> dict[str, Way]:
    budget = Budget(concurrency=given.concurrency, calls=None)
    rlm = create_rlm(NAME, sandbox=given.sandbox, budget=budget)
    ways: dict[str, Way] = {
        "gather": lambda calls: asyncio.run(gathered(calls, given.concurrency)),
        "ainvoke": lambda calls: timed(calls, lambda: asyncio.run(rlm.ainvoke("q"))),
        "invoke": lambda calls: timed(calls, lambda: rlm.invoke("q")),
    }
    return {**ways, "rlms": lambda calls: reference(given.rlms, url, calls)} if given.rlms else ways


async def gathered(calls: int, width: int) -> Took:
    """The calls alone, so many at once."""
    chat, room = resolve(NAME, "sub").chat, asyncio.Semaphore(width)

    async def ask(number: int) -> None:
        async with room:
            await chat.ainvoke(f"what is in part {number}?")

    async with keep_pool_open():
        clock, computing = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(ask, range(calls)))
        return Took(time.perf_counter() - clock, time.process_time() - computing)


def timed(calls: int, run: Callable[[], Any]) -> Took:
    """A whole run, its root turn and its sandbox included."""
    clock, computing = time.perf_counter(), time.process_time()
    output = run()
    took = Took(time.perf_counter() - clock, time.process_time() - computing)
    if output["answer"] != str(calls):
        raise SystemExit(f"{output['answer']!r} came back, not {calls}")
    return took


def reference(python: str, url: str, calls: int) -> Took:
    """A run of `rlms`, without its import."""
    done = subprocess.run([python, "-c", RLMS, url, str(calls)], capture_output=True, text=True, check=True)
    return Took(*map(float, done.stdout.split()))


def report(given: argparse.Namespace, rounds: list[dict[str, Took]], stats: dict[str, Any]) -> None:
    """The seconds, and what they are to those of the bare gather."""
    print(f"{given.calls} calls of {given.latency * 1000:g} ms, {given.concurrency} at once, {len(rounds)} rounds")
    for field in Took._fields:
        medians = {name: statistics.median(getattr(each[name], field) for each in rounds) for name in rounds[0]}
        print(f"{field}:")
        for name, seconds in medians.items():
            taken = " ".join(f"{getattr(each[name], field):.2f}" for each in rounds)
            print(f"  {name:8} {seconds:6.2f} s   {seconds / medians['gather']:5.2f} x gather   ({taken})")
        if "rlms" in medians:
            print(f"  ainvoke takes {medians['ainvoke'] / medians['rlms']:.2f} of what rlms takes")
    print(f"most requests in flight at the server: {stats['peak']}")


if __name__ == "__main__":
    main()
