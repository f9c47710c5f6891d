"""A run drawn on a terminal by rich. Text is never given to rich as markup: it could hold some."""

from __future__ import annotations

import time
from collections.abc import Callable

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

DOING = {
    "question": "the model is writing",
    "turn": "the code is running",
    "cell": "the code is running",
    "wave": "sub-calls are on their way",
    "output": "the model is writing",
}
"""What comes after a record of the top run."""
BARS = 8
"""Fan-outs that are drawn at once."""


class ScrollView:
    """What happened, one part below the other."""

    def __init__(self, console: Console, *, full: bool = False) -> None:
        self._console, self._full = console, full
        self.waves = Waves()

    def write(self, record: Record) -> None:
        """Everything but the answer of the top run, which is the caller's to show."""
        for part in [*parts(record), *self.waves.take(record)]:
            self.tell(part)

    def tell(self, part: Part) -> None:
        """Draw a part."""
        self._console.print(drawn(part, full=self._full))

    def close(self) -> None:
        """Nothing is open."""


class Drawing(ScrollView):
    """What happened scrolls by, and what goes on stands below it."""

    def __init__(self, console: Console, told: Trajectory, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console)
        self._told, self._clock, self._doing = told, clock, "preparing"
        self._since, self._spinner = clock(), Spinner("dots")
        self._live = Live(console=console, get_renderable=self.now, transient=True, refresh_per_second=8)
        self._live.start()

    def write(self, record: Record) -> None:
        """Everything, and what comes next."""
        doing = DOING.get(record["type"])
        if record["type"] == "output" and record["outcome"] == "answered":
            doing = "closing"
        if doing and not record["path"]:
            self._doing, self._since = doing, self._clock()
        super().write(record)

    def close(self) -> None:
        """Take what stands below away."""
        self._live.stop()

    def now(self) -> RenderableType:
        """What goes on at this moment."""
        doing = Text(f"{self._doing} · {self._clock() - self._since:.0f} s", style="bold")
        if (spent := self._told.spent.total).calls:
            doing.append(f"   {spending(spent)}", style="not bold dim")
        self._spinner.update(text=doing)
        return Group(*[_bar(wave) for wave in [*self.waves.open.values()][:BARS]], self._spinner)


STYLES: dict[Kind, str] = {
    "heading": "bold cyan",
    "note": "dim",
    "error": "red",
    "answer": "green",
    "call": "dim",
}


def drawn(part: Part, *, full: bool = False) -> RenderableType:
    """A part as rich draws it: never as markup, which the text could hold."""
    left = 2 * depth_of(part.path)
    if part.kind == "heading":
        mark = f"[{part.path}] " if part.path else ""
        return Padding(Text(mark + one_line(part.text, 500), STYLES["heading"]), (1, 0, 0, left))
    text = part.text if full else clip(part)
    if part.kind == "code":
        code = Syntax(text, "python", theme="ansi_dark", background_color="default", word_wrap=True)
        return Padding(code, (0, 0, 0, left + 4))
    bar = {"printed": "│ ", "error": "│ "}.get(part.kind, "")
    lines = "\n".join(bar + line for line in text.split("\n"))
    return Padding(Text(lines, STYLES.get(part.kind, "")), (0, 0, 0, left + 2))


def _bar(wave: Wave) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    failed = f", {wave.failed:,} failed" if wave.failed else ""
    said = Text(f"{wave.done:,} of {wave.count:,} sub-calls{failed}", "dim")
    row.add_row(ProgressBar(wave.count, wave.done, width=32), said)
    return Padding(row, (0, 0, 0, 2 + 2 * depth_of(wave.record["path"])))
