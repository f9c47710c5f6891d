"""The worker's main program: receives cells and replies from the host, and sends output, calls and answers."""

from __future__ import annotations

import builtins
import sys

from rlm_langchain.sandboxes.worker import confinement_check
from rlm_langchain.sandboxes.worker.channel import Channel, take_over_standard_streams
from rlm_langchain.sandboxes.worker.determinism import clock, randomness
from rlm_langchain.sandboxes.worker.lazy.contexts import load_context
from rlm_langchain.sandboxes.worker.repl.answers import (
    ANSWER_GIVEN,
    AnswerGiven,
    Answers,
    silence_answers_in_threads,
)
from rlm_langchain.sandboxes.worker.repl.runner import CellRunner
from rlm_langchain.sandboxes.worker.repl.vocabulary import Vocabulary, ended

TYPE_CHECKING = False  # loading `typing` would take a tenth of the start
if TYPE_CHECKING:
    from typing import Any

HELPERS = "<helpers>"
"""The file name of the prelude in tracebacks."""


class Repl:
    """A namespace, and the cells that run in it."""

    def __init__(self, channel: Channel, limits: dict[str, Any]) -> None:
        self._main = type(sys)("__main__")
        self._names = vars(self._main)
        self._answers = Answers(self._names, limits["value"])
        self._runner = CellRunner(channel, limits, self._answers.check)
        self._answers.when_given = lambda: self._runner.alarm.hurry(AnswerGiven)
        self._vocabulary = Vocabulary(self._runner.pool.exchange, limits["value"])
        vars(builtins)[ANSWER_GIVEN] = AnswerGiven
        self._builtins = dict(vars(builtins))
        self._cell = 0

    def make_deterministic(self, after: dict[str, Any], start: float, seed: int) -> None:
        """Fix clock, randomness and threads, so that every process that runs the same cells computes the same."""
        sys.modules["__main__"] = self._main
        clock.Clock(start, self._runner.alarm).install()
        randomness.install(seed)
        after["random"] = randomness.fix_random
        after["threading"] = silence_answers_in_threads
        after["datetime"] = clock.fix_datetime
        after["selectors"] = lambda module: clock.fix_selectors(module, self._runner.pool.send_waiting_calls)
        after["concurrent.futures._base"] = lambda module: _pools().install_waiting(module, self._runner.pool)
        after["concurrent.futures.thread"] = lambda module: _pools().install(module, self._runner.pool)

    def start(self, contexts: dict[str, Any], prelude: str) -> str | None:
        """Define what every cell may use. Return what went wrong, or None."""
        self._reserved = self._vocabulary.names() | self._answers.names() | {"context": None} | contexts
        self._vocabulary.contexts = contexts
        self._restore()
        error = self._runner.run_program(lambda: self._define(prelude))
        self._names.setdefault("answer", {"ready": False})  # models trained on it write answer["content"] = ...
        self._answers.hidden = set(self._names)
        return error and f"the prelude failed: {error}"

    def _define(self, prelude: str) -> None:
        """Run the code of the prelude, without `cell.py`, which is loaded after the session is open."""
        exec(compile(prelude, HELPERS, "exec", dont_inherit=True), self._names)  # noqa: S102 - it is the host's

    def run(self, turn: int, code: str) -> None:
        """Run a cell and tell the host how it ended."""
        from rlm_langchain.sandboxes.reserved_names import refused
        from rlm_langchain.sandboxes.worker.repl import cell

        self._cell += 1
        name = f"<cell {self._cell}>"
        self._runner.turn, self._runner.is_open = turn, True
        error = refused(code, frozenset(self._reserved)) or self._runner.run_program(
            lambda: cell.run(code, name, self._names)
        )
        self._restore()
        try:
            self._runner.end(self._answers.take_answer(), error)
        except (TypeError, ValueError) as unfit:
            self._runner.end(None, error or f"{type(unfit).__name__}: {unfit}")

    def _restore(self) -> None:
        """Restore names that a program may have removed, by accident or on purpose."""
        vars(builtins).update(self._builtins)
        self._names.update(self._reserved)
        self._names.update(__name__="__main__", __builtins__=builtins)


def main(bundled: Any) -> None:
    """Serve the host until it closes the pipe."""
    channel = take_over_standard_streams()
    bundled.fd = channel.incoming
    _, limits, files, prelude, program = channel.receive()
    repl = Repl(channel, limits)
    repl.make_deterministic(bundled.after, limits["clock"], limits["seed"])
    problem = confinement_check.give_up(program) or _start_repl(repl, limits, files, prelude)
    channel.send('["ready"]' if problem is None else ended(0, problem))
    _warm_up(bundled, prelude)
    channel.send('["ready"]')
    while True:
        repl.run(*channel.receive()[1:])


def _start_repl(repl: Repl, limits: dict[str, Any], files: Any, prelude: str) -> str | None:
    try:
        contexts = {name: load_context(file, limits) for name, file in files.items()}
    except (MemoryError, OSError, ValueError) as error:
        return f"the context could not be loaded: {type(error).__name__}: {error}"
    return repl.start(contexts, prelude)


def _warm_up(bundled: Any, prelude: str) -> None:
    """Load what cells need while the host is busy, and while there is memory."""
    bundled.complete()
    import warnings

    from rlm_langchain.sandboxes.worker.repl import tracebacks

    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", SyntaxWarning)
    tracebacks.remember(HELPERS, prelude)


def _pools() -> Any:
    from rlm_langchain.sandboxes.worker.determinism import thread_pool

    return thread_pool
