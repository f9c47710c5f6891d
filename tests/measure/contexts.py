"""Measures what a long context costs: the time to the first root call, the prompt, what is kept, the memory.

    python -m tests.measure.contexts                    # a text of 40 MB, as a string, and a file of 1 GB
    python -m tests.measure.contexts --megabytes 400 --file-megabytes 4000

Every run is a process of its own, with a folder of its own for what the library keeps, and `openai:` models at a
server on loopback. A word that occurs once in the middle of the text is looked for in everything that is left.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.measure.servers import scripted, told

CANARY = "zebra-quartz-7731"
LINE = "{:09d} the quick brown fox jumps over the lazy dog, and nobody asks why it does so\n"
CODE = """\
import re
middle = len(context) // 2
print(len(context), len(context[middle:middle + 80]), 'quartz' in context, context.find('zebra'))
print(re.search(r'z[a-z]+-q[a-z]+', context).start(), sum(1 for _ in zip(context, range(1000))))"""


def main() -> None:
    """A short text, a long one, and a file; then what they differ in."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=float, default=40, help="of the long text")
    options.add_argument("--file-megabytes", type=float, default=1000)
    options.add_argument("--sandbox", default="auto")
    options.add_argument("--one", choices=["text", "file"], help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        print(json.dumps(one(given)))
        return
    short = measured("text", 0.1, given.sandbox)
    long = measured("text", given.megabytes, given.sandbox)
    for name, told_of in (("0.1 MB of text", short), (f"{given.megabytes:g} MB of text", long)):
        report(name, told_of)
    pairs = zip(short["prompts"], long["prompts"], strict=True)
    print(f"  root prompts, against those of the short text: {max(abs(b / a - 1) for a, b in pairs):.2%} apart")
    report(f"a file of {given.file_megabytes:g} MB", measured("file", given.file_megabytes, given.sandbox))


def measured(what: str, megabytes: float, sandbox: str) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="rlm-measure-") as home, scripted(CODE, "FINAL(len(context))") as url:
        env = {**os.environ, "RLM_HOME": home, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "k", "TMPDIR": home}
        command = [sys.executable, "-m", "tests.measure.contexts", "--one", what, "--sandbox", sandbox]
        size = ["--megabytes", str(megabytes)]
        done = subprocess.run([*command, *size], env=env, stdout=subprocess.PIPE, text=True, check=True)
        asked = [request["body"]["messages"] for request in told(url, "requests")][2:]  # without the warm-up's
        words: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        shown = [message["content"] for message in asked[-1] if message["role"] == "user"][-1]
        return {**words, "in prompts": CANARY in json.dumps(asked), "shown": shown}


def one(given: argparse.Namespace) -> dict[str, Any]:
    """Ask about a text of this size, and look at what is left of it."""
    home = Path(os.environ["RLM_HOME"])
    path = home / "given.txt"
    write(path, given.megabytes)
    context = path if given.one == "file" else path.read_text()
    logging.basicConfig(filename=home / "log.txt", level=logging.DEBUG)
    ask("a short text", home, "warm-up", [])  # what it takes to import is not measured
    watched: list[str] = []
    seconds, output = ask(context, home, "measured", watched)
    kept = {
        "checkpoints": home / "checkpoints.db",
        "log": home / "log.txt",
        "trace": home / "trace.jsonl",
        "callbacks": home / "callbacks.txt",
    }
    kept["trace"].write_text("\n".join(map(json.dumps, output["trajectory"])))
    kept["callbacks"].write_text("\n".join(watched))
    usage = [record["usage"]["input"] for record in output["trajectory"] if record["type"] == "turn"]
    return {
        "answer": output["answer"],
        "characters": given.megabytes * 1e6,
        "first call": seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "prompts": usage,
        "bytes": {name: file.stat().st_size for name, file in kept.items()},
        "found": [name for name, file in kept.items() if CANARY.encode() in file.read_bytes()],
    }


def write(path: Path, megabytes: float) -> None:
    """Lines that are all different, with the canary in the middle."""
    count = int(megabytes * 1e6) // len(LINE.format(0))
    with path.open("w") as file:
        for number in range(count):
            file.write(LINE.format(number) if number != count // 2 else f"{CANARY}\n")


def ask(context: Any, home: Path, thread: str, watched: list[str]) -> tuple[Sequence[float], Any]:
    """The seconds until the root model is first asked, by the clock and of computing, and the output."""
    from langchain_core.callbacks import BaseCallbackHandler
    from langgraph.checkpoint.sqlite import SqliteSaver

    from rlm_langchain import create_rlm

    begun, first = (time.perf_counter(), time.process_time()), []

    class Watch(BaseCallbackHandler):
        def on_chat_model_start(self, *given: Any, **more: Any) -> None:
            first.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
            watched.append(repr((given, more)))

        def on_chain_start(self, *given: Any, **more: Any) -> None:
            watched.append(repr((given, more)))

        def on_chain_end(self, *given: Any, **more: Any) -> None:
            watched.append(repr((given, more)))

        def on_llm_end(self, *given: Any, **more: Any) -> None:
            watched.append(repr((given, more)))

    with SqliteSaver.from_conn_string(str(home / "checkpoints.db")) as saver:
        rlm = create_rlm("openai:scripted", checkpointer=saver)
        config: Any = {"configurable": {"thread_id": thread}, "callbacks": [Watch()]}
        output = rlm.invoke({"query": "How long is it?", "context": context}, config)
    return first[0], output


def report(name: str, told_of: dict[str, Any]) -> None:
    """One run for the eye."""
    found = [*told_of["found"], *(["prompts"] if told_of["in prompts"] else [])]
    kept = ", ".join(f"{what} {size / 1024:.0f} KB" for what, size in told_of["bytes"].items())
    clock, computing = told_of["first call"]
    print(f"{name}: first root call after {clock:.2f} s ({computing:.2f} s of computing), ", end="")
    print(f"{told_of['memory']:.0f} MB in the host's process")
    print(f"  the answer is {told_of['answer']:,}; root prompts of {told_of['prompts']} tokens")
    print(f"  kept: {kept}; the canary is in {', '.join(found) or 'none of them, nor in a prompt'}")
    print(f"  shown: {told_of['shown']!r}")


if __name__ == "__main__":
    main()
