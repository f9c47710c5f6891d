"""Runs coroutines on an event loop with a virtual clock, so that waiting for hours takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeSelector(selectors.SelectSelector):
    """A selector that never waits for a timer, but advances the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.is_virtual = True

    def select(self, timeout: float | None = None) -> list[Any]:
        if not self.is_virtual:
            return super().select(timeout)
        ready = super().select(0 if timeout is not None else 0.01)
        if not ready and timeout:
            self.now += timeout
        return ready


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new event loop, whose clock advances as soon as there is nothing to do."""
    selector = VirtualTimeSelector()

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(selector)
        loop.time = lambda: selector.now  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        try:
            return runner.run(work)
        finally:
            # The end of a loop waits for its threads, up to 300 seconds since Python 3.12: of real time.
            selector.is_virtual = False
