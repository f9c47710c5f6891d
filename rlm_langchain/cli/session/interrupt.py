"""Handles Ctrl-C: the work is asked to stop, and the process ends soon after, whatever still hangs."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")

GRACE_SECONDS = 0.7
"""How long interrupted work may take to close what it opened."""
INTERRUPTED = 130
"""The exit code that shells report after Ctrl-C."""


async def run_until_interrupted(work: Coroutine[Any, Any, T], report: Callable[[], object]) -> T:
    """Return the result of `work`. Ctrl-C cancels it, calls `report`, and raises `KeyboardInterrupt`."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    with interrupting(lambda: loop.call_soon_threadsafe(task.cancel), report):
        try:
            return await task
        except asyncio.CancelledError:
            report()
            raise KeyboardInterrupt from None


@contextmanager
def interrupting(stop: Callable[[], object], report: Callable[[], object]) -> Iterator[None]:
    """Let Ctrl-C call `stop`. If the process still runs after `GRACE_SECONDS`, call `report` and end it.

    A provider, a lock or a library may hang; the worker of a sandbox ends with the process. A second Ctrl-C ends
    the process at once. `stop` and `report` run in threads of their own.
    """
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    received = threading.Event()
    guard = threading.Thread(target=_guard, args=(receiving, received, stop, report), daemon=True, name="interrupt")
    guard.start()
    # Python runs handlers in the main thread, which a signal does not always wake; this pipe is written at once.
    handler, wakeup = signal.signal(signal.SIGINT, _ignore), signal.set_wakeup_fd(sending)
    try:
        yield
    finally:
        if not received.is_set():
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGINT, handler)
            os.close(sending)


def _ignore(signum: int, frame: object) -> None:
    """Do nothing: the guard reads the signal from the pipe."""


def _guard(
    receiving: int, received: threading.Event, stop: Callable[[], object], report: Callable[[], object]
) -> None:
    """Wait for Ctrl-C and end the process, or for the end of the pipe and return."""
    while signal.SIGINT not in (signals := os.read(receiving, 1)):
        if not signals:
            os.close(receiving)
            return
    received.set()
    with suppress(RuntimeError):  # the event loop has just ended
        stop()
    if not select.select([receiving], [], [], GRACE_SECONDS)[0]:
        last = threading.Thread(target=report, daemon=True)  # the process ends whatever this raises or waits for
        last.start()
        last.join(GRACE_SECONDS)
    os._exit(INTERRUPTED)
