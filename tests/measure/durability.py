"""What durability costs: a fan-out of many slow calls, with SQLite and without, one beside the other.

    python -m tests.measure.durability --calls 1000 --latency 0.05 --rounds 5

asks a scripted server in a process of its own, over HTTP, and prints the seconds of each run, and by how much the
median of those with a saver is longer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from rlm_langchain import Budget, create_rlm

CODE = "FINAL(len(set(llm_query_batched([f'item {{i}}' for i in range({calls})]))))"


class Took(NamedTuple):
    """What a run took: a loaded machine stretches the one, and hardly the other."""

    seconds: float
    cpu: float


Run = Callable[[argparse.Namespace, Path], Took]


@contextmanager
def server(options: argparse.Namespace) -> Iterator[str]:
    """The models, in another process."""
    code = CODE.format(calls=options.calls)
    command = [sys.executable, "-m", "tests.servers.scripted", "--script", "rlm", "--code", code]
    command += ["--latency", str(options.latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def rlm(options: argparse.Namespace, saver: Any, home: Path) -> Any:
    budget = Budget(calls=None, concurrency=options.width)
    return create_rlm("openai:scripted", budget=budget, checkpointer=saver, home=home, sandbox="monty")


def config(home: Path) -> Any:
    return {"configurable": {"thread_id": home.name}}


def now() -> Took:
    return Took(time.perf_counter(), time.process_time())


def timed(options: argparse.Namespace, output: Any, begun: Took) -> Took:
    ended = now()
    assert output["answer"] == options.calls, output["answer"]
    return Took(ended.seconds - begun.seconds, ended.cpu - begun.cpu)


async def arun(options: argparse.Namespace, home: Path, *, durable: bool) -> Took:
    if not durable:
        components = rlm(options, None, home)
        begun = now()
        return timed(options, await components.ainvoke("q"), begun)
    async with AsyncSqliteSaver.from_conn_string(str(home / "threads.sqlite")) as saver:
        components = rlm(options, saver, home)
        begun = now()
        return timed(options, await components.ainvoke("q", config(home)), begun)


def run(options: argparse.Namespace, home: Path, *, durable: bool) -> Took:
    if not durable:
        components = rlm(options, None, home)
        begun = now()
        return timed(options, components.invoke("q"), begun)
    with SqliteSaver.from_conn_string(str(home / "threads.sqlite")) as saver:
        components = rlm(options, saver, home)
        begun = now()
        return timed(options, components.invoke("q", config(home)), begun)


WAYS: dict[str, Run] = {
    "ainvoke": lambda options, home: asyncio.run(arun(options, home, durable=False)),
    "ainvoke, SQLite": lambda options, home: asyncio.run(arun(options, home, durable=True)),
    "invoke": lambda options, home: run(options, home, durable=False),
    "invoke, SQLite": lambda options, home: run(options, home, durable=True),
}


def main() -> None:
    """Measure, the ways in turn, and say it."""
    options = argparse.ArgumentParser(prog="python -m tests.measure.durability")
    options.add_argument("--calls", type=int, default=1000)
    options.add_argument("--latency", type=float, default=0.05)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--ways", default=",".join(WAYS).replace(", ", "+"))
    given = options.parse_args()
    ways = [way.replace("+", ", ") for way in given.ways.split(",")]
    all_took: dict[str, list[Took]] = {way: [] for way in ways}
    with server(given) as url, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
        for number in range(-1, given.rounds):
            for way in ways:
                home = Path(folder, f"{len(list(Path(folder).iterdir()))}")
                home.mkdir()
                took = WAYS[way](given, home)
                if number >= 0:  # the first round imports, and connects
                    all_took[way].append(took)
    for way, took in all_took.items():
        told = " ".join(f"{one.seconds:.2f}" for one in took)
        cpu = statistics.median(one.cpu for one in took)
        median = statistics.median(one.seconds for one in took)
        print(f"{way:16} median {median:.2f} s, {cpu:.2f} s of CPU   ({told})")
    for way in ("ainvoke", "invoke"):
        if way in all_took and f"{way}, SQLite" in all_took:
            plain, durable = all_took[way], all_took[f"{way}, SQLite"]
            more = [_more([one[i] for one in plain], [one[i] for one in durable]) for i in (0, 1)]
            print(f"{way}: SQLite costs {more[0]:+.1%} of wall time, {more[1]:+.1%} of CPU (medians)")


def _more(plain: list[float], durable: list[float]) -> float:
    return statistics.median(durable) / statistics.median(plain) - 1


if __name__ == "__main__":
    main()
