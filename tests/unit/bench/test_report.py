"""The report: scores with intervals, failures as zero, differences on the same items, and no score of a script."""

from __future__ import annotations

import csv
import io

from rlm_langchain.bench.items import manifest
from rlm_langchain.bench.plan import Machine, Plan, StoredRun
from rlm_langchain.bench.report import as_csv, markdown
from rlm_langchain.bench.results import Row
from rlm_langchain.types import Usage

NONE = Usage().record()


def row(arm: str, index: int, score: float, failure: str | None = None, **more: object) -> Row:
    made: dict[str, object] = {
        "item": f"niah_single-2k-{index}",
        "family": "niah_single",
        "length": 2_000,
        "index": index,
        "arm": arm,
        "score": score,
        "answer": "" if failure else "an answer",
        "failure": failure,
        "stop_reason": "answer",
        "root": NONE,
        "sub": Usage(1, 2_000, 500, 10, 0.001).record(),
        "seconds": 1.0 + index,
        "resumed": False,
    }
    return Row(**{**made, **more})  # type: ignore[typeddict-item]


def stored(model: str = "openai:gpt-4o", n: int = 10) -> StoredRun:
    plan = {
        **{"model": model, "arms": ["direct", "rlm_depth_1"], "families": ["niah_single"], "lengths": [2_000]},
        **{"n": n, "seed": 0, "sub_model": None, "price": None, "calls": 200, "seconds": 60.0, "usd_each": 0.5},
    }
    machine = Machine(system="Linux x86_64", python="3.11.7", cores=2, rlm_langchain="0.1.0")
    assert Plan(**{**plan, "arms": ("direct",)}).seed == 0
    return StoredRun(plan=plan, machine=machine, manifest=manifest([], 0), questions={})


def lines_of(report: str, begin: str) -> list[list[str]]:
    """The cells of the lines of tables that begin so."""
    return [[c.strip() for c in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith(begin)]


RIGHT = [row("direct", n, float(n < 5)) for n in range(10)]
BETTER = [row("rlm_depth_1", n, 1.0, root=Usage(2, 3_000, 0, 40, 0.002).record()) for n in range(10)]


def test_a_score_has_an_interval_a_count_and_a_usage() -> None:
    report = markdown(stored(), [*RIGHT, *BETTER])
    [direct] = lines_of(report, "| direct |")
    assert direct[:6] == ["direct", "2k", "50.0%", "24% to 76%", "10", "0"]
    assert direct[6:] == ["0 / 0", "2,000 / 10", "500", "1.0", "0.0100", "5.0", "10.0"]
    [rlm] = lines_of(report, "| rlm_depth_1 |")
    assert rlm[2:4] == ["100.0%", "72% to 100%"]
    assert rlm[6:11] == ["3,000 / 40", "2,000 / 10", "500", "3.0", "0.0300"]
    assert "missing" not in report


def test_failures_count_as_zero_and_are_named() -> None:
    rows = [row("direct", 0, 1.0), row("direct", 1, 0.0, "usd"), row("direct", 2, 0.0, "too long")]
    [direct] = lines_of(markdown(stored(n=3), rows), "| direct |")
    assert direct[2] == "33.3%"
    assert direct[5] == "1 usd, 1 too long"


def test_differences_compare_the_same_items_only() -> None:
    [line] = lines_of(markdown(stored(), [*RIGHT[:8], *BETTER[2:]]), "| direct - rlm_depth_1 |")
    # Items 2 to 7 have both: three right, three wrong of one arm, all right of the other.
    assert line[1:4] == ["2k", "6", "-50.0%"]
    assert (line[4] != "", line[5]) == (True, "0.25")
    [few] = lines_of(markdown(stored(), [*RIGHT[:4], *BETTER[:4]]), "| direct - rlm_depth_1 |")
    assert few[2:5] == ["4", "+0.0%", ""]


def test_a_report_says_what_is_missing_and_what_is_unknown() -> None:
    unknown = row("direct", 0, 1.0, sub=Usage(1, 10, 0, 10, None).record(), resumed=True)
    report = markdown(stored(), [unknown])
    assert "**Incomplete: 19 of 20 results are missing.**" in report
    assert lines_of(report, "| direct |")[0][10:] == ["unknown", "", ""]
    assert markdown(stored(), []).count("missing") == 1


def test_a_scripted_policy_has_no_scores() -> None:
    scripted = stored("scripted")
    report, table = markdown(scripted, [*RIGHT, *BETTER]), as_csv(scripted, [*RIGHT, *BETTER])
    assert "%" not in report.replace("95 %", "")
    assert all(part.count("scripted") for part in report.split("\n## ")[1:])
    assert {line["score"] for line in csv.DictReader(io.StringIO(table))} == {"scripted"}


def test_csv_has_a_line_for_each_result() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(stored(), [row("direct", 0, 0.75, answer="two\nlines, both")]))))
    assert [(line["score"], line["answer"], line["cost_usd"], line["calls"]) for line in lines] == [
        ("0.75", "two lines, both", "0.001", "1")
    ]
