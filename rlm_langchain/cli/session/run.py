"""One question, from the first event to the last line: watched, kept, and ended by Ctrl-C within a second."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

from rlm_langchain.cli.rendering.plain import (
    NoView,
    PlainWithTicker,
    View,
    spending,
)
from rlm_langchain.cli.rendering.records import as_text
from rlm_langchain.cli.rendering.summary import RunResult
from rlm_langchain.cli.session import approve
from rlm_langchain.cli.session.checkpointing import Keeping
from rlm_langchain.cli.session.interrupt import interrupting
from rlm_langchain.cli.session.threads import since_question
from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import InputError, RLMError
from rlm_langchain.graph.nodes.approve import answered, questions
from rlm_langchain.records import (
    Record,
    RLMInput,
    RLMOutput,
    output_of,
)
from rlm_langchain.trajectory.jsonl import Trace
from rlm_langchain.trajectory.tree import Trajectory, flatten
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from langgraph.types import Command

    from rlm_langchain.runnable.runnable import RLMRunnable


@dataclass(slots=True)
class Asking:
    """A question to an RLM, and who watches it being answered."""

    rlm: RLMRunnable
    asked: RLMInput | None
    """None: goes on with the thread that is kept."""
    kept: Keeping
    quiet: bool = False
    trace: Trace | None = None
    told: Trajectory = field(default_factory=Trajectory)
    """Everything so far; the view may draw from it."""
    begun: float = field(default_factory=time.monotonic)
    view: View = field(default_factory=NoView)
    _left: bool = False

    def run(self) -> RLMOutput:
        """Ask, and wait for the answer. Raises what the RLM raises, and `KeyboardInterrupt`."""
        self.view = choose(self.told, quiet=self.quiet)
        try:
            return asyncio.run(self._run())
        except RLMError as error:
            answer = self.told.runs[""].answer if "" in self.told.runs else None
            if answer is not None:  # it was paid for, and could not be kept
                error.add_note(f"The answer, which is not kept:\n{visible(as_text(answer['answer']))}")
            elif self.kept.thread is not None and self.told.runs:
                error.add_note(f"What was paid is kept: `{resume_command(self.kept.thread)}` goes on.")
            raise
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
            print(interrupt_message(self.told, self.trace, self.kept.thread), file=sys.stderr, flush=True)

    async def _answered(self) -> RLMOutput:
        async with self.kept.at_work(self.rlm) as (rlm, config):
            given: RLMInput | Command[Any] | None = self.asked
            if given is None:
                await self._recall(rlm, config)
            values = await self._until_it_waits(rlm, given, config)
            while questions(values):
                given = await self._decided(rlm, values)
                values = await self._until_it_waits(rlm, given, config)
            return output_of(values)

    async def _until_it_waits(self, rlm: RLMRunnable, given: Any, config: RunnableConfig | None) -> dict[str, Any]:
        """Let it work until it has ended, or waits for a person; its state then."""
        values: dict[str, Any] = {}
        async for path, mode, event in rlm.astream(given, config, stream_mode=["custom", "values"], subgraphs=True):
            if mode == "custom":
                self._tell(event)
            elif not path:
                values = event
        return values

    async def _recall(self, rlm: RLMRunnable, config: RunnableConfig | None) -> None:
        """What was done before this process belongs to the account, and to the trace."""
        state = await rlm.graph.aget_state(config or {})
        for record in flatten(since_question(state.values.get("trajectory", []))):
            self._note(record)

    async def _decided(self, rlm: RLMRunnable, values: dict[str, Any]) -> Command[Any]:
        """What a person says to what the run waits for: now, or when told not to be asked."""
        if not rlm.budget.asks_person:  # any more: they are off
            return answered(values, lambda _: True)
        self.view.close()
        said = await asyncio.to_thread(answered, values, approve.granted)
        self.view = choose(self.told, quiet=self.quiet)
        return said

    def _tell(self, record: Record) -> None:
        self._note(record)
        self.view.write(record)

    def _note(self, record: Record) -> None:
        self.told.add(record)
        if self.trace is None:
            return
        try:
            self.trace.write(record)
        except InputError as error:
            self.trace = None
            print(f"rlm: {error}, and the run goes on without it", file=sys.stderr, flush=True)


def watch(
    rlm: RLMRunnable,
    asked: RLMInput | None,
    *,
    kept: Keeping = Keeping(),  # noqa: B008 - a frozen value
    trace: Trace | None = None,
    quiet: bool = False,
) -> RunResult:
    """Ask a question, show how it is answered, and keep its steps in a trace when there is one."""
    if rlm.budget.asks_person:
        approve.check()
    asking = Asking(rlm, asked, kept, quiet, trace)
    output = asking.run()
    traced = str(asking.trace.path) if asking.trace else None
    return RunResult(output, context_of(output), asking.seconds, traced, kept.thread)


def context_of(output: RLMOutput) -> ContextRef | None:
    """What was asked about; in a conversation the last context that was given."""
    questions = (record for record in reversed(output["trajectory"]) if record["type"] == "question")
    return next((context for question in questions if (context := question.get("context"))), None)


def choose(told: Trajectory, *, quiet: bool) -> View:
    """The view that suits standard error."""
    if quiet:
        return NoView()
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return PlainWithTicker(sys.stderr)
    from rlm_langchain.cli.rendering.rich import Drawing

    return Drawing(console, told)


def interrupt_message(told: Trajectory, trace: Trace | None, thread: str | None = None) -> str:
    """What to tell who interrupts a run: what it cost, and how to go on."""
    kept = str(trace.path) if trace else thread
    look = f"`rlm show {shlex.quote(kept)}` shows how far it came" if kept else "--trace FILE would keep a record"
    on = "The same command begins anew: with --thread NAME it could go on from here."
    if thread is not None:
        on = f"To go on from here: {resume_command(thread)}"
    return (
        f"\nInterrupted after {spending(told.spent.total)}; nothing more is asked or paid.\n{on}\n"
        f"To look back: {look}."
    )


def resume_command(thread: str) -> str:
    """The command that goes on with a thread, to be copied."""
    return f"rlm resume {shlex.quote(thread)}"
