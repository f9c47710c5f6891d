"""Shows how far a batch has come, and how it ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rlm_langchain.batch.batch import Progress, Summary
from rlm_langchain.batch.purse import Purse
from rlm_langchain.batch.results import ENDED, RIGHT, Result
from rlm_langchain.cli import streams
from rlm_langchain.cli.rendering import numbers
from rlm_langchain.cli.rendering.plain import spending
from rlm_langchain.cli.rendering.records import one_line
from rlm_langchain.context.sanitize import visible
from rlm_langchain.trajectory.degradation import STOP_SENTENCES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

LINE_SECONDS = 10.0
"""Seconds between two lines of progress where there is no terminal."""
MOST_FAILURES = 20
"""Rows without an answer that are listed at the end. The file of results has all of them."""


class BatchView:
    """Shows the progress of a batch on standard error: one line that changes on a terminal, else a line now and
    then. Rows without an answer are reported as they end."""

    def __init__(self, purse: Purse, *, quiet: bool) -> None:
        self._purse, self._quiet = purse, quiet
        self._said = 0.0
        self._live: Live | None = None
        self._console = None if quiet else _terminal()

    def __call__(self, progress: Progress, result: Result | None) -> None:
        """Show the progress when rows have started, or with the result of one that has ended."""
        if self._quiet:
            return
        line = progress_line(progress, self._purse)
        if self._console is not None:
            self._draw(line)
            if result is not None and result["status"] not in (*RIGHT, "not asked"):
                self._console.print(visible(failure_line(result)), markup=False, highlight=False, style="red")
        elif not self._said or time.monotonic() - self._said >= LINE_SECONDS:
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


def progress_line(progress: Progress, purse: Purse) -> str:
    """Return how far a batch has come, on one line."""
    statuses = progress.statuses
    parts = [f"{progress.ended:,} of {progress.rows:,} rows"]
    if progress.found:
        parts.append(f"{progress.found:,} found")
    parts += [f"{statuses[name]:,} {name}" for name in ("failed", "stopped", "not asked") if statuses[name]]
    if progress.working:
        parts.append(f"{progress.working} at work")
    if progress.ended > progress.found:
        parts.append(f"{progress.rate:.3g} rows/s")
    if progress.seconds_left:
        parts.append(f"about {_duration(progress.seconds_left)} left")
    parts.append(spending(progress.spent) + _of_purse(purse))
    return " · ".join(parts)


def _of_purse(purse: Purse) -> str:
    shown = {"usd": numbers.dollars, "calls": "{:,.0f} calls".format, "tokens": "{:,.0f} tokens".format}
    limits = [shown[name](limit) for name, limit in purse.limits.items()]
    return f" · limit: {', '.join(limits)}" if limits else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def failure_line(result: Result) -> str:
    """Return on one line why a row has no answer."""
    error, reason = result["error"], result["stop_reason"]
    if result["status"] in ENDED and reason is not None:
        why = STOP_SENTENCES[reason]
    else:
        why = one_line(error["message"], 300) if error else ""
    return f"{result['status']}: {result['id']} ({why})"


def summary_lines(summary: Summary, out: Path, again: str) -> list[str]:
    """Return how a batch ended. `again` is the command that goes on."""
    statuses = summary.statuses
    names = ("complete", "partial", "failed", "stopped", "not asked")
    counts = ", ".join(f"{statuses[name]:,} {name}" for name in names if statuses.get(name))
    found = f" ({summary.found:,} of them ended before)" if summary.found else ""
    lines = [
        f"{sum(statuses.values()):,} rows: {counts}{found}",
        f"{spending(summary.spent)}{_of_purse(summary.purse)} · {summary.seconds:.1f} s",
        f"results: {visible(str(out))}",
    ]
    lines += failure_lines(summary)
    open_rows = [result for result in summary.failures if result["status"] not in ENDED]
    if open_rows:
        limit = " with a higher limit" if any(result["stop_reason"] for result in open_rows) else ""
        lines.append(f"The same command{limit} goes on with those that are stopped or not asked: {again}")
    return lines


def failure_lines(summary: Summary) -> list[str]:
    """Return why rows have no answer. Those that were not asked share a line."""
    tried = [result for result in summary.failures if result["status"] != "not asked"]
    lines = [visible(failure_line(result)) for result in tried[:MOST_FAILURES]]
    if (more := len(tried) - MOST_FAILURES) > 0:
        lines.append(f"and {more:,} more without an answer")
    why = next((result["error"] for result in summary.failures if result["status"] == "not asked"), None)
    if why is not None:
        lines.append(f"{summary.statuses['not asked']:,} not asked: {why['message']}")
    return lines


def interrupt_lines(summary: Summary, again: str) -> list[str]:
    """Return what to print after Ctrl-C."""
    answered = sum(summary.statuses.get(name, 0) for name in RIGHT)
    return [
        f"Interrupted; no more calls are made or paid for. Answers: {answered:,}. What was paid for other rows "
        "is saved.",
        f"To go on from here: {again}",
    ]
