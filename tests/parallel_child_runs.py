"""Measures how well child runs share the models: wall time against the ideal for the concurrency.

python -m tests.parallel_child_runs --children 64 --calls 8 --concurrency 32 --sandbox monty --way ainvoke

The server runs in a separate process and takes 50 ms for each call, root turns included. The ideal is the time of
the calls alone at this concurrency, or of the longest chain of calls if that is longer.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import time
from typing import Any

from rlm_langchain import Budget, create_rlm
from tests.servers.endings import chat
from tests.servers.openai import Message
from tests.servers.scripted import serve

LATENCY = 0.05


def scripted_reply(messages: list[Message]) -> str:
    """Return the reply of the root, which starts the child runs in its question, or of one of these."""
    if messages[0]["role"] != "system":
        return "a short reply"
    words = next(line for line in messages[1]["content"].splitlines() if line.startswith(("ROOT", "KID"))).split()
    if words[0] == "ROOT":
        kids = f"[f'KID {{i}} {words[2]} {words[3]}' for i in range({words[1]})]"
        return f"```repl\nFINAL(len([x for x in rlm_query_batched({kids}) if x]))\n```"
    prompts = f"[f'{words[1]} {{i}} what is this?' for i in range({words[2]})]"
    asked = f"llm_query_batched({prompts})" if words[3] == "batch" else f"[llm_query(p) for p in {prompts}]"
    return f"```repl\nFINAL(len({asked}))\n```"


def main() -> None:
    """Run once to warm up, then measure."""
    options = argparse.ArgumentParser(prog="python -m tests.parallel_child_runs")
    options.add_argument("--children", type=int, default=64)
    options.add_argument("--calls", type=int, default=8, help="leaf calls of each child")
    options.add_argument("--one-by-one", action="store_true", help="not as a batch")
    options.add_argument("--concurrency", type=int, default=32)
    options.add_argument("--sandbox", default="auto")
    options.add_argument("--way", choices=["invoke", "ainvoke"], default="ainvoke")
    options.add_argument("--serve", action="store_true")
    given = options.parse_args()
    if given.serve:
        with serve(scripted_reply, latency=LATENCY) as server:
            print(server.url, flush=True)
            sys.stdin.read()
        return
    command = [sys.executable, "-m", "tests.parallel_child_runs", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        measure(given, process.stdout.readline().strip())
        process.stdin.close()


def measure(given: argparse.Namespace, url: str) -> None:
    way = "one" if given.one_by_one else "batch"
    rlm = create_rlm(
        chat(url), sandbox=given.sandbox, budget=Budget(depth=2, concurrency=given.concurrency, calls=None)
    )

    def ask(children: int) -> Any:
        question = f"ROOT {children} {given.calls} {way}"
        return rlm.invoke(question) if given.way == "invoke" else asyncio.run(rlm.ainvoke(question))

    ask(2)
    started, cpu = time.perf_counter(), time.process_time()
    output = ask(given.children)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert output["answer"] == given.children
    chain = 2 + (given.calls if given.one_by_one else 1)
    ideal = LATENCY * max(chain, 1 + output["sub_calls"] / given.concurrency)
    print(f"{given.sandbox} {given.way}, {output['sub_calls'] + 1} calls, {given.concurrency} at once: ", end="")
    print(f"{seconds:.2f} s, ideal {ideal:.2f} s, ratio {seconds / ideal:.2f}; CPU {cpu:.2f} s here, ", end="")
    print(f"{workers.ru_utime + workers.ru_stime:.2f} s in workers")


if __name__ == "__main__":
    main()
