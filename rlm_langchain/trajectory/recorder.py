"""Builds records and writes them: to the stream as things happen, and to state when the node ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from rlm_langchain.context.images import MAX_IMAGES, handles_in
from rlm_langchain.context.prompt_text import to_prompt_text
from rlm_langchain.records import CallRecord, NoteRecord, OutputRecord, Record, child_path
from rlm_langchain.trajectory.call_kinds import kind_of
from rlm_langchain.trajectory.checksum import checksum
from rlm_langchain.types import Call, CallResult, Excerpt, Plain

PREVIEW = 200
"""Characters of a prompt that are stored in its record."""


@dataclass(frozen=True, slots=True)
class NumberedCall:
    """A call with its number in the run."""

    path: str
    """Path of the calling run."""
    cell: int
    number: int
    call: Call
    sha256: str
    """The call's fingerprint."""

    @property
    def call_path(self) -> str:
        """Return the path of the call in the tree, which is that of its child run, if it has one."""
        return child_path(self.path, self.number)

    @property
    def prompt_chars(self) -> int:
        """Return the length of prompt and context together."""
        context = self.call.context
        if isinstance(context, Excerpt):
            return len(self.call.prompt) + context.stop - context.start
        return len(self.call.prompt) + (0 if context is None else len(to_prompt_text(context)))

    @property
    def prompt_text(self) -> str:
        """Return prompt and context as a reader sees them. The context of a child run is in its own records."""
        context = self.call.context
        if context is None or isinstance(context, Excerpt) or self.call.kind == "rlm":
            return self.call.prompt
        return f"{self.call.prompt}\n\n{to_prompt_text(context)}"

    @property
    def images(self) -> list[str]:
        """Return the names of the pictures in the call, as code gave them."""
        handles = handles_in(self.call.context) if self.call.kind == "vision" else []
        names = [one.get("name") for one in handles[:MAX_IMAGES] if isinstance(one, dict)]
        return [name[:PREVIEW] for name in names if isinstance(name, str)]


def _stream_of_this_node() -> Callable[[Any], None]:
    from langgraph.config import get_stream_writer  # imported late: reading records does not need LangGraph

    return get_stream_writer()


@dataclass(slots=True)
class Recorder:
    """Collects the records of one node. Create it inside the node, because it uses the node's stream."""

    records: list[Record] = field(default_factory=list)
    _stream: Callable[[Any], None] = field(default_factory=_stream_of_this_node)

    @classmethod
    def without_stream(cls) -> Recorder:
        """Return a recorder for use outside a node, without a stream."""
        return cls([], lambda _: None)

    def record(self, record: Record) -> None:
        """Add a checksum to a record, keep it for state, and write it to the stream."""
        record["seal"] = checksum(record)
        self.records.append(record)
        self._stream(record)

    def written(self) -> dict[str, Any]:
        """Return the state update that adds the records."""
        return {"trajectory": self.records, "recorded": len(self.records)}

    def call(
        self,
        numbered: NumberedCall,
        reply: CallResult,
        *,
        prompt_chars: int,
        value: Plain = None,
        seconds: float = 0.0,
        model: str = "",
        **more: Any,
    ) -> CallRecord:
        """Record an answered or failed call.

        `value` is the reply to the code if it is not a text. `more` holds the optional fields `read` and
        `child`.
        """
        kind = kind_of(numbered.call.kind)
        value = reply.text if value is None else value
        record = CallRecord(
            type="call",
            path=numbered.path,
            cell=numbered.cell,
            call=numbered.number,
            kind=numbered.call.kind,
            prompt_sha256=numbered.sha256,
            prompt_chars=prompt_chars,
            preview="" if kind.is_free else numbered.call.prompt[:PREVIEW],
            value=value if reply.error is None and not kind.is_derived else None,
            error=reply.error,
            usage=reply.used.record(),
            model=model,
            seconds=seconds,
            retries=reply.retries,
            time=time.time(),
        )
        if numbered.images:
            record["images"] = numbered.images
        if reply.memo:
            record["memo"] = True
        if reply.from_cache:
            record["from_cache"] = True
        if reply.lost:
            record["lost"] = reply.lost
        if reply.flaw:
            record["flaw"] = reply.flaw
        if reply.refused:
            record["refused"] = reply.refused
        record.update(more)  # type: ignore[typeddict-item]
        self.record(record)
        return record

    def output(
        self,
        cell: tuple[str, int],
        outcome: Literal["completed", "answered", "died"],
        text: str,
        *,
        chars: int = 0,
        is_error: bool = False,
        seconds: float = 0.0,
        **more: Any,
    ) -> OutputRecord:
        """Record the end of a cell, given as path and number. `more` holds optional fields."""
        record = OutputRecord(
            type="output",
            path=cell[0],
            cell=cell[1],
            outcome=outcome,
            text=text,
            chars=chars,
            error=is_error,
            seconds=seconds,
            time=time.time(),
        )
        record.update(more)  # type: ignore[typeddict-item]
        self.record(record)
        return record

    def note(self, path: str, to: Literal["model", "reader"], text: str, **more: Any) -> NoteRecord:
        """Record a message of the library. `more` holds optional fields."""
        record = NoteRecord(type="note", path=path, to=to, text=text, time=time.time())
        record.update(more)  # type: ignore[typeddict-item]
        self.record(record)
        return record
