"""The ways to watch a run: as plain lines here, drawn on a terminal in `drawing`, or not at all.

All are told record by record, and show the same parts.
"""

from __future__ import annotations

from typing import Protocol, TextIO

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
"""Fan-outs of more calls than this say when a quarter of them is done."""


class View(Protocol):
    """Somebody who watches."""

    def write(self, record: Record) -> None:
        """Show what happened."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class NoView:
    """Watches without a word."""

    def write(self, record: Record) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing is open."""


class Lines:
    """Plain lines, each written at once; no colour, no movement."""

    def __init__(self, file: TextIO, *, full: bool = False) -> None:
        self._file, self._full = file, full
        self.waves = Waves()

    def write(self, record: Record) -> None:
        """Everything but the answer of the top run, which is the caller's to show."""
        for part in [*parts(record), *self.waves.take(record)]:
            self.tell(part)

    def tell(self, part: Part) -> None:
        """Write a part."""
        self._file.write("".join(f"{line}\n" for line in plain(part, full=self._full)))
        self._file.flush()

    def close(self) -> None:
        """Nothing is open."""


class PlainWithTicker(Lines):
    """Lines that also say how far a large fan-out is: at each quarter, since nothing moves."""

    def write(self, record: Record) -> None:
        """Everything, and the quarters."""
        super().write(record)
        wave = self.waves.open.get(record["path"])
        if wave is None or wave.count <= QUARTERS:
            return
        if record["type"] == "wave":
            self.tell(Part("note", f"asking {wave.count:,} sub-calls", record["path"]))
        elif record["type"] == "call" and wave.done * 4 // wave.count > (wave.done - 1) * 4 // wave.count:
            self.tell(Part("note", f"{wave.done:,} of {wave.count:,} are back", record["path"]))


def plain(part: Part, *, full: bool = False) -> list[str]:
    """A part as lines, further in for a child run, and marked with its path."""
    margin = "  " * depth_of(part.path) + (f"[{part.path}] " if part.path else "")
    if part.kind == "heading":
        return ["", f"{margin}{one_line(part.text, 500)}"]
    bar = {"code": "    | ", "printed": "    > ", "error": "    ! "}.get(part.kind, "    ")
    return [f"{margin}{bar}{line}" for line in (part.text if full else clip(part)).split("\n")]


def spending(used: Usage) -> str:
    """What was used so far, in a few words."""
    calls = "1 model call" if used.calls == 1 else f"{used.calls:,} model calls"
    return f"{calls} · {used.tokens:,} tokens{dollars(used.cost)}"


def dollars(cost: float | None) -> str:
    """What was paid; nothing is said of what is free."""
    if cost is None:
        return " · price unknown"
    return f" · {numbers.dollars(cost)}" if cost else ""


def parts(record: Record) -> list[Part]:
    """What to show of a record: everything but the answer of the top run, which is the caller's to give."""
    return [] if record["type"] == "answer" and not record["path"] else narrate(record)
