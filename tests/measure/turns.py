"""Measures what the machine itself takes: a run of four turns whose model replies at once, after the import.

python -m tests.measure.turns --rounds 5 --sandbox cpython

Each round is a process of its own: its first run builds everything and opens the first sandbox, its second one
finds it built.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from rlm_langchain import create_rlm
from rlm_langchain.testing.models import script

CELLS = ("x = 1", "x += 1", "print(x)", "FINAL(x)")


def main() -> None:
    """So many processes, and the medians."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--sandbox", default="auto")
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        print(json.dumps(one(given.sandbox)))
        return
    command = [sys.executable, "-m", "tests.measure.turns", "--one", "--sandbox", given.sandbox]
    rounds = [json.loads(subprocess.check_output(command)) for _ in range(given.rounds)]
    print(f"four turns, {given.sandbox}, {given.rounds} processes; medians of seconds")
    for number, name in enumerate(("first run", "second run")):
        clock, here, sandbox = (statistics.median(r[number][field] for r in rounds) for field in range(3))
        print(f"  {name:11} {clock:.2f} by the clock; computing {here:.2f} here, {sandbox:.2f} in sandboxes")


def one(sandbox: str) -> list[tuple[float, float, float]]:
    """Two runs: seconds by the clock, of computing here, of computing in sandboxes."""
    return [run(sandbox) for _ in range(2)]


def run(sandbox: str) -> tuple[float, float, float]:
    before = taken()
    output = create_rlm(script(*CELLS), sandbox=sandbox).invoke({"query": "How much is it?", "context": "a text"})
    clock, here, below = (after - then for after, then in zip(taken(), before, strict=True))
    if (output["answer"], output["iterations"]) != (2, 4):
        raise SystemExit(f"{output['answer']!r} after {output['iterations']} turns")
    return clock, here, below


def taken() -> tuple[float, float, float]:
    """Seconds until now."""
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time(), below.ru_utime + below.ru_stime


if __name__ == "__main__":
    main()
