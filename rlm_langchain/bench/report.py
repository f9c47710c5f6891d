"""Formats the results of a benchmark: a report in Markdown, or CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from rlm_langchain.bench.arms.fixed import SCRIPTED
from rlm_langchain.bench.items import length_name
from rlm_langchain.bench.plan import Plan, StoredRun, read_plan
from rlm_langchain.bench.results import Row, cost_of
from rlm_langchain.bench.statistics import mcnemar, paired_bootstrap, percentile, wilson

UNKNOWN = "unknown"
MIN_BOOTSTRAP_ITEMS = 5
"""Minimum number of items for a bootstrap interval. Resamples of fewer items hardly differ."""
SCRIPTED_NOTE = (
    "**scripted**: no model was called; a fixed policy replied. The figures show the work of the harness; there "
    "are no scores."
)
HEAD = (
    *("arm", "length", "score", "95 %", "n", "failures", "root in / out", "sub in / out", "cached", "calls"),
    *("dollars", "p50 s", "p95 s"),
)
CSV_HEAD = (
    *("arm", "family", "length", "item", "score", "answer", "failure", "stop_reason", "root_input", "root_output"),
    *("sub_input", "sub_output", "cached", "calls", "cost_usd", "seconds", "resumed"),
)


def markdown(stored: StoredRun, rows: Sequence[Row]) -> str:
    """Return the report: the plan, results by arm and length, results by family, and differences between arms."""
    plan = read_plan(stored)
    scripted = plan.model == SCRIPTED
    parts = [*_preface(stored, plan, rows), *([SCRIPTED_NOTE] if scripted else [])]
    parts += ["## By arm and length", _table(HEAD, _by_length(plan, rows, scripted)), _legend()]
    parts += ["## By family", _table(*_by_family(plan, rows, scripted))]
    parts += ["## Differences on the same items"]
    parts += [SCRIPTED_NOTE] if scripted else [_table(DIFFERENCES, _differences(plan, rows)), _LEGEND_DIFFERENCES]
    return "\n\n".join(parts) + "\n"


def as_csv(stored: StoredRun, rows: Iterable[Row]) -> str:
    """Return one line per result. With the scripted policy, the score is the word `scripted`."""
    scripted, text = read_plan(stored).model == SCRIPTED, io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(CSV_HEAD)
    for row in rows:
        root, sub, cost = row["root"], row["sub"], cost_of(row)
        lines.writerow(
            [
                *(row["arm"], row["family"], row["length"], row["item"]),
                SCRIPTED if scripted else row["score"],
                *(_one_line(row["answer"]), row["failure"] or "", row["stop_reason"]),
                *(root["input"], root["output"], sub["input"], sub["output"], root["cached"] + sub["cached"]),
                *(root["calls"] + sub["calls"], UNKNOWN if cost is None else cost, row["seconds"], row["resumed"]),
            ]
        )
    return text.getvalue()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _preface(stored: StoredRun, plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    machine, missing = stored["machine"], plan.runs - len(rows)
    yield f"# Benchmark of {plan.model}"
    limits = [f"{plan.calls} calls"]
    limits += [f"{plan.seconds:g} s"] if plan.seconds is not None else []
    limits += [f"${plan.usd_each:g}"] if plan.usd_each is not None else []
    yield "\n".join(
        [
            f"- model: {plan.model}; sub-calls: {plan.sub_model or plan.model}",
            f"- limits per question and arm: {', '.join(limits)}",
            f"- {plan.n} items per family and length, seed {plan.seed}, manifest "
            f"`{stored['manifest']['sha256'][:16]}`",
            f"- rlm-langchain {machine['rlm_langchain']}, Python {machine['python']}, {machine['system']}, "
            f"{machine['cores']} cores",
        ]
    )
    if missing:
        yield f"**Incomplete: {missing} of {plan.runs} results are missing.**"


def _by_length(plan: Plan, rows: Sequence[Row], scripted: bool) -> Iterator[Sequence[str]]:
    for length in plan.lengths:
        for arm in plan.arms:
            if cell := [row for row in rows if row["arm"] == arm and row["length"] == length]:
                yield [arm, length_name(length), *_scored(cell, scripted), *_spent(cell)]


def _scored(cell: Sequence[Row], scripted: bool) -> list[str]:
    """Return the score with its interval, the number of items, and the failures by reason."""
    n = len(cell)
    score = sum(row["score"] for row in cell) / n
    low, high = wilson(score, n)
    reasons = Counter(row["failure"] for row in cell if row["failure"])
    failures = ", ".join(f"{count} {_one_line(str(reason))}" for reason, count in reasons.most_common()) or "0"
    shown = [SCRIPTED, ""] if scripted else [f"{score:.1%}", f"{low:.0%} to {high:.0%}"]
    return [*shown, str(n), failures]


def _spent(cell: Sequence[Row]) -> list[str]:
    """Return mean tokens and calls, the sum of dollars, and percentiles of seconds."""
    n, costs = len(cell), [cost_of(row) for row in cell]
    known = [cost for cost in costs if cost is not None]
    seconds = [row["seconds"] for row in cell if not row["resumed"]]
    times = [percentile(seconds, share) for share in (0.5, 0.95)]

    def tokens(side: str) -> str:
        return " / ".join(f"{round(sum(row[side][part] for row in cell) / n):,}" for part in ("input", "output"))  # type: ignore[literal-required]

    return [
        tokens("root"),
        tokens("sub"),
        f"{round(sum(row['root']['cached'] + row['sub']['cached'] for row in cell) / n):,}",
        f"{sum(row['root']['calls'] + row['sub']['calls'] for row in cell) / n:.1f}",
        f"{sum(known):.4f}" if len(known) == n else UNKNOWN,
        *("" if time is None else f"{time:.1f}" for time in times),
    ]


def _legend() -> str:
    return (
        "Tokens and calls are means per question; dollars are the sum. Root: turns of an RLM. Sub: calls made by "
        "code, which includes all calls of a baseline. A failure scores 0. Intervals are Wilson intervals. Seconds "
        "exclude questions that were resumed by another process."
    )


def _by_family(plan: Plan, rows: Sequence[Row], scripted: bool) -> tuple[Sequence[str], Iterator[Sequence[str]]]:
    lines = (
        [
            family,
            length_name(length),
            *(_cell(rows, family=family, length=length, arm=arm, scripted=scripted) for arm in plan.arms),
        ]
        for length in plan.lengths
        for family in plan.families
    )
    return ("family", "length", *plan.arms), iter(lines)


def _cell(rows: Sequence[Row], *, family: str, length: int, arm: str, scripted: bool) -> str:
    cell = [r for r in rows if (r["family"], r["length"], r["arm"]) == (family, length, arm)]
    if not cell or scripted:
        return SCRIPTED if cell else ""
    score = sum(row["score"] for row in cell) / len(cell)
    low, high = wilson(score, len(cell))
    return f"{score:.0%} ({low:.0%} to {high:.0%}, n={len(cell)})"


DIFFERENCES = ("arms", "length", "n", "difference", "95 %", "p (McNemar)")
_LEGEND_DIFFERENCES = (
    "The mean score of the first arm minus that of the second, with a paired bootstrap interval (10,000 resamples; "
    "none for fewer than 5 items). McNemar's exact test compares how often each arm scores 1; p is not corrected "
    "for multiple comparisons."
)


def _differences(plan: Plan, rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    scores = {(row["arm"], row["item"]): row["score"] for row in rows}
    for length in plan.lengths:
        items = list(dict.fromkeys(row["item"] for row in rows if row["length"] == length))
        for first, second in combinations(plan.arms, 2):
            both = [
                (scores[first, item], scores[second, item])
                for item in items
                if (first, item) in scores and (second, item) in scores
            ]
            if both:
                yield _difference(f"{first} - {second}", length, both)


def _difference(arms: str, length: int, both: Sequence[tuple[float, float]]) -> list[str]:
    one, other = [a for a, _ in both], [b for _, b in both]
    interval = ""
    if len(both) >= MIN_BOOTSTRAP_ITEMS:
        low, high = paired_bootstrap(one, other)
        interval = f"{low:+.0%} to {high:+.0%}"
    p = mcnemar([score == 1 for score in one], [score == 1 for score in other])
    mean = sum(a - b for a, b in both) / len(both)
    return [arms, length_name(length), str(len(both)), f"{mean:+.1%}", interval, f"{p:.3g}"]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    all_lines = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in all_lines)
