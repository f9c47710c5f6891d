"""Shows the progress of a run as plain lines. `rich.py` draws the same parts on a terminal."""

from __future__ import annotations

from typing import Protocol, TextIO

from rlm_langchain.cli import streams
from rlm_langchain.cli.rendering import numbers
from rlm_langchain.cli.rendering.progress import Waves
from rlm_langchain.cli.rendering.records import (
    Part,
    clip,
    narrate,
    one_line,
)
from rlm_langchain.records import Record, depth_of
from rlm_langchain.types import Usage

QUARTERS = 8
"""A batch of more calls than this is reported at each quarter."""


class View(Protocol):
    """Shows the progress of a run, record by record."""

    def write(self, record: Record) -> None:
        """Show a record."""

    def close(self) -> None:
        """Restore the terminal."""


class NoView:
    """Shows nothing."""

    def write(self, record: Record) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """Writes plain lines, without colour or movement. Each is flushed at once."""

    def __init__(self, file: TextIO, *, full: bool = False) -> None:
        self._file, self._full = file, full
        self.waves = Waves()

    def write(self, record: Record) -> None:
        """Show a record. The answer of the root run is left to the caller."""
        for part in [*parts(record), *self.waves.take(record)]:
            self.show(part)

    def show(self, part: Part) -> None:
        """Write one part of a record."""
        lines = "\n".join(plain(part, full=self._full))
        self._file.write(f"{streams.for_stream(lines, self._file)}\n")
        self._file.flush()

    def close(self) -> None:
        """Do nothing."""


class PlainWithTicker(Lines):
    """Writes plain lines, and reports a large batch of calls at each quarter."""

    def write(self, record: Record) -> None:
        """Show a record, and the progress of its batch."""
        super().write(record)
        wave = self.waves.open.get(record["path"])
        if wave is None or wave.count <= QUARTERS:
            return
        if record["type"] == "wave":
            self.show(Part("note", f"asking {wave.count:,} sub-calls", record["path"]))
        elif record["type"] == "call" and wave.done * 4 // wave.count > (wave.done - 1) * 4 // wave.count:
            self.show(Part("note", f"{wave.done:,} of {wave.count:,} are back", record["path"]))


def plain(part: Part, *, full: bool = False) -> list[str]:
    """Return a part as lines. Those of a child run are indented and begin with its path."""
    indent = "  " * depth_of(part.path) + (f"[{part.path}] " if part.path else "")
    if part.kind == "heading":
        return ["", f"{indent}{one_line(part.text, 500)}"]
    bar = {"code": "    | ", "printed": "    > ", "error": "    ! "}.get(part.kind, "    ")
    return [f"{indent}{bar}{line}" for line in (part.text if full else clip(part)).split("\n")]


def spending(used: Usage) -> str:
    """Return a usage in a few words."""
    calls = "1 model call" if used.calls == 1 else f"{used.calls:,} model calls"
    return f"{calls} · {used.tokens:,} tokens{cost_suffix(used.cost)}"


def cost_suffix(cost: float | None) -> str:
    """Return a cost to append to a line. Empty for what is free."""
    if cost is None:
        return " · price unknown"
    return f" · {numbers.dollars(cost)}" if cost else ""


def parts(record: Record) -> list[Part]:
    """Return the parts of a record. The answer of the root run is left to the caller."""
    return [] if record["type"] == "answer" and not record["path"] else narrate(record)
