"""The worker: it takes cells and replies from the host, and gives back output, calls and answers."""

from __future__ import annotations

import builtins
import sys
import warnings
from types import ModuleType

from rlm_langchain.sandboxes.reserved import refused
from rlm_langchain.sandboxes.worker import cells, chance, clock, privileges
from rlm_langchain.sandboxes.worker.answers import Answers
from rlm_langchain.sandboxes.worker.channel import Channel, take_over_standard_streams
from rlm_langchain.sandboxes.worker.contexts import loaded
from rlm_langchain.sandboxes.worker.faults import described
from rlm_langchain.sandboxes.worker.stage import Stage
from rlm_langchain.sandboxes.worker.vocabulary import Vocabulary, answering, ended

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any


class Repl:
    """One namespace, and the cells that run in it."""

    def __init__(self, channel: Channel, limits: dict[str, Any]) -> None:
        self._stage = Stage(channel, limits)
        self._main = ModuleType("__main__")
        self._names = vars(self._main)
        self._answers = Answers(self._names, limits["value"])
        self._words = Vocabulary(self._stage.crew.exchange, limits["value"])
        self._builtins = dict(vars(builtins))
        self._cell = 0

    def fix(self, after: dict[str, Any], start: float, seed: int) -> None:
        """Make this process like every other that runs the same cells."""
        sys.modules["__main__"] = self._main
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        clock.Clock(start, self._stage.alarm).rule()
        chance.rule(seed)
        after["random"] = chance.fix_random
        after["datetime"] = clock.fix_datetime
        after["selectors"] = lambda module: clock.fix_selectors(module, self._stage.crew.pump)
        after["concurrent.futures._base"] = lambda module: _pools().install_waiting(module, self._stage.crew)
        after["concurrent.futures.thread"] = lambda module: _pools().install(module, self._stage.crew)

    def start(self, context: Any, prelude: str) -> str | None:
        """Define what every cell may use. Gives back what went wrong."""
        self._reserved = self._words.names() | self._answers.names() | {"context": context}
        self._restore()
        error = self._stage.play(lambda: cells.run(prelude, "<helpers>", self._names))
        self._answers.hidden = set(self._names)
        return error and f"the prelude failed: {error}"

    def run(self, code: str) -> None:
        """Run a cell and tell the host how it ended."""
        self._cell += 1
        name = f"<cell {self._cell}>"
        self._stage.is_open = True
        error = refused(code) or self._stage.play(lambda: cells.run(code, name, self._names))
        self._restore()
        self._stage.end(self._outcome(error))

    def _outcome(self, error: str | None) -> str:
        try:
            answer = self._answers.taken()
        except (TypeError, ValueError) as unfit:
            return ended(error or described(unfit))
        return ended(error) if answer is None else answering(answer, error)

    def _restore(self) -> None:
        """Put back what a program may have taken away, by accident or on purpose."""
        vars(builtins).update(self._builtins)
        self._names.update(self._reserved)
        self._names.update(__name__="__main__", __builtins__=builtins)


def main(after: dict[str, Any]) -> None:
    """Serve the host until it closes the pipe."""
    channel = take_over_standard_streams()
    _, limits, context, prelude = channel.receive()
    repl = Repl(channel, limits)
    problem = privileges.left() or _started(repl, after, limits, context, prelude)
    channel.send('["ready"]' if problem is None else ended(problem))
    while True:
        repl.run(channel.receive()[1])


def _pools() -> Any:
    from rlm_langchain.sandboxes.worker import pool

    return pool


def _started(repl: Repl, after: dict[str, Any], limits: dict[str, Any], context: Any, prelude: str) -> str | None:
    try:
        value = loaded(context, limits)
    except (MemoryError, OSError, ValueError) as error:
        return f"the context could not be loaded: {type(error).__name__}: {error}"
    repl.fix(after, limits["clock"], limits["seed"])
    return repl.start(value, prelude)
