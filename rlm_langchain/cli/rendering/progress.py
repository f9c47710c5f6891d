"""Fan-outs as a person follows them: how many calls are on their way, and how they went."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlm_langchain.cli.rendering.records import Part, as_text, one_line
from rlm_langchain.records import CallRecord, Record, WaveRecord

FEW = 3
"""Up to this many calls are told one by one; of more, only the first failures are."""


@dataclass(slots=True)
class Wave:
    """The calls that a cell waits for."""

    record: WaveRecord
    answered: int = 0
    failed: int = 0
    remembered: int = 0
    """Answered by what was asked before."""
    until: float = 0.0
    """When the last reply came."""

    @property
    def count(self) -> int:
        """How many were asked."""
        return self.record["count"]

    @property
    def done(self) -> int:
        """How many have come back, one way or the other."""
        return self.answered + self.failed

    def covers(self, record: CallRecord) -> bool:
        """Whether this call is one of them."""
        return self.record["first"] <= record["call"] < self.record["first"] + self.count

    def take(self, record: CallRecord) -> None:
        """One has come back."""
        self.until = record["time"]
        if record["error"] is None:
            self.answered += 1
            self.remembered += record.get("memo", False)
        else:
            self.failed += 1

    def ended(self) -> Part:
        """How it went."""
        calls = "1 sub-call" if self.count == 1 else f"{self.count:,} sub-calls"
        went = "answered" if not self.failed else f"{self.answered:,} answered, {self.failed:,} failed"
        memory = f", {self.remembered:,} from memory" if self.remembered else ""
        seconds = max(0.0, self.until - self.record["time"])
        return Part("note", f"{calls}: {went}{memory} · {seconds:.1f} s", self.record["path"])


@dataclass(slots=True)
class Waves:
    """The fan-outs of a tree of runs that are going on, by the path of the run."""

    open: dict[str, Wave] = field(default_factory=dict)

    def take(self, record: Record) -> list[Part]:
        """Follow what happens; the parts are what there is to say of it."""
        path = record["path"]
        if record["type"] == "call":
            return self._call(record)
        if record["type"] not in ("wave", "output"):
            return []
        # A resumed wave asks only for what is missing, so it may end below its count.
        before = self.open.pop(path, None)
        if record["type"] == "wave":
            self.open[path] = Wave(record)
        return [before.ended()] if before and before.done else []

    def _call(self, record: CallRecord) -> list[Part]:
        wave = self.open.get(record["path"])
        if wave is None or not wave.covers(record):
            return []
        wave.take(record)
        told = wave.count <= FEW or (record["error"] is not None and wave.failed <= FEW)
        parts = [_told(record)] if told else []
        if wave.done < wave.count:
            return parts
        del self.open[record["path"]]
        return [*parts, wave.ended()]


def _told(record: CallRecord) -> Part:
    if record["error"] is not None:
        return Part("error", one_line(f"call {record['call']} failed: {record['error']}", 200), record["path"])
    said = f"asked {one_line(record['preview'])}\n→ {one_line(as_text(record['value']))}"
    return Part("call", said, record["path"])
