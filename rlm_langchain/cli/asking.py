"""One question, from the first event to the last line: watched, kept, and ended by Ctrl-C within a second."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rlm_langchain.cli.summary import Ended
from rlm_langchain.cli.views import Silence, Ticking, View, spending
from rlm_langchain.trace import Trace
from rlm_langchain.trajectory import Trajectory
from rlm_langchain.types import ContextRef, Record, RLMInput, RLMOutput

if TYPE_CHECKING:
    from rlm_langchain.runnable import RLMRunnable

PATIENCE = 0.7
"""Seconds that an interrupted run has to close what it opened."""
INTERRUPTED = 130
"""The exit code that shells give to Ctrl-C."""


class Listener(Protocol):
    """Somebody who is told every record as it happens."""

    def write(self, record: Record) -> None:
        """Take it in."""


@dataclass(slots=True)
class Asking:
    """A question to an RLM, and who watches it being answered."""

    rlm: RLMRunnable
    query: str
    context: ContextRef | None
    view: View
    told: Trajectory
    """Everything so far; the view may draw from it."""
    listeners: Sequence[Listener] = ()
    begun: float = field(default_factory=time.monotonic)

    def run(self) -> RLMOutput:
        """Ask, and wait for the answer. Raises what the RLM raises, and `KeyboardInterrupt`."""
        try:
            return asyncio.run(self._run())
        finally:
            self.view.close()

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return time.monotonic() - self.begun

    async def _run(self) -> RLMOutput:
        output: RLMOutput | None = None
        asked = RLMInput(query=self.query, context=self.context)
        try:
            events = self.rlm.astream(asked, stream_mode=["custom", "values"], subgraphs=True)
            async for path, mode, event in events:
                if mode == "custom":
                    self._tell(event)
                elif not path:
                    output = event
        except asyncio.CancelledError:
            self._give_up()
            raise
        assert output is not None  # noqa: S101 - the graph ends in `finalise` or raises
        return output

    def _tell(self, record: Record) -> None:
        self.told.add(record)
        for listener in (*self.listeners, self.view):
            listener.write(record)

    def _give_up(self) -> None:
        """Say how things stand, and be gone soon, whatever still hangs: a provider, a lock, a library."""
        timer = threading.Timer(PATIENCE, os._exit, [INTERRUPTED])
        timer.daemon = True
        timer.start()
        self.view.close()
        print(farewell(self.told, self.listeners), file=sys.stderr, flush=True)


def watch(
    rlm: RLMRunnable, query: str, context: ContextRef | None, *, trace: Path | None = None, quiet: bool = False
) -> Ended:
    """Ask a question, show how it is answered, and keep a trace when a file is given for it."""
    told = Trajectory()
    with ExitStack() as stack:
        listeners = [stack.enter_context(Trace(trace))] if trace else []
        asking = Asking(rlm, query, context, choose(told, quiet=quiet), told, listeners)
        output = asking.run()
    return Ended(output, context, asking.seconds, None if trace is None else str(trace))


def choose(told: Trajectory, *, quiet: bool) -> View:
    """The view that suits standard error."""
    if quiet:
        return Silence()
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return Ticking(sys.stderr)
    from rlm_langchain.cli.drawing import Drawing

    return Drawing(console, told)


def farewell(told: Trajectory, listeners: Sequence[Listener]) -> str:
    """What to tell who interrupts a run: what it cost, and how to go on."""
    kept = next((listener.path for listener in listeners if isinstance(listener, Trace)), None)
    look = f"`rlm show {kept}` shows how far it came" if kept else "with --trace FILE there is a record"
    return (
        f"\nInterrupted after {spending(told.spent.total)}; nothing more is asked or paid.\n"
        f"To go on, run the same command again: it begins anew. To look back: {look}."
    )
