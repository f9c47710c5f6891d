"""Writes records: to the stream as things happen, and to state when the node ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rlm_langchain.records import Record
from rlm_langchain.trajectory.checksum import checksum


def _stream_of_this_node() -> Callable[[Any], None]:
    from langgraph.config import get_stream_writer  # who only reads records need not wait for LangGraph

    return get_stream_writer()


@dataclass(slots=True)
class Recorder:
    """The records of one node's work. Make it inside the node: it takes the node's stream."""

    records: list[Record] = field(default_factory=list)
    _stream: Callable[[Any], None] = field(default_factory=_stream_of_this_node)

    def record(self, record: Record) -> None:
        """Seal a record, keep it for state, and show it to who is watching."""
        record["seal"] = checksum(record)
        self.records.append(record)
        self._stream(record)
