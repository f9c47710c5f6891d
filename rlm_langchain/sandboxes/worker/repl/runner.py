"""Runs cells: with an output, a time limit, and calls to the host."""

from __future__ import annotations

from _thread import RLock

from rlm_langchain.sandboxes.worker.channel import Channel
from rlm_langchain.sandboxes.worker.determinism.clock import Alarm
from rlm_langchain.sandboxes.worker.determinism.scheduler import CooperativePool
from rlm_langchain.sandboxes.worker.repl.answers import AnswerGiven
from rlm_langchain.sandboxes.worker.repl.json_values import quoted
from rlm_langchain.sandboxes.worker.repl.output import CellOutput, install
from rlm_langchain.sandboxes.worker.repl.vocabulary import (
    BATCH,
    LLMError,
    answering,
    ended,
    joined,
)

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

BALLAST = 4 << 20
"""Bytes set aside, so that a session that is out of memory can still report it, and run `del`."""

MAX_VALUES = 110_000
"""Values that one batch of calls may contain: less than the host reads in a frame, more than one call has."""

SIMPLE_CALL_VALUES = 4
"""Number of values that a call counts for, with a text or no context."""


class CellRunner:
    """Runs a program's code, and stops it when its time or its output limit is used up."""

    def __init__(self, channel: Channel, limits: dict[str, Any], check: Callable[[], None]) -> None:
        """Create the runner. `check` raises if a cell may make no more calls."""
        self._channel, self._output, self._room = channel, limits["output"], limits["value"]
        self._check = check
        self.pool = CooperativePool(self._exchange, check)
        self.alarm = Alarm(limits["seconds"], self._is_held)
        self.is_open = False
        """Whether calls can be made. Only a cell may make them."""
        self.turn = 0
        """The host's number for the current turn. The frame that ends the turn must contain it."""
        self._call_lock = RLock()
        self._cell_output = CellOutput(self._output, self._show, channel.hold)
        self._ballast = bytearray(BALLAST)

    def run_program(self, work: Callable[[], None]) -> str | None:
        """Run code of the program. Return its error as a traceback for the program's author, or None."""
        if not self._ballast:
            exception_of(self._set_aside)
        self._cell_output = CellOutput(self._output, self._show, self._channel.hold)
        self._stream = install(self._cell_output)
        self.alarm.new_cell()
        errors = [exception_of(lambda: self._timed(work)), exception_of(self._flush)]
        self._cell_output.empty()
        if exception_of(self._check) is not None:
            self.pool.dismiss()
        faults = (error for error in errors if error is not None and not isinstance(error, AnswerGiven))
        return next((self._describe(error) for error in faults), None)

    def _is_held(self) -> bool:
        """Return whether the alarm must wait, because it would split a frame or leave a task alone."""
        return bool(self._channel.hold.depth or self.pool.running)

    def _exchange(self, calls: Sequence[str]) -> list[Any]:
        """Make calls and wait. The cell's time is stopped meanwhile. One thread at a time."""
        with self._call_lock:
            if not self.is_open:
                raise LLMError("calls can only be made while a cell runs")
            self._check()
            self._flush()
            self.alarm.stop()
            self._cell_output.empty()
            replies = [reply for batch in batches(calls, self._room) for reply in self._send_batch(batch)]
            self.alarm.start()
            return replies

    def _send_batch(self, batch: Sequence[str]) -> list[Any]:
        """Send one batch of calls, and return its replies."""
        self._cell_output.held = True
        self._channel.send(joined(self.turn, batch))
        _, self.turn, replies = self._channel.receive()
        self._cell_output.held = False
        return replies  # type: ignore[no-any-return]

    def end(self, answer: str | None, error: str | None) -> None:
        """Tell the host how a cell ended. A call that another thread is still making is answered first."""
        with self._call_lock:
            self.is_open = False
            if answer is None:
                self._channel.send(ended(self.turn, error))
            else:
                self._channel.send(answering(self.turn, answer, error))

    def _timed(self, work: Callable[[], None]) -> None:
        try:
            self.alarm.start()
            work()
        finally:
            while exception_of(self.alarm.stop) is not None:
                pass  # it rang while it was being switched off

    def _flush(self) -> None:
        """Send everything that was printed. A program may have closed its output."""
        if not self._stream.closed:
            self._stream.flush()

    def _describe(self, error: BaseException) -> str:
        from rlm_langchain.sandboxes.worker.repl.tracebacks import described

        self._ballast = bytearray()
        return described(error)

    def _set_aside(self) -> None:
        self._ballast = bytearray(BALLAST)

    def _show(self, text: str) -> None:
        self._channel.send(f'["out",{quoted(text)}]')


def batches(calls: Sequence[str], room: int) -> Iterator[list[str]]:
    """Split the calls into as few frames as possible."""
    batch: list[str] = []
    size = crowd = 0
    for call in calls:
        length, values = len(call.encode()) + 1, values_in(call)
        if batch and (size + length > room or crowd + values > MAX_VALUES or len(batch) == BATCH):
            yield batch
            batch, size, crowd = [], 0, 0
        batch.append(call)
        size, crowd = size + length, crowd + values
    if batch:
        yield batch


def values_in(call: str) -> int:
    """Return how many values the host will count in a call: commas and brackets outside texts."""
    if not call.endswith(("]]", "}]")):
        return SIMPLE_CALL_VALUES
    import re

    bones = re.sub(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', "", call)
    return 1 + sum(map(bones.count, ",[{"))


def exception_of(work: Callable[[], None]) -> BaseException | None:
    """Run `work` and return its exception, of any kind."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001
        return error
    return None
