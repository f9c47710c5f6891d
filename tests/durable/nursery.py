"""Where processes are born: one that has imported everything, and forks for each program.

To import takes seconds, and a run takes one. A child shares nothing with its siblings but what was imported, and
leads a process group of its own.

    python -m tests.durable.nursery

reads the path of a program a line, and says the number of the process that runs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading

from langchain_core.messages import HumanMessage

from rlm_langchain.models.call import complete
from rlm_langchain.models.registry import resolve
from rlm_langchain.sandboxes.cpython.bundle import early_modules, late_modules
from tests.durable.program import Program, main


def warm() -> None:
    """What every child would do first."""
    asyncio.run(_ask())
    early_modules(), late_modules()


async def _ask() -> None:
    """The OpenAI SDK imports most of itself when it is first used."""
    await complete(resolve("openai:scripted", "root"), [HumanMessage("hello")])


def serve() -> None:
    """Fork for every line, until there are no more."""
    warm()
    assert threading.active_count() == 1, "a process with threads must not fork"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            live(line.strip())
        print(child, flush=True)


def live(path: str) -> None:
    """A child's whole life."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    out = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 1
    try:
        with open(path) as file:
            main(Program(**json.load(file)))
        code = 0
    except BaseException:  # noqa: BLE001 - the log says what
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
