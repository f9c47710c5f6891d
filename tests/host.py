"""A host of sandboxes that is ended: it opens sessions, brings each where a test wants it, and does as it is told.

It says in one line of JSON which worker of its own is in which state, and then waits for the name of its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.types import Limits, Reply, Suspended

SANDBOXES = {"cpython": CPythonSandbox, "monty": MontySandbox}
LIMITS = Limits(seconds=3_000)
"""Far longer than any test: what ends earlier was ended."""
ASK = "llm_query('is this where it begins?')\n"

ALONE = """
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
except Exception:
    pass
"""
"""Asks the kernel for no signal on the death of the parent."""

DEAF = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
"""
CRAZED = "while True:\n    pass"

CELLS: dict[str, dict[str, str]] = {
    "cpython": {
        "idle": "x = 1",
        "waiting": ALONE + ASK,
        "loop": ALONE + ASK + CRAZED,
        "signals": ALONE + DEAF + ASK + CRAZED,
        "threads": ALONE
        + ASK
        + "import threading\ndef f():\n    while True: pass\n"
        + "[threading.Thread(target=f).start() for _ in range(3)]\nf()",
        "closed": ALONE + ASK + "import os\nos.close(0)\n" + CRAZED,
        "regex": ALONE + ASK + "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
        "integer": ALONE + ASK + "print(len(str(7 ** 10 ** 8)))",
        "stopped": ALONE + ASK + "import signal\nsignal.raise_signal(signal.SIGSTOP)",
        "asleep": ALONE + ASK + "import threading\nthreading.Event().wait()",
    },
    "monty": {
        "idle": "x = 1",
        "waiting": ASK,
        "loop": ASK + CRAZED,
        "caught": ASK
        + "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        "integer": ASK + "x = 7\nwhile True:\n    x = (x * x) % (10 ** 20000)",
    },
}
RESTING = {"idle", "waiting", "asleep", "stopped"}
"""States in which nothing is computed."""


def opened(sandbox: str, state: str) -> Any:
    """A session in a state."""
    session = SANDBOXES[sandbox]().open(None, "", LIMITS)
    step = session.run(CELLS[sandbox][state])
    assert isinstance(step, Suspended) is (state != "idle"), step
    if state not in ("idle", "waiting"):
        threading.Thread(target=session.resume, args=([Reply("yes")],), daemon=True).start()
    return session


def end(how: str) -> None:
    """End this process, in a way of its own."""
    match how:
        case "exit":
            sys.exit()
        case "exception":
            raise RuntimeError("as I was told")
        case "_exit":
            os._exit(3)
        case "abort":
            os.abort()
        case "exec":
            os.execv("/bin/sh", ["sh", "-c", "read forever"])
        case "fork":
            if os.fork() == 0:
                sys.stdin.read()  # it lives on, with copies of all descriptors of its parent
            os._exit(0)


def main(wanted: list[tuple[str, str]]) -> None:
    sessions = {f"{sandbox} {state}": opened(sandbox, state) for sandbox, state in wanted}
    workers = {name: getattr(one, "worker_pid", None) or one._worker.pid for name, one in sessions.items()}
    if ("control", "") in wanted or not wanted:
        workers["control"] = subprocess.Popen(["/bin/sh", "-c", "while true; do read -r x </dev/null; done"]).pid
    print(json.dumps(workers), flush=True)
    end(sys.stdin.readline().strip())


if __name__ == "__main__":
    main([tuple(one) for one in json.loads(sys.argv[1])])
