"""The commands of `rlm`, with their arguments, options and help. Other modules do the work."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlm_langchain.cli.commands.bench import BenchOptions
from rlm_langchain.cli.options import DataSetOptions, DisplayOptions, Setup, grouped

MIN_COLUMNS = 24
"""Least width of the help, in columns."""


def examples(*lines: str) -> str:
    """Return the end of a command's help: examples, one a line."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


OVERRIDE_HELP = {
    "model": "Another model to write the code. Default: that of the run.",
    "sub_model": "Another model to answer sub-calls. Default: that of the run.",
    "schema": "Another JSON schema of the answer: a file, or the schema itself. Default: that of the run.",
    "price": "Another price, in dollars per million input and output tokens. Default: that of the run.",
}
"""Help of options that replace those of a saved run."""

app = typer.Typer(
    name="rlm",
    help="Ask questions about texts that are too long for a model to read whole.",
    epilog="Environment variables: RLM_MODEL and RLM_SUB_MODEL name the models, RLM_HOME is the data folder. "
    "`rlm doctor` lists those for keys and addresses of providers.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Without this, click writes at least 50 columns, also in a narrower terminal.
        "terminal_width": max(MIN_COLUMNS, min(shutil.get_terminal_size().columns, 80) - 2),
    },
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
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
@grouped()
def ask(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question.")],
    context: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONTEXT",
            help="Files or folders to ask about, or - for standard input. Several become one dict. "
            "NAME=PATH makes one a variable.",
        ),
    ] = None,
    *,
    thread: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Save the run under this name. If there is one, ask it the next question."
        ),
    ] = None,
    setup: Setup,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse what would be left out, replaced or guessed. Default: say so."),
    ] = False,
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Encoding of files and standard input that are not UTF-8, such as latin-1."
        ),
    ] = None,
    display: DisplayOptions,
) -> None:
    """Ask a question, and show how it is answered.

    The answer goes to standard output, everything else to standard error. The exit code is 0 if there is an answer,
    complete or partial; 1 if there is none; 2 if the arguments or the configuration are wrong, or the answer cannot
    be written to standard output; 130 after Ctrl-C.
    """
    from rlm_langchain.cli.commands import ask

    raise typer.Exit(ask.ask(query, context or (), thread, setup, display, strict=strict, encoding=encoding))


OF_BATCH = {
    "usd": "Limit: dollars for all rows together, over all runs of the batch.",
    "calls": "Limit: model calls for all rows together, over all runs of the batch.",
    "tokens": "Limit: input and output tokens of all rows together, over all runs of the batch.",
    "seconds": "Limit: seconds of work on each row, over all resumes.",
    "concurrency": "Model calls at once, of all rows together.",
    "approve_above_calls": "Not available: a batch cannot ask a person.",
    "approve_above_usd": "Not available: a batch cannot ask a person.",
}
"""Help texts of options that have another meaning for a batch."""


@app.command(
    epilog=examples(
        "rlm batch questions.jsonl --out results.jsonl -m openai/gpt-4o --usd 50",
        "rlm batch questions.jsonl --out results.jsonl -m local --concurrency 4",
    )
)
@grouped(OF_BATCH)
def batch(
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="QUESTIONS",
            help="A JSON Lines file with the keys id, query, and context or path; optionally model and budget.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file for the results, in JSON Lines.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the batch. Default: derived from the path of QUESTIONS."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Questions that run at once. Default: 16, or the concurrency if that is lower."
        ),
    ] = None,
    setup: Setup,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Limit: model calls that start per minute, for all rows together."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only errors and the questions without an answer.")
    ] = False,
) -> None:
    """Ask all questions in a file, and write the results to another file.

    Each question is a saved run. Run the same command again after Ctrl-C or a crash, or with a higher limit: it
    keeps the answers, resumes unfinished runs and asks the rest. The exit code is 0 if all questions have an
    answer, complete or partial; 1 if some have none; 2 if the arguments, the configuration or the questions are
    invalid, in which case nothing was paid; 130 after Ctrl-C.
    """
    from rlm_langchain.cli.commands import batch

    raise typer.Exit(batch.batch(questions, out, name, rows, requests_per_minute, setup, quiet=quiet))


@app.command(epilog=examples("rlm resume deal", "rlm resume deal --calls 200"))
@grouped(
    OVERRIDE_HELP
    | {
        "sandbox": "Cannot be changed: the code of the run may do something else in another sandbox.",
        "strategy": "Cannot be changed: the model has read its strategies. `rlm fork` can add one.",
    }
)
def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name given with `rlm ask --thread NAME`.")],
    *,
    setup: Setup,
    display: DisplayOptions,
) -> None:
    """Continue a run that was interrupted or killed, or whose model failed.

    Calls that were answered are not made or paid for again. The run keeps its options and limits; one that is given
    here replaces that of the run. A limit counts everything that the run uses, before and after. A run that has
    ended prints its answer again and cannot be continued: see `rlm fork`.
    """
    from rlm_langchain.cli.commands import ask

    raise typer.Exit(ask.resume(name, setup, display))


@app.command(epilog=examples("rlm fork deal --at 2 -m openai/gpt-4o --as deal-again"))
@grouped(
    OVERRIDE_HELP
    | {
        "sandbox": "Cannot be changed: the code of the run may do something else in another sandbox.",
        "strategy": "Another strategy, in addition to those of the run. May be repeated.",
    }
)
def fork(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the run to go back in.")],
    *,
    at: Annotated[
        int | None,
        typer.Option(
            metavar="TURN", min=1, help="Continue from before this turn. Default: from where the run is now."
        ),
    ] = None,
    new: Annotated[
        str | None,
        typer.Option("--as", metavar="NEW", help="The name of the new run. Default: NAME-2, NAME-3, ..."),
    ] = None,
    setup: Setup,
    display: DisplayOptions,
) -> None:
    """Go back to a turn of a run, and continue from there as a new run.

    Calls that were answered before that turn are not made or paid for again. The new run has the options and limits
    of the old one; one that is given here replaces it. A limit counts all that was used for the last question, also
    before that turn. The old run stays as it is.
    """
    from rlm_langchain.cli.commands import ask

    raise typer.Exit(ask.fork(name, at, new, setup, display))


@app.command(epilog=examples("rlm runs", "rlm runs refund", "rlm runs --json"))
def runs(
    words: Annotated[
        str | None, typer.Argument(metavar="WORDS", help="List only runs with these words in their question.")
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the runs, with their states, turns, model calls and costs.

    These are the saved runs, and the last ones without a name: those can be shown and compared, but not resumed.
    `RLM_HISTORY=off` keeps none.
    """
    from rlm_langchain.cli.commands import runs

    runs.show(words, json=json)


@app.command(epilog=examples("rlm forget deal deal-2"))
def forget(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="The names of the runs.")],
) -> None:
    """Delete runs. `rlm gc` later deletes the data that only they needed."""
    from rlm_langchain.cli.commands import runs

    runs.forget(names)


@app.command(epilog=examples("rlm gc --dry-run", "rlm gc --older-than 7d"))
def gc(
    *,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Keep what was used more recently: 90m, 12h, 30d, 4w.")
    ] = "30d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete data that no saved run needs, to free disk space.

    This deletes copies of contexts, search indexes and stored replies. Saved runs, and what a running process may
    need, are never deleted.
    """
    from rlm_langchain.cli.commands import gc

    print(gc.collect(older_than, dry_run=dry_run))


AnyRun = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="The name of a run in `rlm runs`, or the path of a file from `--trace`. Default: the last run.",
    ),
]
"""A run to show or to export."""


@app.command(epilog=examples("rlm show deal", "rlm show steps.jsonl --full", "rlm show deal --html run.html"))
def show(
    what: AnyRun = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Show long code and output in full.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page for a browser instead. It needs no network and no server."),
    ] = None,
) -> None:
    """Show the steps of a run."""
    from rlm_langchain.cli.commands.show import show_run, write_page

    if html is None:
        show_run(what, full=full)
    else:
        write_page(what, html)


@app.command(
    epilog=examples("rlm export deal --out deal.json", "rlm export deal --as chrome --out deal.trace.json")
)
def export(
    what: AnyRun = None,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write. It must not exist yet.")],
    form: Annotated[
        Literal["otlp", "chrome", "jsonl"],
        typer.Option(
            "--as",
            metavar="FORM",
            help="otlp: spans for OpenTelemetry. chrome: a timeline for ui.perfetto.dev. jsonl: all records.",
        ),
    ] = "otlp",
    content: Annotated[
        bool, typer.Option("--content", help="Write questions, code, prompts and replies into the spans, too.")
    ] = False,
) -> None:
    """Write a run to a file that viewers of traces read."""
    from rlm_langchain.cli.commands.export import export_run

    export_run(what, out, form, content=content)


@app.command(
    epilog=examples("rlm dataset --out data", "rlm dataset deal --out data --answers right.jsonl --min-reward 1")
)
@grouped()
def dataset(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names of runs in `rlm runs`, or files from `--trace`. Default: all."),
    ] = None,
    *,
    options: DataSetOptions,
) -> None:
    """Make training data from runs: turns, sub-calls and whole conversations, with a data card."""
    from rlm_langchain.cli.commands.export import write_data_set

    write_data_set(names or (), options)


@app.command(epilog=examples("rlm compare deal deal-2", "rlm compare before.jsonl after.jsonl"))
def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="The name of a run in `rlm runs`, or the path of a file from `rlm ask --trace`."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The other run.")],
) -> None:
    """Compare two runs: their answers, cost and time, and the turns in which their code differs."""
    from rlm_langchain.cli.commands.compare import compare_runs

    print("\n".join(compare_runs(first, second)))


@app.command(epilog=examples("rlm strategies", "rlm strategies show grep"))
def strategies(
    what: Annotated[str | None, typer.Argument(metavar="show", help="The word `show`: print one strategy.")] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The name of the strategy, or a folder of skills.")
    ] = None,
) -> None:
    """List the strategies, or print one with `show NAME`."""
    from rlm_langchain.cli.commands import strategies

    strategies.run(what, name)


@app.command(epilog=examples("rlm doctor"))
def doctor() -> None:
    """Report what this machine can run, what is missing, and where data is."""
    from rlm_langchain.cli.doctor import examine, report, usable

    findings = list(examine())
    print("\n".join(report(findings)))
    raise typer.Exit(0 if usable(findings) else 1)


@app.command(
    epilog=examples(
        "rlm mcp -m openai/gpt-4o --root ~/papers", "RLM_MCP_TOKEN=secret rlm mcp --http 8000 --usd 0.50"
    )
)
@grouped()
def mcp(
    *,
    setup: Setup,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="A folder whose files clients may ask about. Default: the current one. May be repeated.",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve over HTTP, at the path /mcp. Port 0 is any free port. Default: stdio.",
        ),
    ] = None,
) -> None:
    """Run a server for the Model Context Protocol (MCP).

    Clients can call three tools: `ask`, `load_context` and `search`. The limits apply to each question. If
    RLM_MCP_TOKEN is set, HTTP clients must send its value as a bearer token.
    """
    from rlm_langchain.cli.commands.mcp import serve

    serve(setup, root or [Path.cwd()], http)


bench = typer.Typer(
    help="Compare an RLM with what people would use instead, on questions with known answers.",
    epilog=examples("rlm bench run --suite smoke -m local", "rlm bench report rlm-bench"),
)
app.add_typer(bench, name="bench", no_args_is_help=True)


@bench.command(
    "run",
    epilog=examples(
        "rlm bench run --suite smoke -m local",
        "rlm bench run --suite needles -m openai/gpt-4o-mini --usd 5 --usd-each 0.20 --dry-run",
    ),
)
@grouped()
def bench_run(
    *,
    options: BenchOptions,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="The folder for contexts, logs and results.")
    ] = Path("rlm-bench"),
    parallel: Annotated[
        int, typer.Option("--parallel", metavar="N", min=1, help="Questions that run at once.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the number of items and a cost estimate; call no model.")
    ] = False,
) -> None:
    """Run a benchmark and print its report.

    The same command continues a benchmark that was interrupted or killed. Calls that were answered are not made or
    paid for again. `inspect view --log-dir FOLDER/logs` shows every answer.
    """
    from rlm_langchain.cli.commands import bench

    bench.run(options, out, parallel=parallel, dry_run=dry_run)


@bench.command("report", epilog=examples("rlm bench report rlm-bench --format csv > results.csv"))
def bench_report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a benchmark.")] = Path(
        "rlm-bench"
    ),
    *,
    form: Annotated[
        Literal["markdown", "csv"],
        typer.Option(
            "--format", metavar="NAME", help="`markdown`: tables. `csv`: one line per result. Default: markdown."
        ),
    ] = "markdown",
) -> None:
    """Print the results of a benchmark, complete or not."""
    from rlm_langchain.cli.commands import bench

    bench.report(folder, form)


@bench.command("list", epilog=examples("rlm bench list"))
def bench_list() -> None:
    """List the suites, the arms and the task families."""
    from rlm_langchain.cli.commands import bench

    bench.show_list()
