"""The commands `ask`, `resume` and `fork`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rlm_langchain.cli import streams
from rlm_langchain.cli.commands import inputs
from rlm_langchain.cli.options import DisplayOptions, Setup
from rlm_langchain.cli.rendering.summary import RunResult, finish
from rlm_langchain.cli.session.checkpointing import Persistence
from rlm_langchain.cli.session.run import context_of, watch
from rlm_langchain.cli.session.threads import SavedRun, Threads, config
from rlm_langchain.durability.thread_name import check_name
from rlm_langchain.errors import InputError
from rlm_langchain.records import RLMInput
from rlm_langchain.trajectory.jsonl import Trace


def ask(
    query: str,
    context: Sequence[str],
    thread: str | None,
    setup: Setup,
    display: DisplayOptions,
    *,
    strict: bool,
    encoding: str | None,
) -> int:
    """Start a run, or ask a thread the next question. Returns the exit code."""
    with _trace(display) as trace:
        with inputs.preparing():
            query = inputs.check(query, context)
            inputs.check_encoding(encoding, context)
            saved = Threads().find(thread) if thread is not None else None
            if saved:
                saved.check_intact()
            setup = inputs.with_models(setup.merged_with(saved.setup) if saved else setup)
            rlm = inputs.build_from(setup)
            question: RLMInput = {
                "query": query,
                "context": inputs.context(context, strict=strict, seconds=rlm.budget.seconds, encoding=encoding),
            }
        if saved and saved.standing.is_open and not display.quiet:
            streams.say("The earlier question on this thread has no answer, and will not get one.")
        result = watch(rlm, question, saving=Persistence(thread, setup), trace=trace, quiet=display.quiet)
    return finish(result, json=display.json, quiet=display.quiet)


def resume(name: str, setup: Setup, display: DisplayOptions) -> int:
    """Continue a thread. If its run has ended, print the answer again. Returns the exit code."""
    with inputs.preparing():
        saved = Threads().need(name).check_intact()
        if setup.strategy:
            raise InputError(
                "the strategies of a run cannot be changed by `rlm resume`, because its model has read them: "
                f"rlm fork {shlex.quote(name)} --strategy ..."
            )
    if saved.standing.is_open:
        return _continue(name, setup.merged_with(saved.setup), display)
    if not display.quiet:
        again = f"`rlm ask QUERY --thread {shlex.quote(name)}` asks another question on this thread"
        streams.say(f"This run has ended, so no model is called. {again}.")
    if setup != Setup():
        streams.say(
            "rlm: this run has ended, so the options of `rlm resume`, such as a higher limit, have no effect: "
            f"`rlm fork {shlex.quote(name)} --at TURN` with the same options continues from before that turn"
        )
    return finish(_saved_result(saved), json=display.json, quiet=display.quiet)


def fork(name: str, at: int | None, new: str | None, setup: Setup, display: DisplayOptions) -> int:
    """Start a thread with the state that another one had before a turn, and continue it. Returns the exit code."""
    with inputs.preparing():
        threads = Threads()
        saved = threads.need(name)
        new = threads.free_name(name) if new is None else check_name(new)
        setup = inputs.with_models(setup.merged_with(saved.setup))
        rlm = inputs.build_from(setup)
        with threads.opened() as saver:
            copy = rlm.model_copy(update={"checkpointer": saver})
            copy.fork(config(name, setup), at=at, thread=new)
        new_run = threads.need(new)
    if not display.quiet:
        where = f" from before turn {at}" if at else ""
        streams.say(f"The new thread {new} continues {name}{where}.")
    if new_run.standing.is_open:
        return _continue(new, setup, display)
    return finish(_saved_result(new_run), json=display.json, quiet=display.quiet)


def _continue(name: str, setup: Setup, display: DisplayOptions) -> int:
    with _trace(display) as trace:
        with inputs.preparing():
            setup = inputs.with_models(setup)
            rlm = inputs.build_from(setup)
        result = watch(rlm, None, saving=Persistence(name, setup), trace=trace, quiet=display.quiet)
    return finish(result, json=display.json, quiet=display.quiet)


def _saved_result(saved: SavedRun) -> RunResult:
    return RunResult(saved.output, context_of(saved.output), None, thread=saved.name)


def _trace(display: DisplayOptions) -> AbstractContextManager[Trace | None]:
    return nullcontext() if display.trace is None else Trace(display.trace)
