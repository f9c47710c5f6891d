"""The command `batch`."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from rlm_langchain.batch.batch import Batch, Summary, create_batch
from rlm_langchain.batch.budget import LIMIT_NAMES, BatchBudget
from rlm_langchain.cli import streams
from rlm_langchain.cli.commands import inputs
from rlm_langchain.cli.options import Setup, write_setup
from rlm_langchain.cli.rendering.batch import BatchView, failure_lines, interrupt_lines, summary_lines
from rlm_langchain.cli.session.interrupt import run_until_interrupted
from rlm_langchain.cli.session.threads import SETUP, Threads
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.runnable.runnable import RLMRunnable


def batch(
    questions: Path,
    out: Path,
    name: str | None,
    rows: int | None,
    requests_per_minute: int | None,
    setup: Setup,
    *,
    quiet: bool,
) -> int:
    """Ask all questions of a file. Returns the exit code."""
    with inputs.preparing():
        if setup.approve_above_calls is not None or setup.approve_above_usd is not None:
            raise ConfigurationError(
                "a batch cannot ask a person: leave out --approve-above-calls and --approve-above-usd"
            )
        setup = inputs.with_models(setup)
        limits: dict[str, Any] = {name: getattr(setup, name) for name in LIMIT_NAMES}
        batch_budget, without_limits = BatchBudget(**limits), dict.fromkeys(limits)
        rlm = inputs.build_from(replace(setup, **cast(Any, without_limits)))
        if requests_per_minute is not None:
            budget = replace(rlm.budget, requests_per_minute=requests_per_minute)
            rlm = rlm.model_copy(update={"budget": budget})
    running = _Running(questions, out, name, rows, batch_budget, rlm, setup, BatchView(batch_budget, quiet=quiet))
    summary = running.run()
    if quiet:
        for line in failure_lines(summary):
            streams.say(f"rlm: {line}")
    else:
        streams.say("\n" + "\n".join(summary_lines(summary, out, running.again)))
    return 0 if summary.all_answered else 1


@dataclass(slots=True)
class _Running:
    """A running batch with its progress view."""

    questions: Path
    out: Path
    name: str | None
    rows: int | None
    batch_budget: BatchBudget
    rlm: RLMRunnable
    setup: Setup
    view: BatchView
    batch: Batch | None = None
    """None until the questions are checked."""
    _interrupted: bool = False

    def run(self) -> Summary:
        """Run all rows. On Ctrl-C, says how to continue and raises `KeyboardInterrupt`."""
        try:
            return asyncio.run(run_until_interrupted(self._work(), self._report_interrupt))
        finally:
            self.view.close()

    @property
    def again(self) -> str:
        """Return the command that continues the batch, ready to copy."""
        words = ["rlm", "batch", str(self.questions), "--out", str(self.out)]
        given = {"name": self.name, "rows": self.rows, "requests_per_minute": self.rlm.budget.requests_per_minute}
        for name, value in {**given, **asdict(self.setup)}.items():
            for one in value if isinstance(value, list) else [] if value is None else [value]:
                words += [f"--{name.replace('_', '-')}", str(one)]
        return f"`{shlex.join(words)}`"

    async def _work(self) -> Summary:
        async with Threads().opened_async() as saver:
            self.batch = create_batch(
                self.rlm.model_copy(update={"checkpointer": saver}),
                self.questions,
                self.out,
                name=self.name,
                budget=self.batch_budget,
                rows_at_once=self.rows,
                metadata={SETUP: write_setup(self.setup)},
            )
            return await self.batch.arun(self.view)

    def _report_interrupt(self) -> None:
        """Restore the terminal and say how to continue, once."""
        if self._interrupted:
            return
        self._interrupted = True
        self.view.close()
        if self.batch is None:
            streams.say("\nInterrupted before any model was called.")
        else:
            streams.say("\n" + "\n".join(interrupt_lines(self.batch.summary(), self.again)))
