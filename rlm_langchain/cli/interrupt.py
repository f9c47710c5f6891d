"""Ctrl-C: work is asked to stop, and the process ends soon after, whatever still hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 0.7
"""Seconds that interrupted work has to close what it opened."""
INTERRUPTED = 130
"""The exit code that shells give to Ctrl-C."""


@contextmanager
def interrupting(stop: Callable[[], object], leave: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C calls `stop`; if the process is still there after `PATIENCE`, it calls `leave` and ends.

    What may hang is a provider, a lock, a library; a sandbox's worker ends with the process. Pressed twice,
    Ctrl-C ends the process at once. `leave` runs in a thread of its own.
    """
    waiting, pressed = os.pipe()
    guard = threading.Thread(target=_guard, args=(waiting, leave), daemon=True, name="interrupt")
    guard.start()

    def interrupted(signum: int, frame: object) -> None:
        # A handler may run in the middle of anything, so it takes no lock: a write to a pipe needs none.
        signal.signal(signum, lambda *_: os._exit(INTERRUPTED))
        os.write(pressed, b"!")
        stop()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupted:
            signal.signal(signal.SIGINT, before)
            os.close(pressed)
            guard.join()
            os.close(waiting)


def _guard(waiting: int, leave: Callable[[], object]) -> None:
    """Wait for Ctrl-C or, when the pipe is closed, for nothing."""
    if os.read(waiting, 1):
        time.sleep(PATIENCE)
        last = threading.Thread(target=leave, daemon=True)  # whatever it raises or waits for, the process ends
        last.start()
        last.join(PATIENCE)
        os._exit(INTERRUPTED)
