"""What `ask`, `resume` and `fork` do: from what was typed to the exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rlm_langchain.cli.commands import inputs
from rlm_langchain.cli.options import Setup, Shown
from rlm_langchain.cli.rendering.summary import RunResult, finish
from rlm_langchain.cli.session.checkpointing import Keeping
from rlm_langchain.cli.session.run import context_of, watch
from rlm_langchain.cli.session.threads import SavedRun, Threads, config
from rlm_langchain.errors import InputError
from rlm_langchain.records import RLMInput
from rlm_langchain.trajectory.jsonl import Trace


def ask(
    query: str,
    context: Sequence[str],
    thread: str | None,
    setup: Setup,
    shown: Shown,
    *,
    strict: bool,
    encoding: str | None,
) -> int:
    """Begin a run, or put the next question to a thread."""
    with _trace(shown) as trace:
        with inputs.preparing():
            query = inputs.check(query, context)
            inputs.check_encoding(encoding, context)
            known = Threads().find(thread) if thread is not None else None
            if known:
                known.unbroken()
            setup = inputs.named(setup.over(known.setup) if known else setup)
            rlm = inputs.made_of(setup)
            asked: RLMInput = {
                "query": query,
                "context": inputs.context(context, strict=strict, seconds=rlm.budget.seconds, encoding=encoding),
            }
        if known and known.standing.is_open and not shown.quiet:
            print("The question before this one was not answered, and is given up.", file=sys.stderr)
        ended = watch(rlm, asked, kept=Keeping(thread, setup), trace=trace, quiet=shown.quiet)
    return finish(ended, json=shown.json, quiet=shown.quiet)


def resume(name: str, setup: Setup, shown: Shown) -> int:
    """Go on with a thread; one that has ended says its answer again."""
    with inputs.preparing():
        known = Threads().need(name).unbroken()
        if setup.strategy:
            raise InputError(f"a model is told of its strategies when it begins: rlm fork {name} --strategy ...")
    if known.standing.is_open:
        return _go_on(name, setup.over(known.setup), shown)
    if not shown.quiet:
        print(f"This run has ended. `rlm ask QUERY --thread {name}` asks it something else.", file=sys.stderr)
    if setup != Setup():
        print(
            "rlm: this run has ended, and no option reopens it, be it a raised limit: "
            f"`rlm fork {shlex.quote(name)} --at TURN` with the same options goes on from before one of its turns",
            file=sys.stderr,
        )
    return finish(_ended(known), json=shown.json, quiet=shown.quiet)


def fork(name: str, at: int | None, new: str | None, setup: Setup, shown: Shown) -> int:
    """Begin a thread with what another one was before a turn, and go on from there."""
    with inputs.preparing():
        threads = Threads()
        known = threads.need(name)
        new = threads.free(name) if new is None else new
        threads.find(new)
        setup = inputs.named(setup.over(known.setup))
        rlm = inputs.made_of(setup)
        with threads.opened() as saver:
            copy = rlm.model_copy(update={"checkpointer": saver})
            copy.fork(config(name, setup), at=at, thread=new)
        begun = threads.need(new)
    if not shown.quiet:
        print(f"{new}: goes on from {name}{f', turn {at}' if at else ''}", file=sys.stderr)
    if begun.standing.is_open:
        return _go_on(new, setup, shown)
    return finish(_ended(begun), json=shown.json, quiet=shown.quiet)


def _go_on(name: str, setup: Setup, shown: Shown) -> int:
    with _trace(shown) as trace:
        with inputs.preparing():
            setup = inputs.named(setup)
            rlm = inputs.made_of(setup)
        ended = watch(rlm, None, kept=Keeping(name, setup), trace=trace, quiet=shown.quiet)
    return finish(ended, json=shown.json, quiet=shown.quiet)


def _ended(kept: SavedRun) -> RunResult:
    return RunResult(kept.output, context_of(kept.output), 0.0, thread=kept.name)


def _trace(shown: Shown) -> AbstractContextManager[Trace | None]:
    return nullcontext() if shown.trace is None else Trace(shown.trace)
