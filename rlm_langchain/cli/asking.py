"""One question, from the first event to the last line: watched, kept, and ended by Ctrl-C within a second."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from rlm_langchain.cli.interrupt import interrupting
from rlm_langchain.cli.summary import Ended
from rlm_langchain.cli.views import Silence, Ticking, View, spending
from rlm_langchain.trace import Trace
from rlm_langchain.trajectory import Trajectory
from rlm_langchain.types import ContextRef, Record, RLMInput, RLMOutput

if TYPE_CHECKING:
    from rlm_langchain.runnable import RLMRunnable


@dataclass(slots=True)
class Asking:
    """A question to an RLM, and who watches it being answered."""

    rlm: RLMRunnable
    query: str
    context: ContextRef | None
    view: View
    told: Trajectory
    """Everything so far; the view may draw from it."""
    trace: Trace | None = None
    begun: float = field(default_factory=time.monotonic)
    _left: bool = False

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
        loop, work = asyncio.get_running_loop(), asyncio.ensure_future(self._answered())
        with interrupting(lambda: loop.call_soon_threadsafe(work.cancel), self._leave):
            try:
                return await work
            except asyncio.CancelledError:
                self._leave()
                raise KeyboardInterrupt from None

    def _leave(self) -> None:
        """Leave the terminal as it was, and say how things stand; once."""
        if not self._left:
            self._left = True
            self.view.close()
            print(farewell(self.told, self.trace), file=sys.stderr, flush=True)

    async def _answered(self) -> RLMOutput:
        output: RLMOutput | None = None
        asked = RLMInput(query=self.query, context=self.context)
        async for path, mode, event in self.rlm.astream(asked, stream_mode=["custom", "values"], subgraphs=True):
            if mode == "custom":
                self._tell(event)
            elif not path:
                output = cast(RLMOutput, {key: event.get(key) for key in RLMOutput.__annotations__})
        assert output is not None  # noqa: S101 - the graph ends in `finalise` or raises
        return output

    def _tell(self, record: Record) -> None:
        self.told.add(record)
        self.view.write(record)
        if self.trace:
            self.trace.write(record)


def watch(
    rlm: RLMRunnable, query: str, context: ContextRef | None, *, trace: Trace | None = None, quiet: bool = False
) -> Ended:
    """Ask a question, show how it is answered, and keep its steps in a trace when there is one."""
    told = Trajectory()
    asking = Asking(rlm, query, context, choose(told, quiet=quiet), told, trace)
    output = asking.run()
    return Ended(output, context, asking.seconds, str(trace.path) if trace else None)


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


def farewell(told: Trajectory, trace: Trace | None) -> str:
    """What to tell who interrupts a run: what it cost, and how to go on."""
    look = f"`rlm show {trace.path}` shows how far it came" if trace else "--trace FILE would keep a record"
    return (
        f"\nInterrupted after {spending(told.spent.total)}; nothing more is asked or paid.\n"
        f"To go on, run the same command again: it begins anew. To look back: {look}."
    )
