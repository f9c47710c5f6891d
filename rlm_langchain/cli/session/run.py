"""Runs one question: shows its progress, saves it, and ends it within a second of Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

from rlm_langchain.cli import streams
from rlm_langchain.cli.rendering.plain import NoView, PlainWithTicker, View, spending
from rlm_langchain.cli.rendering.records import as_text
from rlm_langchain.cli.rendering.summary import Progress, RunResult
from rlm_langchain.cli.session import approve, history
from rlm_langchain.cli.session.checkpointing import Persistence
from rlm_langchain.cli.session.interrupt import run_until_interrupted
from rlm_langchain.cli.session.threads import since_question
from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import InputError, RLMError
from rlm_langchain.graph.nodes.approve import answered, questions
from rlm_langchain.records import Record, RLMInput, RLMOutput, output_of
from rlm_langchain.trajectory.jsonl import Trace
from rlm_langchain.trajectory.tree import Trajectory, flatten
from rlm_langchain.types import ContextRef

if TYPE_CHECKING:
    from langgraph.types import Command

    from rlm_langchain.runnable.runnable import RLMRunnable


@dataclass(slots=True)
class _Run:
    """One question to an RLM, with its progress report."""

    rlm: RLMRunnable
    question: RLMInput | None
    """None: the saved thread is resumed."""
    saving: Persistence
    quiet: bool = False
    traces: list[Trace] = field(default_factory=list)
    """The files that get every record. One that can no longer be written is taken out."""
    trajectory: Trajectory = field(default_factory=Trajectory)
    """All records so far. The view may draw from it."""
    before: Progress | None = None
    """The usage of the question before this process resumed it. None for a new question."""
    started: float = field(default_factory=time.monotonic)
    view: View = field(default_factory=NoView)
    _interrupted: bool = False

    def run(self) -> RLMOutput:
        """Ask, and wait for the answer. Raises what the RLM raises, and `KeyboardInterrupt`."""
        self.view = choose_view(self.trajectory, quiet=self.quiet)
        try:
            return asyncio.run(run_until_interrupted(self._answer(), self._report_interrupt))
        except RLMError as error:
            answer = self.trajectory.runs[""].answer if "" in self.trajectory.runs else None
            if answer is not None:  # it was paid for, and could not be saved
                error.add_note(f"The answer, which is not saved:\n{visible(as_text(answer['answer']))}")
            elif self.saving.thread is not None and self.trajectory.runs:
                error.add_note(f"What was paid for is saved: `{resume_command(self.saving.thread)}` continues.")
            raise
        finally:
            self.view.close()

    @property
    def seconds(self) -> float:
        """Return the seconds since this process began to work on the question."""
        return time.monotonic() - self.started

    def _report_interrupt(self) -> None:
        """Restore the terminal and say how to continue, once."""
        if not self._interrupted:
            self._interrupted = True
            self.view.close()
            streams.say(interrupt_message(self.trajectory, self.traces, self.saving.thread))

    async def _answer(self) -> RLMOutput:
        async with self.saving.opened(self.rlm) as (rlm, config):
            graph_input: RLMInput | Command[Any] | None = self.question
            if graph_input is None:
                await self._read_earlier(rlm, config)
            values = await self._stream(rlm, graph_input, config)
            while questions(values):
                graph_input = await self._decide(rlm, values)
                values = await self._stream(rlm, graph_input, config)
            return output_of(values)

    async def _stream(self, rlm: RLMRunnable, graph_input: Any, config: RunnableConfig | None) -> dict[str, Any]:
        """Work until the run ends or waits for a person, and return its state then."""
        values: dict[str, Any] = {}
        async for path, mode, event in rlm.astream(
            graph_input, config, stream_mode=["custom", "values"], subgraphs=True
        ):
            if mode == "custom":
                self._show(event)
            elif not path:
                values = event
        return values

    async def _read_earlier(self, rlm: RLMRunnable, config: RunnableConfig | None) -> None:
        """Read the records of earlier processes, which are part of the totals and of the trace."""
        state = await rlm.graph.aget_state(config or {})
        records = list(flatten(since_question(state.values.get("trajectory", []))))
        self.before = Progress.of_records(records)
        for record in records:
            self._record(record)

    async def _decide(self, rlm: RLMRunnable, values: dict[str, Any]) -> Command[Any]:
        """Return a person's decision on the calls that wait for it. If the run no longer has to ask, it is a
        yes."""
        if not rlm.budget.asks_person:
            return answered(values, lambda _: True)
        self.view.close()
        decision = await asyncio.to_thread(answered, values, approve.ask_person)
        self.view = choose_view(self.trajectory, quiet=self.quiet)
        return decision

    def _show(self, record: Record) -> None:
        self._record(record)
        self.view.write(record)

    def _record(self, record: Record) -> None:
        self.trajectory.add(record)
        for trace in tuple(self.traces):
            try:
                trace.write(record)
            except InputError as error:
                self.traces.remove(trace)
                streams.say(f"rlm: {error}, and the run continues without it")


def watch(
    rlm: RLMRunnable,
    question: RLMInput | None,
    *,
    saving: Persistence = Persistence(),  # noqa: B008 - a frozen value
    trace: Trace | None = None,
    quiet: bool = False,
) -> RunResult:
    """Ask a question and show its progress. With a trace, write every step to it. None resumes the thread."""
    if rlm.budget.asks_person:
        approve.check()
    with ExitStack() as opened:
        traces = [] if trace is None else [trace]
        kept, notice = (None, "") if saving.thread is not None else history.begin()
        if kept is not None:
            traces.append(opened.enter_context(kept))
        run = _Run(rlm, question, saving, quiet, traces)
        output = run.run()
    trace_path = str(trace.path) if trace in run.traces and trace else None
    return RunResult(output, context_of(output), run.seconds, trace_path, saving.thread, run.before, notice)


def context_of(output: RLMOutput) -> ContextRef | None:
    """Return the context of the question; in a conversation, the last one that was given."""
    questions = (record for record in reversed(output["trajectory"]) if record["type"] == "question")
    return next((context for question in questions if (context := question.get("context"))), None)


def choose_view(trajectory: Trajectory, *, quiet: bool) -> View:
    """Return the view for this standard error."""
    if quiet:
        return NoView()
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return PlainWithTicker(sys.stderr)
    from rlm_langchain.cli.rendering.rich import Drawing

    return Drawing(console, trajectory)


def interrupt_message(trajectory: Trajectory, traces: Sequence[Trace], thread: str | None = None) -> str:
    """Return what to print after Ctrl-C: what the run has used, and how to continue it."""
    saved = thread or next((history.name_of(trace.path) or str(trace.path) for trace in traces), None)
    steps = (
        f"`rlm show {shlex.quote(saved)}` shows how far it came" if saved else "--trace FILE would have saved it"
    )
    if thread is None:
        next_step = (
            "The same command starts from the beginning. With --thread NAME, the run could have been resumed."
        )
    else:
        next_step = f"To go on from here: {resume_command(thread)}"
    return (
        f"\nInterrupted after {spending(trajectory.spent.total)}; no more calls are made or paid for.\n"
        f"{next_step}\nTo look back: {steps}."
    )


def resume_command(thread: str) -> str:
    """Return the command that resumes a thread, ready to copy."""
    return f"rlm resume {shlex.quote(thread)}"
