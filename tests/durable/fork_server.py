"""A process that has imported everything, and forks for each program, because imports take longer than a run.

Children share only what was imported. Each leads a process group of its own.

    python -m tests.durable.fork_server

reads the path of a program from each line, and prints the id of the process that runs it.
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
    """Do what every child would have to do first."""
    asyncio.run(_ask())
    early_modules(), late_modules()


async def _ask() -> None:
    """Ask a model once, because the OpenAI SDK imports most of its modules on first use."""
    await complete(resolve("openai:scripted", "root"), [HumanMessage("hello")])


def serve() -> None:
    """Fork for each line of standard input, until its end."""
    warm()
    assert threading.active_count() == 1, "a process with threads must not fork"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run_child(line.strip())
        print(child, flush=True)


def run_child(path: str) -> None:
    """Run a program in the child, and end the process."""
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
