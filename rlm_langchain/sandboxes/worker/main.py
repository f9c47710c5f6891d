"""The worker: it takes cells and replies from the host, and gives back output, calls and answers."""

from __future__ import annotations

import builtins
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from types import ModuleType
from typing import Any

from rlm_langchain.sandboxes.reserved import refused
from rlm_langchain.sandboxes.worker import cells, chance, clock
from rlm_langchain.sandboxes.worker.answers import Answers
from rlm_langchain.sandboxes.worker.channel import Channel, take_over_standard_streams
from rlm_langchain.sandboxes.worker.contexts import loaded
from rlm_langchain.sandboxes.worker.faults import described
from rlm_langchain.sandboxes.worker.output import Screen, install
from rlm_langchain.sandboxes.worker.vocabulary import LLMError, Vocabulary, answering, ended, joined

BALLAST = 4 << 20
"""Bytes set aside, so that a session without memory can still say so, and run `del`."""


class Repl:
    """One namespace, and the cells that run in it."""

    def __init__(self, channel: Channel, limits: dict[str, Any]) -> None:
        self._channel, self._limits = channel, limits
        self._main = ModuleType("__main__")
        self._names = vars(self._main)
        self._answers = Answers(self._names, limits["value"])
        self._alarm = clock.Alarm(limits["seconds"], channel.hold)
        self._builtins = dict(vars(builtins))
        self._running = False
        self._cell = 0
        self._ballast = bytearray(BALLAST)

    def start(self, after: dict[str, Any], context: Any, prelude: str) -> str | None:
        """Set up everything a program sees. Gives back what went wrong."""
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            value = loaded(context, self._limits)
        except (MemoryError, OSError, ValueError) as unread:
            return f"the context could not be loaded: {type(unread).__name__}: {unread}"
        sys.modules["__main__"] = self._main
        clock.Clock(self._limits["clock"], self._alarm).rule()
        chance.rule(self._limits["seed"])
        after["random"] = chance.fix_random
        after["datetime"] = clock.fix_datetime
        after["selectors"] = clock.fix_selectors
        words = Vocabulary(self._exchange, self._limits["value"])
        self._reserved = words.names() | self._answers.names() | {"context": value}
        self._restore()
        error = self._guarded(lambda: cells.run(prelude, "<helpers>", self._names))
        self._answers.hidden = set(self._names)
        return error and f"the prelude failed: {error}"

    def run(self, code: str) -> None:
        """Run a cell and tell the host how it ended."""
        self._cell += 1
        name = f"<cell {self._cell}>"
        self._running = True
        error = refused(code) or self._guarded(lambda: cells.run(code, name, self._names))
        self._running = False
        self._restore()
        self._channel.send(self._outcome(error))

    def _outcome(self, error: str | None) -> str:
        try:
            answer = self._answers.taken()
        except (TypeError, ValueError) as unfit:
            answer, error = None, error or described(unfit)
        return ended(error) if answer is None else answering(answer, error)

    def _guarded(self, work: Callable[[], None]) -> str | None:
        """Do something of the program's, with its own output and its own time. Gives back what it raised."""
        self._screen = Screen(self._limits["output"], self._show, self._channel.hold)
        stream = install(self._screen)
        self._alarm.new_cell()
        error = _caught(lambda: self._timed(work)) or _caught(lambda: _flushed(stream))
        self._screen.empty()
        if error is None:
            return None
        self._ballast = bytearray()
        return described(error)

    def _timed(self, work: Callable[[], None]) -> None:
        try:
            self._alarm.start()
            work()
        finally:
            self._alarm.stop()

    def _exchange(self, calls: Sequence[str]) -> list[Any]:
        """Ask the host, and wait. The cell's time stands still meanwhile."""
        if not self._running:
            raise LLMError("calls can only be made while a cell runs")
        sys.stdout.flush()
        self._alarm.stop()
        self._screen.empty()
        self._channel.send(joined(calls))
        self._screen.held = True
        _, replies = self._channel.receive()
        self._screen.held = False
        self._alarm.start()
        return replies  # type: ignore[no-any-return]

    def _show(self, text: str) -> None:
        self._channel.send(json.dumps(["out", text], ensure_ascii=False))

    def _restore(self) -> None:
        """Put back what a program may have taken away, by accident or on purpose."""
        vars(builtins).update(self._builtins)
        self._names.update(self._reserved)
        self._names.update(__name__="__main__", __builtins__=builtins)
        if not self._ballast:
            _caught(self._set_aside)

    def _set_aside(self) -> None:
        self._ballast = bytearray(BALLAST)


def _caught(work: Callable[[], None]) -> BaseException | None:
    """What it raises: whatever that is, it is the program's own affair."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001
        return error
    return None


def _flushed(stream: TextIOWrapper) -> None:
    """Everything that was printed is on the screen; a program may have closed its output."""
    if not stream.closed:
        stream.flush()


def _unconfined() -> str | None:
    """What the kernel lets this process do although it must not. Asked before any code of a program is here."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return None
    return "this process is not confined: it can read the root folder"


def main(after: dict[str, Any]) -> None:
    """Serve the host until it closes the pipe."""
    channel = take_over_standard_streams()
    _, limits, context, prelude = channel.receive()
    repl = Repl(channel, limits)
    problem = _unconfined() or repl.start(after, context, prelude)
    channel.send('["ready"]' if problem is None else ended(problem))
    while True:
        repl.run(channel.receive()[1])
