"""One process at a time works on a thread: two would both pay for the same calls.

The lease is a lock on a file that the kernel lets go of when its process ends, however it ends: so it expires at
that moment, never earlier under a long run, and never later. It guards processes that share `RLM_HOME`, on one
machine or over a file system that passes locks on. Not covered: processes that share a Postgres saver, and no
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rlm_langchain.errors import ThreadBusy


@contextmanager
def lease(home: Path, thread: str) -> Iterator[None]:
    """Hold a thread while working on it. Raises `ThreadBusy` when somebody else does."""
    name = hashlib.sha256(thread.encode()).hexdigest()[:32]
    folder = home / "leases"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    holder = folder / f"{name}.json"
    try:
        with FileLock(folder / f"{name}.lock", blocking=False, thread_local=False):
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
            yield
    except Timeout as busy:
        raise ThreadBusy(f"another process works on the thread {thread!r}{_who(holder)}; wait for it") from busy


def _who(holder: Path) -> str:
    """Who says to hold it. A note for people: only the lock decides."""
    try:
        said = json.loads(holder.read_text())
        minutes = (time.time() - said["since"]) / 60
        return f" (process {said['pid']} on {said['host']}, for {minutes:.0f} min)"
    except (OSError, ValueError, TypeError, KeyError):
        return ""
