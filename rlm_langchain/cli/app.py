"""The commands. Each says what it is asked for in its signature, and leaves the work to its neighbours."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="rlm",
    help="Ask questions over contexts that no model can read whole.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"rlm-langchain {installed('rlm-langchain')}")
        raise typer.Exit


@app.command()
def ask(  # noqa: PLR0913 - a command line has as many options as it has
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    context: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONTEXT", help="Files or folders to ask about; - is standard input; several become one dict."
        ),
    ] = None,
    *,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Writes the code. Default: RLM_MODEL.")] = None,
    sub_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Answers sub-calls. Default: RLM_SUB_MODEL, else the same model."),
    ] = None,
    sandbox: Annotated[
        str, typer.Option(metavar="NAME", help="Where the code runs: auto, cpython, monty.")
    ] = "auto",
    strategy: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A way to work, see `rlm strategies`; auto, or a folder of skills."),
    ] = None,
    usd: Annotated[float | None, typer.Option(metavar="N", min=0, help="Limit: dollars.")] = None,
    calls: Annotated[int | None, typer.Option(metavar="N", min=1, help="Limit: model calls of all kinds.")] = None,
    tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="Limit: tokens read and written.")] = None,
    seconds: Annotated[float | None, typer.Option(metavar="N", min=0, help="Limit: wall clock.")] = None,
    iterations: Annotated[int | None, typer.Option(metavar="N", min=1, help="Limit: turns of each run.")] = None,
    depth: Annotated[int | None, typer.Option(metavar="N", min=1, help="Levels of runs below each other.")] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", min=1, help="Model calls at once.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the answer.")] = False,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep every step in this file, as JSON Lines.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse undecodable bytes.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but the answer.")] = False,
) -> None:
    """Ask a question, and watch it being answered.

    The answer goes to standard output, everything else to standard error. Ends with 0 for an answer, 1 when there
    is none, 2 when something was asked or set up wrongly, 130 after Ctrl-C.
    """
    from rlm_langchain.cli import inputs
    from rlm_langchain.cli.asking import watch
    from rlm_langchain.cli.summary import finish
    from rlm_langchain.trace import Trace

    limits = {
        "usd": usd,
        "calls": calls,
        "tokens": tokens,
        "seconds": seconds,
        "iterations": iterations,
        "depth": depth,
        "concurrency": concurrency,
    }
    with nullcontext() if trace is None else Trace(trace) as kept:
        with inputs.preparing():
            question = inputs.check(query)
            rlm = inputs.build(
                **inputs.models(model, sub_model),
                sandbox=sandbox,
                strategies=[inputs.strategy(one) for one in strategy or ()],
                budget=inputs.budget(limits),
            )
            reference = inputs.context(context or (), strict=strict)
        ended = watch(rlm, question, reference, trace=kept, quiet=quiet)
    raise typer.Exit(finish(ended, json=json, quiet=quiet))


@app.command()
def show(
    trace: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `rlm ask --trace FILE` wrote.")],
    *,
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
) -> None:
    """Show what a run did, step by step, child runs in their places."""
    from rlm_langchain.cli.show import show_trace

    show_trace(trace, full=full)


@app.command()
def strategies(
    what: Annotated[
        str | None, typer.Argument(metavar="show", help="With a name: what it says and defines.")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of a strategy, or a folder of skills.")
    ] = None,
) -> None:
    """List the strategies that are installed, and when to use each; `show NAME` prints one."""
    from rlm_langchain.cli import strategies as shelf

    shelf.run(what, name)


@app.command()
def doctor() -> None:
    """Say what this machine can run, what is missing, and where data is kept."""
    from rlm_langchain.cli.doctor import examine, report, usable

    findings = list(examine())
    print("\n".join(report(findings)))
    raise typer.Exit(0 if usable(findings) else 1)
