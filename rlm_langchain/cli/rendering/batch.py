"""Renders the progress and the summary of a batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_langchain.batch.batch import Progress, Summary
from rlm_langchain.batch.budget import BatchBudget
from rlm_langchain.batch.results import ANSWERED, ENDED, Result
from rlm_langchain.cli import streams
from rlm_langchain.cli.rendering import numbers
from rlm_langchain.cli.rendering.plain import spending
from rlm_langchain.cli.rendering.records import one_line
from rlm_langchain.context.sanitize import visible
from rlm_langchain.trajectory.degradation import STOP_SENTENCES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

SECONDS_BETWEEN_LINES = 10.0
"""Seconds between two progress lines if standard error is not a terminal."""
MAX_FAILURES_SHOWN = 20
"""Maximum number of rows without an answer in the summary. The file of results has all of them."""


class BatchView:
    """Shows the progress of a batch on standard error, as a live line on a terminal, otherwise a line now and then.

    On a terminal, rows without an answer are reported as they end.
    """

    def __init__(self, budget: BatchBudget, *, quiet: bool) -> None:
        self._budget, self._quiet = budget, quiet
        self._said = 0.0
        self._live: Live | None = None
        self._console = None if quiet else _terminal()

    def __call__(self, progress: Progress, result: Result | None) -> None:
        """Show the progress, and the result of a row that has just ended."""
        if self._quiet:
            return
        line = progress_line(progress, self._budget)
        if self._console is not None:
            self._draw(line)
            if result is not None and result["status"] not in (*ANSWERED, "not asked"):
                self._console.print(visible(failure_line(result)), markup=False, highlight=False, style="red")
        elif not self._said or time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            streams.say(line)

    def _draw(self, line: str) -> None:
        from rich.live import Live
        from rich.text import Text

        text = Text(line, "dim", no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(text, console=self._console, transient=True, refresh_per_second=4)
            self._live.start()
        self._live.update(text)

    def close(self) -> None:
        """Restore the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _terminal() -> Console | None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def progress_line(progress: Progress, budget: BatchBudget) -> str:
    """Return the progress of a batch as one line."""
    statuses = progress.statuses
    parts = [f"{progress.ended:,} of {progress.rows:,} rows"]
    if progress.found:
        parts.append(f"{progress.found:,} ended before")
    parts += [f"{statuses[name]:,} {name}" for name in ("failed", "stopped", "not asked") if statuses[name]]
    if progress.running:
        parts.append(f"{progress.running} running")
    if progress.ended > progress.found:
        parts.append(f"{progress.rate:.3g} rows/s")
    if progress.seconds_left:
        parts.append(f"about {_duration(progress.seconds_left)} left")
    parts.append(spending(progress.spent) + _limits_of(budget))
    return " · ".join(parts)


def _limits_of(budget: BatchBudget) -> str:
    shown = {"usd": numbers.dollars, "calls": "{:,.0f} calls".format, "tokens": "{:,.0f} tokens".format}
    limits = [shown[name](limit) for name, limit in budget.limits.items()]
    return f" · limit: {', '.join(limits)}" if limits else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def failure_line(result: Result) -> str:
    """Return why a row has no answer, as one line."""
    error, reason = result["error"], result["stop_reason"]
    if result["status"] in ENDED and reason is not None:
        why = STOP_SENTENCES[reason]
    else:
        why = one_line(error["message"], 300) if error else ""
    return f"{result['status']}: {result['id']} ({why})"


def summary_lines(summary: Summary, out: Path, again: str) -> list[str]:
    """Return the summary of a batch. `again` is the command that continues it."""
    statuses = summary.statuses
    names = ("complete", "partial", "failed", "stopped", "not asked")
    counts = ", ".join(f"{statuses[name]:,} {name}" for name in names if statuses.get(name))
    found = f" ({summary.found:,} had ended before)" if summary.found else ""
    lines = [
        f"{sum(statuses.values()):,} rows: {counts}{found}",
        f"{spending(summary.spent)}{_limits_of(summary.budget)} · {summary.seconds:.1f} s",
        f"results: {visible(str(out))}",
    ]
    lines += failure_lines(summary)
    open_rows = [result for result in summary.failures if result["status"] not in ENDED]
    if open_rows:
        limit = " with a higher limit" if any(result["stop_reason"] for result in open_rows) else ""
        lines.append(
            f"To continue with the rows that are stopped or not asked, run the same command{limit}: {again}"
        )
    return lines


def failure_lines(summary: Summary) -> list[str]:
    """Return why rows have no answer. Rows that were not asked share one line."""
    tried = [result for result in summary.failures if result["status"] != "not asked"]
    lines = [visible(failure_line(result)) for result in tried[:MAX_FAILURES_SHOWN]]
    if (more := len(tried) - MAX_FAILURES_SHOWN) > 0:
        lines.append(f"and {more:,} more without an answer")
    why = next((result["error"] for result in summary.failures if result["status"] == "not asked"), None)
    if why is not None:
        lines.append(f"{summary.statuses['not asked']:,} not asked: {why['message']}")
    return lines


def interrupt_lines(summary: Summary, again: str) -> list[str]:
    """Return what to print after Ctrl-C."""
    answered = sum(summary.statuses.get(name, 0) for name in ANSWERED)
    return [
        f"Interrupted; no more calls are made or paid for. Answers: {answered:,}. Replies "
        "for unfinished rows are saved.",
        f"To continue: {again}",
    ]
