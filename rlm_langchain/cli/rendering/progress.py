"""Counts the calls of a batch: how many are awaited, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlm_langchain.cli.rendering.records import Part, as_text, one_line
from rlm_langchain.records import CallRecord, Record, WaveRecord

FEW = 3
"""Up to this many calls are shown one by one. Of a larger batch, only so many failures are."""


@dataclass(slots=True)
class Wave:
    """The batch of calls that a cell waits for."""

    record: WaveRecord
    answered: int = 0
    failed: int = 0
    reused: int = 0
    """How many were answered with the reply to an equal call."""
    last_reply: float = 0.0
    """When the last reply came, in seconds since the epoch."""

    @property
    def count(self) -> int:
        """Return the number of calls."""
        return self.record["count"]

    @property
    def done(self) -> int:
        """Return the number of calls that were answered or failed."""
        return self.answered + self.failed

    def covers(self, record: CallRecord) -> bool:
        """Return whether a call belongs to the batch."""
        return self.record["first"] <= record["call"] < self.record["first"] + self.count

    def take(self, record: CallRecord) -> None:
        """Count a call that was answered or failed."""
        self.last_reply = record["time"]
        if record["error"] is None:
            self.answered += 1
            self.reused += record.get("memo", False)
        else:
            self.failed += 1

    def result(self) -> Part:
        """Return what to show when the batch has ended."""
        calls = "1 sub-call" if self.count == 1 else f"{self.count:,} sub-calls"
        outcome = "answered" if not self.failed else f"{self.answered:,} answered, {self.failed:,} failed"
        reused = f", {self.reused:,} from memory" if self.reused else ""
        seconds = max(0.0, self.last_reply - self.record["time"])
        return Part("note", f"{calls}: {outcome}{reused} · {seconds:.1f} s", self.record["path"])


@dataclass(slots=True)
class Waves:
    """The batches of a tree of runs that have not ended, by path of the run."""

    open: dict[str, Wave] = field(default_factory=dict)

    def take(self, record: Record) -> list[Part]:
        """Count a record, and return what to show of it."""
        path = record["path"]
        if record["type"] == "call":
            return self._call(record)
        if record["type"] not in ("wave", "output"):
            return []
        # A resumed wave asks only for what is missing, so it may end below its count.
        previous = self.open.pop(path, None)
        if record["type"] == "wave":
            self.open[path] = Wave(record)
        return [previous.result()] if previous and previous.done else []

    def _call(self, record: CallRecord) -> list[Part]:
        wave = self.open.get(record["path"])
        if wave is None or not wave.covers(record):
            return []
        wave.take(record)
        is_shown = wave.count <= FEW or (record["error"] is not None and wave.failed <= FEW)
        parts = [_part(record)] if is_shown else []
        if wave.done < wave.count:
            return parts
        del self.open[record["path"]]
        return [*parts, wave.result()]


def _part(record: CallRecord) -> Part:
    if record["error"] is not None:
        return Part("error", one_line(f"call {record['call']} failed: {record['error']}", 200), record["path"])
    pictures = f" ({one_line(', '.join(record['images']))})" if "images" in record else ""
    text = f"asked {one_line(record['preview'])}{pictures}\n→ {one_line(as_text(record['value']))}"
    return Part("call", text, record["path"])
