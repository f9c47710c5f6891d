"""A host process that opens sandbox sessions, brings each into a given state, and ends in a given way.

python -m tests.sandbox_host "[[SANDBOX, STATE], ...]" prints the process ids of its workers as one line of JSON. It
then reads from standard input how to end.
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
"""Time limit far longer than any test, so that a worker that ends earlier was killed."""
ASK = "llm_query('is this where it begins?')\n"

WITHOUT_DEATH_SIGNAL = """
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
except Exception:
    pass
"""
"""Code that turns off the kernel's signal on the death of the parent."""

BLOCKS_SIGNALS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
"""
ENDLESS_LOOP = "while True:\n    pass"

CELLS: dict[str, dict[str, str]] = {
    "cpython": {
        "idle": "x = 1",
        "waiting": WITHOUT_DEATH_SIGNAL + ASK,
        "loop": WITHOUT_DEATH_SIGNAL + ASK + ENDLESS_LOOP,
        "signals": WITHOUT_DEATH_SIGNAL + BLOCKS_SIGNALS + ASK + ENDLESS_LOOP,
        "threads": WITHOUT_DEATH_SIGNAL
        + ASK
        + "import threading\ndef f():\n    while True: pass\n"
        + "[threading.Thread(target=f).start() for _ in range(3)]\nf()",
        "closed": WITHOUT_DEATH_SIGNAL + ASK + "import os\nos.close(0)\n" + ENDLESS_LOOP,
        "regex": WITHOUT_DEATH_SIGNAL + ASK + "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
        "integer": WITHOUT_DEATH_SIGNAL + ASK + "print(len(str(7 ** 10 ** 8)))",
        "stopped": WITHOUT_DEATH_SIGNAL + ASK + "import signal\nsignal.raise_signal(signal.SIGSTOP)",
        "asleep": WITHOUT_DEATH_SIGNAL + ASK + "import threading\nthreading.Event().wait()",
    },
    "monty": {
        "idle": "x = 1",
        "waiting": ASK,
        "loop": ASK + ENDLESS_LOOP,
        "caught": ASK
        + "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        "integer": ASK + "x = 7\nwhile True:\n    x = (x * x) % (10 ** 20000)",
    },
}
RESTING = {"idle", "waiting", "asleep", "stopped"}
"""States in which the worker does not compute."""


def open_session(sandbox: str, state: str) -> Any:
    """Return a session in this state."""
    session = SANDBOXES[sandbox]().open(None, "", LIMITS)
    step = session.run(CELLS[sandbox][state])
    assert isinstance(step, Suspended) is (state != "idle"), step
    if state not in ("idle", "waiting"):
        threading.Thread(target=session.resume, args=([Reply("yes")],), daemon=True).start()
    return session


def end(how: str) -> None:
    """End this process in the given way."""
    match how:
        case "exit":
            sys.exit()
        case "exception":
            raise RuntimeError("as requested")
        case "_exit":
            os._exit(3)
        case "abort":
            os.abort()
        case "exec":
            os.execv("/bin/sh", ["sh", "-c", "read forever"])
        case "fork":
            if os.fork() == 0:
                sys.stdin.read()  # the child lives on, with copies of all descriptors of its parent
            os._exit(0)


def main(wanted: list[tuple[str, str]]) -> None:
    sessions = {f"{sandbox} {state}": open_session(sandbox, state) for sandbox, state in wanted}
    workers = {name: getattr(one, "worker_pid", None) or one._worker.pid for name, one in sessions.items()}
    if ("control", "") in wanted or not wanted:
        workers["control"] = subprocess.Popen(["/bin/sh", "-c", "while true; do read -r x </dev/null; done"]).pid
    print(json.dumps(workers), flush=True)
    end(sys.stdin.readline().strip())


if __name__ == "__main__":
    main([tuple(one) for one in json.loads(sys.argv[1])])
