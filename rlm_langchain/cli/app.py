"""The commands. Each says what it is asked for in its signature, and leaves the work to its neighbours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from rlm_langchain.cli.options import Setup, Shown, grouped

NARROWEST = 24
"""Columns that help is never narrower than."""


def examples(*lines: str) -> str:
    """The end of a command's help: commands to copy, each on its line."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="rlm",
    help="Ask questions over contexts that no model can read whole.",
    epilog="Environment: RLM_MODEL, RLM_SUB_MODEL, RLM_HOME; keys and addresses as `rlm doctor` lists them.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Given to click, which takes no terminal for narrower than 50 columns.
        "terminal_width": max(NARROWEST, min(shutil.get_terminal_size().columns, 80) - 2),
    },
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


@app.command(
    epilog=examples(
        'rlm ask "How many errors are there?" app.log -m openai/gpt-4o',
        'cat app.log | rlm ask "Which came first?" - -m local',
        'rlm ask "Who signed?" contracts/ --usd 0.50 --thread deal',
    )
)
@grouped
def ask(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    context: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONTEXT", help="Files or folders to ask about; - is standard input; several become one dict."
        ),
    ] = None,
    *,
    thread: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the run under this name, or go on with the conversation there."),
    ] = None,
    setup: Setup,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse undecodable bytes.")] = False,
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Encoding of input that is not UTF-8: latin-1, cp1252, ..."),
    ] = None,
    shown: Shown,
) -> None:
    """Ask a question, and watch it being answered.

    The answer goes to standard output, everything else to standard error. The exit status is 0 for an answer,
    complete or partial, 1 if there is none, 2 if the usage or the configuration is wrong, or standard output cannot
    be written, 130 after Ctrl-C.
    """
    from rlm_langchain.cli.commands import ask

    raise typer.Exit(ask.ask(query, context or (), thread, setup, shown, strict=strict, encoding=encoding))


@app.command(epilog=examples("rlm resume deal", "rlm resume deal --calls 200"))
@grouped
def resume(name: Annotated[str, typer.Argument(metavar="NAME")], *, setup: Setup, shown: Shown) -> None:
    """Go on with a run that was stopped, killed, or lost its model.

    NAME is that of `rlm ask --thread NAME`. Nothing that was answered is asked, or paid, again. The run has the
    options that it was begun with; others that are given here take their place.
    """
    from rlm_langchain.cli.commands import ask

    raise typer.Exit(ask.resume(name, setup, shown))


@app.command(epilog=examples("rlm fork deal --at 2 -m openai/gpt-4o --as deal-again"))
@grouped
def fork(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    at: Annotated[
        int | None,
        typer.Option(metavar="TURN", min=1, help="Go back to before this turn. Default: to its end."),
    ] = None,
    new: Annotated[
        str | None, typer.Option("--as", metavar="NEW", help="The name of the new thread. Default: NAME-2, ...")
    ] = None,
    setup: Setup,
    shown: Shown,
) -> None:
    """Go back to a turn of a run, and on from there in a new thread.

    It may have other models, strategies or limits. The turns before are not paid again. The old thread stays as it
    is.
    """
    from rlm_langchain.cli.commands import ask

    raise typer.Exit(ask.fork(name, at, new, setup, shown))


@app.command(epilog=examples("rlm runs", "rlm runs --json"))
def runs(
    *, json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False
) -> None:
    """List the runs that are kept: how far each came, at what cost."""
    from rlm_langchain.cli.commands import runs

    runs.show(json=json)


@app.command(epilog=examples("rlm forget deal deal-2"))
def forget(names: Annotated[list[str], typer.Argument(metavar="NAME")]) -> None:
    """Remove runs that are kept, for good. `rlm gc` then frees what only they referred to."""
    from rlm_langchain.cli.session.threads import Threads

    threads = Threads()
    for name in names:
        threads.need(name)
    for name in dict.fromkeys(names):
        threads.forget(name)
        print(f"forgot {name}")


@app.command(epilog=examples("rlm gc --dry-run", "rlm gc --older-than 7d"))
def gc(
    *,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="What was used since stays: 30d, 12h, 90m.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
) -> None:
    """Free the disk of what no run that is kept refers to.

    Those are contexts, indexes and receipts. What a run at work may need is never removed.
    """
    from rlm_langchain.cli.commands import gc

    print(gc.collect(older_than, dry_run=dry_run))


@app.command(epilog=examples("rlm show deal", "rlm show steps.jsonl --full", "rlm show deal --html run.html"))
def show(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Of a run that is kept, or of a file from `rlm ask --trace`. Default: the last run kept.",
        ),
    ] = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page for a browser instead. It needs no network and no server."),
    ] = None,
) -> None:
    """Show what a run did, step by step, child runs in their places."""
    from rlm_langchain.cli.commands.show import show_run, write_page

    if html is None:
        show_run(what, full=full)
    else:
        write_page(what, html)


@app.command(epilog=examples("rlm compare deal deal-2", "rlm compare before.jsonl after.jsonl"))
def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="Name of a run that is kept, or a file from `rlm ask --trace`.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Compare two runs: answers, cost and time, and where their code parts, turn by turn."""
    from rlm_langchain.cli.commands.compare import compare_runs

    print("\n".join(compare_runs(first, second)))


@app.command(epilog=examples("rlm strategies", "rlm strategies show grep"))
def strategies(
    what: Annotated[
        str | None, typer.Argument(metavar="show", help="With a name: what it says and defines.")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of a strategy, or a folder of skills.")
    ] = None,
) -> None:
    """List the strategies and their uses; `show NAME` prints one."""
    from rlm_langchain.cli.commands import strategies as shelf

    shelf.run(what, name)


@app.command(epilog=examples("rlm doctor"))
def doctor() -> None:
    """Say what this machine can run, what is missing, where data is."""
    from rlm_langchain.cli.doctor import examine, report, usable

    findings = list(examine())
    print("\n".join(report(findings)))
    raise typer.Exit(0 if usable(findings) else 1)


@app.command(
    epilog=examples(
        "rlm mcp -m openai/gpt-4o --root ~/papers", "RLM_MCP_TOKEN=secret rlm mcp --http 8000 --usd 0.50"
    )
)
@grouped
def mcp(
    *,
    setup: Setup,
    root: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="What may be read. Default: the current folder. May be given often."),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Serve over HTTP, at /mcp, not stdio; 0: any port."),
    ] = None,
) -> None:
    """Serve the RLM to clients of the Model Context Protocol.

    They can call `ask`, `load_context` and `search`. The limits hold for each question. With RLM_MCP_TOKEN set,
    HTTP clients have to send it.
    """
    from rlm_langchain.cli.commands.mcp import serve

    serve(setup, root or [Path.cwd()], http)
