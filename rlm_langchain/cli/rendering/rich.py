"""Draws a run on a terminal with rich. Text is never parsed as markup, because it may contain some."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from rlm_langchain.cli.rendering.plain import parts, spending
from rlm_langchain.cli.rendering.progress import Wave, Waves
from rlm_langchain.cli.rendering.records import (
    Kind,
    Part,
    clip,
    one_line,
)
from rlm_langchain.records import Record, depth_of
from rlm_langchain.trajectory.tree import Trajectory

ACTIVITIES = {
    "question": "the model is writing",
    "turn": "the code is running",
    "cell": "the code is running",
    "wave": "waiting for sub-calls",
    "output": "the model is writing",
}
"""What the run does after a record of the root run."""
_ONE_LINE: Final[dict[str, Any]] = {"no_wrap": True, "overflow": "ellipsis"}
"""How a line at the bottom is drawn: of one that takes two lines in a narrow terminal, rich leaves one behind."""
BARS = 8
"""Most batches of calls that have a progress bar at the same time."""


class ScrollView:
    """Prints one part below the other."""

    def __init__(self, console: Console, *, full: bool = False) -> None:
        self._console, self._full = console, full
        self.waves = Waves()

    def write(self, record: Record) -> None:
        """Show a record. The answer of the root run is left to the caller."""
        for part in [*parts(record), *self.waves.take(record)]:
            self.show(part)

    def show(self, part: Part) -> None:
        """Print one part of a record."""
        self._console.print(drawn(part, full=self._full))

    def close(self) -> None:
        """Do nothing."""


class Drawing(ScrollView):
    """Prints one part below the other, and shows below them what the run does now."""

    def __init__(
        self, console: Console, trajectory: Trajectory, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console)
        self._trajectory, self._clock, self._activity = trajectory, clock, "preparing"
        self._since, self._spinner = clock(), Spinner("dots")
        self._live = Live(console=console, get_renderable=self.now, transient=True, refresh_per_second=8)
        self._live.start()

    def write(self, record: Record) -> None:
        """Show a record, and what the run does after it."""
        activity = ACTIVITIES.get(record["type"])
        if record["type"] == "output" and record["outcome"] == "answered":
            activity = "checking the answer"
        if activity and not record["path"]:
            self._activity, self._since = activity, self._clock()
        super().write(record)

    def close(self) -> None:
        """Remove the lines at the bottom."""
        self._live.stop()

    def now(self) -> RenderableType:
        """Draw what the run does at this moment."""
        activity = Text(f"{self._activity} · {self._clock() - self._since:.0f} s", "bold", **_ONE_LINE)
        if (spent := self._trajectory.spent.total).calls:
            activity.append(f"   {spending(spent)}", style="not bold dim")
        bottom = Table.grid(padding=(0, 1))
        bottom.add_row(self._spinner, activity)
        width = min(32, self._console.width // 4)
        return Group(*[_bar(wave, width) for wave in [*self.waves.open.values()][:BARS]], bottom)


STYLES: dict[Kind, str] = {
    "heading": "bold cyan",
    "note": "dim",
    "error": "red",
    "answer": "green",
    "call": "dim",
}


def drawn(part: Part, *, full: bool = False) -> RenderableType:
    """Return a part for rich to print. Its text is never parsed as markup."""
    indent = 2 * depth_of(part.path)
    if part.kind == "heading":
        mark = f"[{part.path}] " if part.path else ""
        return Padding(Text(mark + one_line(part.text, 500), STYLES["heading"]), (1, 0, 0, indent))
    text = part.text if full else clip(part)
    if part.kind == "code":
        code = Syntax(text, "python", theme="ansi_dark", background_color="default", word_wrap=True)
        return Padding(code, (0, 0, 0, indent + 4))
    bar = {"printed": "│ ", "error": "│ "}.get(part.kind, "")
    lines = "\n".join(bar + line for line in text.split("\n"))
    return Padding(Text(lines, STYLES.get(part.kind, "")), (0, 0, 0, indent + 2))


def _bar(wave: Wave, width: int) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    failed = f", {wave.failed:,} failed" if wave.failed else ""
    count = Text(f"{wave.done:,} of {wave.count:,} sub-calls{failed}", "dim", **_ONE_LINE)
    row.add_row(ProgressBar(wave.count, wave.done, width=width), count)
    return Padding(row, (0, 0, 0, 2 + 2 * depth_of(wave.record["path"])))
