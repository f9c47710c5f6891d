"""The commands `bench run`, `bench report` and `bench list`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlm_langchain.cli import streams
from rlm_langchain.errors import ConfigurationError, MissingDependency

if TYPE_CHECKING:
    from rlm_langchain.bench.plan import Plan
    from rlm_langchain.bench.results import Row


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of `rlm bench run`."""

    suite: Annotated[str, typer.Option("--suite", metavar="NAME", help="A suite from `rlm bench list`.")] = "smoke"
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="The model to test. Default: RLM_MODEL. `scripted` calls no model.",
        ),
    ] = None
    sub_model: Annotated[
        str | None,
        typer.Option("--sub-model", metavar="NAME", help="The model for sub-calls of RLMs. Default: --model."),
    ] = None
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", metavar="NAME", help="An arm; can be repeated. Default: the suite's."),
    ] = None
    family: Annotated[
        list[str] | None,
        typer.Option("--family", metavar="NAME", help="A task family; can be repeated. Default: the suite's."),
    ] = None
    length: Annotated[
        list[str] | None,
        typer.Option(
            "--length",
            metavar="TOKENS",
            help="A context length, such as 8k or 1M; can be repeated. Default: the suite's.",
        ),
    ] = None
    n: Annotated[
        int | None,
        typer.Option("--items", metavar="N", min=1, help="Items per family and length. Default: the suite's."),
    ] = None
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Random seed of the items.")] = 0
    calls: Annotated[
        int, typer.Option("--calls", metavar="N", min=1, help="Limit per question and arm: model calls.")
    ] = 200
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="N", min=0, help="Limit per question and arm: seconds."),
    ] = None
    usd: Annotated[
        float | None, typer.Option("--usd", metavar="N", min=0, help="Limit for the whole benchmark: dollars.")
    ] = None
    usd_each: Annotated[
        float | None,
        typer.Option(
            "--usd-each",
            metavar="N",
            min=0,
            help="Limit per question and arm: dollars. Required with --usd.",
        ),
    ] = None
    price: Annotated[
        str | None,
        typer.Option(
            "--price",
            metavar="IN:OUT",
            help="Dollars per million input and output tokens, for models whose price is unknown.",
        ),
    ] = None


def run(options: BenchOptions, out: Path, *, parallel: int, dry_run: bool) -> None:
    """Run a benchmark, or continue the one in the folder, and print its report."""
    from rlm_langchain.bench.plan import prepare

    plan = _plan(options)
    if dry_run:
        print("\n".join(_estimate(plan)))
        return
    _check_installed()
    from rlm_langchain.bench.run import Run

    streams.say(f"{plan.runs} runs, into {out} ...")
    models = plan.resolve("root"), plan.resolve("sub")  # finds wrong names before anything is written
    prepare(plan, out)
    working = Run(out.resolve(), options.usd, progress=_say)
    working.models = models
    for name in plan.arms:  # finds other errors before any model is called
        _ = working.build(name, "?").graph

    from rlm_langchain.bench.inspect_tasks import execute

    try:
        execute(working, parallel)
    except KeyboardInterrupt:
        streams.say("Interrupted; no more calls are made or paid for. Run the same command to continue.")
        raise
    report(out, "markdown")


def report(folder: Path, form: Literal["markdown", "csv"]) -> None:
    """Print the results of a benchmark."""
    from rlm_langchain.bench.plan import read_run

    stored = read_run(folder)
    _check_installed()
    from rlm_langchain.bench.inspect_tasks import rows
    from rlm_langchain.bench.report import as_csv, markdown

    print((as_csv if form == "csv" else markdown)(stored, rows(folder)), end="")


def show_list() -> None:
    """Print the suites, the arms and the families of tasks."""
    from rlm_langchain.bench.arms.arm import arm, names
    from rlm_langchain.bench.plan import SUITES
    from rlm_langchain.bench.tasks import FAMILIES

    parts = [
        ("suites", [(one.name, one.about) for one in SUITES.values()]),
        ("arms", [(name, arm(name).about) for name in names()]),
        ("families", [(one.name, f"{one.about}; text: {one.source}") for one in FAMILIES.values()]),
    ]
    print("\n\n".join("\n".join([title, *_columns(lines)]) for title, lines in parts))


def _columns(lines: Sequence[tuple[str, str]]) -> Iterable[str]:
    width = max(len(name) for name, _ in lines)
    return [f"  {name:{width}}  {about}" for name, about in lines]


def _plan(options: BenchOptions) -> Plan:
    from rlm_langchain.bench.items import parse_length
    from rlm_langchain.bench.plan import Plan, suite

    model = options.model or os.environ.get("RLM_MODEL")
    if not model:
        raise ConfigurationError("no model is given: use --model NAME, or set RLM_MODEL")
    if options.usd is not None and options.usd_each is None:
        raise ConfigurationError(
            "--usd needs --usd-each, the maximum for one question and arm: a question is asked only if that much "
            "is left"
        )
    base = suite(options.suite)
    return Plan(
        model=model,
        sub_model=options.sub_model,
        arms=tuple(dict.fromkeys(options.arm or base.arms)),
        families=tuple(dict.fromkeys(options.family or base.families)),
        lengths=tuple(dict.fromkeys([*map(parse_length, options.length)] if options.length else base.lengths)),
        n=options.n or base.n,
        seed=options.seed,
        price=_price(options.price),
        calls=options.calls,
        seconds=options.seconds,
        usd_each=options.usd_each,
    ).checked()


def _price(given: str | None) -> tuple[float, float] | None:
    if given is None:
        return None
    from rlm_langchain.cli.commands.inputs import parse_price

    price = parse_price(given, given)
    return price.input, price.output


def _estimate(plan: Plan) -> list[str]:
    """Return the lines of the cost estimate."""
    from rlm_langchain.bench.plan import estimates
    from rlm_langchain.types import total_usage

    found = estimates(plan)
    lines = [("arm", "runs", "calls", "tokens", "dollars")]
    for one in found:
        lines.append(
            (one.arm, str(one.runs), f"{one.usage.calls:,}", f"{one.usage.tokens:,}", _dollars(one.usage.cost))
        )
    total = total_usage(one.usage for one in found)
    lines.append(("total", str(plan.runs), f"{total.calls:,}", f"{total.tokens:,}", _dollars(total.cost)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    items = plan.runs // len(plan.arms)
    return [
        f"{items} items, {len(plan.arms)} arms, {plan.runs} runs. A rough estimate; no model was called.",
        *table,
    ]


def _dollars(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:.2f}"


def _say(row: Row) -> None:
    """Print a result without its score, because scripted runs have none."""
    how = f"no answer ({row['failure']})" if row["failure"] else "answered"
    streams.say(f"{row['arm']}  {row['item']}  {how}, {row['seconds']:.1f} s")


def _check_installed() -> None:
    if find_spec("inspect_ai") is None:
        raise MissingDependency("benchmarks need inspect_ai: pip install 'rlm-langchain[bench]'")
