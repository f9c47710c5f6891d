"""An event loop whose hours take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Hurry(selectors.SelectSelector):
    """A selector that never waits for a timer: it puts the clock on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.hurries = True

    def select(self, timeout: float | None = None) -> list[Any]:
        if not self.hurries:
            return super().select(timeout)
        ready = super().select(0 if timeout is not None else 0.01)
        if not ready and timeout:
            self.now += timeout
        return ready


def run_in_no_time(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own, by a clock that goes on as soon as there is nothing to do."""
    hurry = Hurry()

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(hurry)
        loop.time = lambda: hurry.now  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        try:
            return runner.run(work)
        finally:
            hurry.hurries = False  # the end of a loop waits for its threads, 300 seconds at most since Python 3.12
