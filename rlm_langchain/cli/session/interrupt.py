"""Ctrl-C: work is asked to stop, and the process ends soon after, whatever still hangs."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PATIENCE = 0.7
"""Seconds that interrupted work has to close what it opened."""
INTERRUPTED = 130
"""The exit code that shells give to Ctrl-C."""


@contextmanager
def interrupting(stop: Callable[[], object], leave: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C calls `stop`; if the process is still there after `PATIENCE`, it calls `leave` and ends.

    What may hang is a provider, a lock, a library; a sandbox's worker ends with the process. Pressed twice,
    Ctrl-C ends the process at once. `stop` and `leave` run in threads of their own.
    """
    hearing, pressed = os.pipe()
    os.set_blocking(pressed, False)
    heard = threading.Event()
    guard = threading.Thread(target=_guard, args=(hearing, heard, stop, leave), daemon=True, name="interrupt")
    guard.start()
    # Python runs handlers in the main thread, which a signal does not always wake; this pipe is written at once.
    before, wakeup = signal.signal(signal.SIGINT, _heard_by_the_guard), signal.set_wakeup_fd(pressed)
    try:
        yield
    finally:
        if not heard.is_set():
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGINT, before)
            os.close(pressed)


def _heard_by_the_guard(signum: int, frame: object) -> None:
    pass


def _guard(hearing: int, heard: threading.Event, stop: Callable[[], object], leave: Callable[[], object]) -> None:
    """Wait for Ctrl-C or, when the pipe is closed, for nothing."""
    while signal.SIGINT not in (signals := os.read(hearing, 1)):
        if not signals:
            os.close(hearing)
            return
    heard.set()
    with suppress(RuntimeError):  # of a loop that has just ended
        stop()
    if not select.select([hearing], [], [], PATIENCE)[0]:
        last = threading.Thread(target=leave, daemon=True)  # whatever it raises or waits for, the process ends
        last.start()
        last.join(PATIENCE)
    os._exit(INTERRUPTED)
