"""The protocol with Monty's process: runs code to its next stop, and handles output and host calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rlm_langchain.sandboxes.wire import BrokenProtocol, plain
from rlm_langchain.types import Call, Plain, Reply

if TYPE_CHECKING:
    from pydantic_monty import FunctionSnapshot, MontyError, SyncSnapshot

FRAME, SENT = "__rlm_frame__", "__rlm_sent__"


@dataclass(frozen=True, slots=True)
class CallsRequested:
    """The feed waits at `snapshot` for replies to these calls."""

    calls: tuple[Call, ...]
    snapshot: FunctionSnapshot


@dataclass(frozen=True, slots=True)
class Ended:
    """The feed has ended."""

    error: MontyError | None
    """The error that Monty reports."""


@dataclass(frozen=True, slots=True)
class Broke:
    """The worker violated the protocol, or exceeded its time."""

    reason: Literal["protocol", "time"] = "protocol"


Stop = CallsRequested | Ended | Broke


class HostCallbacks(Protocol):
    """Requests of the worker that the host answers at once."""

    def final(self, value: Plain) -> None:
        """Accept an answer."""

    def names(self, which: str) -> list[str]:
        """Return the names in the REPL: those of the "cells", or "all"."""

    def is_late(self) -> bool:
        """Return whether the time of this step is up. Monty does not count the time for requests to the host."""


def drive(feed: Callable[[], SyncSnapshot], output: OutputCollector, callbacks: HostCallbacks) -> Stop:
    """Run `feed`, and handle its stops until it makes calls or ends."""
    from pydantic_monty import FunctionSnapshot, MontyComplete, MontyError, NameLookupSnapshot

    try:
        snapshot = feed()
        while True:
            match snapshot:
                case MontyComplete():
                    return Ended(None)
                case _ if callbacks.is_late():
                    return Broke("time")
                case NameLookupSnapshot():
                    snapshot = snapshot.resume()
                case FunctionSnapshot():
                    answer = _handle_stop(snapshot, output, callbacks)
                    if isinstance(answer, CallsRequested):
                        return answer
                    snapshot = answer
                case _:
                    return Broke()
    except BrokenProtocol:
        return Broke()
    except MontyError as error:
        return Ended(error)


def send_replies(asked: CallsRequested, replies: Sequence[Reply]) -> SyncSnapshot:
    """Continue the feed with the replies to its calls."""
    return asked.snapshot.resume(
        {"return_value": [[without_surrogates(reply.value), without_surrogates(reply.error)] for reply in replies]}
    )


def _handle_stop(
    snapshot: FunctionSnapshot, output: OutputCollector, callbacks: HostCallbacks
) -> SyncSnapshot | CallsRequested:
    """Handle a stop, and return the next one. The arguments of the stop are not used: calls arrive as frames."""
    if snapshot.is_os_function:
        return snapshot.resume_not_handled()
    if snapshot.function_name == FRAME:
        output.begin()
        return snapshot.resume({"return_value": None})
    if snapshot.function_name == SENT:
        return _handle_frame(snapshot, plain(output.end().encode()), callbacks)
    name = snapshot.function_name[:80]
    return snapshot.resume({"exc_type": "NameError", "message": f"name {name!r} is not defined"})


def _handle_frame(
    snapshot: FunctionSnapshot, message: Any, callbacks: HostCallbacks
) -> SyncSnapshot | CallsRequested:
    match message:
        case {"calls": [*calls], **rest} if calls and not rest:
            return CallsRequested(tuple(_call(call) for call in calls), snapshot)
        case {"final": value, **rest} if not rest:
            callbacks.final(value)
            return snapshot.resume({"return_value": None})
        case {"names": str(which)}:
            return snapshot.resume({"return_value": callbacks.names(which)})
    raise BrokenProtocol("the worker sent a message of an unknown form")


def _call(item: Any) -> Call:
    match item:
        case [str(kind), str(prompt), (None | str() | list() | dict()) as context]:
            return Call(kind, prompt, context)
    raise BrokenProtocol("the worker sent a call of an unknown form")


class OutputCollector:
    """Collects the output of one cell, and the frame that is being sent. Too much of either stops the worker."""

    def __init__(self, output: int, frame: int, stop: Callable[[Literal["output", "protocol"]], None]) -> None:
        self._text = _Capped(output)
        self._frame = _Capped(frame)
        self._framing = False
        self._stop = stop

    def __call__(self, stream: str, text: str) -> None:
        """Receive a piece of output from Monty."""
        if self._framing:
            if not self._frame.add(text):
                self._stop("protocol")
        elif not self._text.add(text):
            self._stop("output")

    def begin(self) -> None:
        """Start a frame."""
        self._frame.take()
        self._framing = True

    def end(self) -> str:
        """End the frame and return it."""
        self._framing = False
        return self._frame.take()

    def take(self) -> str:
        """Return what the cell has printed, and start empty."""
        self._framing = False
        return self._text.take()


class _Capped:
    """Text up to a number of bytes. The rest is dropped."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most
        self._pieces: list[str] = []

    def add(self, text: str) -> bool:
        """Add text. Return whether it fitted."""
        fits = len(text) <= self._left and (size := len(text.encode("utf-8", "replace"))) <= self._left
        if not fits:
            text = text[: self._left].encode("utf-8", "replace")[: self._left].decode("utf-8", "ignore")
            size = self._left
        self._left -= size
        self._pieces.append(text)
        return fits

    def take(self) -> str:
        text = "".join(self._pieces)
        self._pieces, self._left = [], self._most
        return text


def without_surrogates(value: Any) -> Any:
    """Return the value with lone surrogates replaced, which Monty would do silently."""
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list() | tuple():
            return [without_surrogates(item) for item in value]
        case dict():
            return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return value
