"""Questions put to arms: what each answers and uses, limits for all, and going on where a process stopped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.messages import BaseMessage

from rlm_langchain.bench.arms.arm import arm, names
from rlm_langchain.bench.arms.fixed import fixed_model
from rlm_langchain.bench.plan import Plan, estimates, prepare, suite
from rlm_langchain.bench.results import Row, cost_of
from rlm_langchain.bench.run import Run, SpendLimit
from rlm_langchain.errors import InputError, UnknownPlugin
from rlm_langchain.models.model import Price

PLAN = Plan("scripted", names(), ("niah_single",), (8_000,), 2)
WINDOW = 6_000
"""Tokens: less than a context has."""


class Reader:
    """A model that answers with the numbers of needles in its prompt. As a root model it asks about both halves."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, messages: list[BaseMessage]) -> str:
        self.asked.append(str(messages[-1].content))
        if messages[0].type == "system":
            return "```repl\nFINAL(' '.join([llm_query(context[:16000]), llm_query(context[16000:])]))\n```"
        return " ".join(re.findall(r"\b\d{7}\b", self.asked[-1])) or "NONE"


def run_in(folder: Path, reader: Reader, plan: Plan = PLAN, usd: float | None = None) -> Run:
    """A benchmark whose model is `reader`, at a dollar for a million tokens."""
    prepare(plan, folder)
    run = Run(folder, usd)
    model = replace(fixed_model("reader", reader, WINDOW), price=Price(1.0, 1.0))
    run.models = (model, model)
    return run


async def results(run: Run, *arms: str) -> list[Row]:
    items = [record["id"] for record in prepare(run.plan, run.folder)["manifest"]["items"]]
    return [await run.answer(name, run.item(item)) for name in arms for item in items]


async def test_every_arm_answers_and_counts_its_model_calls(tmp_path: Path) -> None:
    reader = Reader()
    rows = {row["arm"]: row for row in await results(run_in(tmp_path, reader, replace(PLAN, n=1)), *names())}
    assert {name: row["failure"] for name, row in rows.items() if row["failure"]} == {"direct_whole": "too long"}
    right = {name for name, row in rows.items() if row["score"] == 1}
    assert {"bm25", "bm25_wide", "map_reduce", "rlm_depth_1"} <= right
    assert {name: row["sub"]["calls"] for name, row in rows.items()} == {
        **{"bm25": 1, "bm25_wide": 1, "direct": 1, "direct_whole": 0, "map_reduce": 4, "rlm_depth_0": 0},
        "rlm_depth_1": 2,
    }
    assert {name for name, row in rows.items() if row["root"]["calls"]} == {"rlm_depth_0", "rlm_depth_1"}
    assert sum(row["root"]["calls"] + row["sub"]["calls"] for row in rows.values()) == len(reader.asked)
    assert all(len(text) < 4 * WINDOW for text in reader.asked)


async def test_an_answered_question_is_not_asked_again(tmp_path: Path) -> None:
    reader = Reader()
    [first] = await results(run_in(tmp_path, reader, replace(PLAN, n=1)), "rlm_depth_1")
    asked = len(reader.asked)
    [again] = await results(run_in(tmp_path, reader, replace(PLAN, n=1)), "rlm_depth_1")
    assert len(reader.asked) == asked
    assert (again["resumed"], again["score"], again["sub"]) == (True, first["score"], first["sub"])


async def test_the_dollar_limit_is_never_exceeded_and_counts_earlier_processes(tmp_path: Path) -> None:
    plan, reader = replace(PLAN, usd_each=0.05, arms=("bm25",), n=2), Reader()
    run = run_in(tmp_path, reader, plan, usd=0.06)
    ids = [record["id"] for record in prepare(plan, tmp_path)["manifest"]["items"]]
    first = await run.answer("bm25", run.item(ids[0]))
    cost = cost_of(first)
    assert cost is not None
    assert cost > 0
    later = run_in(tmp_path, reader, plan, usd=0.05 + cost / 2)
    with pytest.raises(SpendLimit, match="higher --usd to continue"):
        await later.answer("bm25", later.item(ids[1]))
    assert isinstance(later.stopped, SpendLimit)
    assert len(reader.asked) == 1
    enough = run_in(tmp_path, reader, plan, usd=0.05 + cost)
    assert (await enough.answer("bm25", enough.item(ids[1])))["failure"] is None


async def test_a_question_that_reaches_its_limit_fails_by_name_or_is_partial(tmp_path: Path) -> None:
    plan = replace(PLAN, usd_each=0.001, n=1, arms=("map_reduce", "rlm_depth_1"))
    rows = await results(run_in(tmp_path, Reader(), plan), "map_reduce", "rlm_depth_1")
    assert [row["score"] for row in rows] == [0.0, 0.0]
    assert all(row["failure"] for row in rows)
    assert all((cost_of(row) or 0) <= 0.001 for row in rows)


def test_a_folder_belongs_to_one_benchmark(tmp_path: Path) -> None:
    prepare(PLAN, tmp_path)
    prepare(PLAN, tmp_path)
    with pytest.raises(InputError, match="n was 2 and is 3"):
        prepare(replace(PLAN, n=3), tmp_path)
    (tmp_path / "contexts" / "niah_single-8k-1.txt").unlink()
    with pytest.raises(InputError, match=r"niah_single-8k-1\.txt is missing"):
        prepare(PLAN, tmp_path)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPlugin, match=r"no arm is called 'map_reducer'.*did you mean 'map_reduce'"):
        replace(PLAN, arms=("map_reducer",)).checked()
    with pytest.raises(UnknownPlugin, match="no suite is called 'fast'; installed: needles, smoke, standard"):
        suite("fast")


def test_an_estimate_counts_runs_and_reads_at_least_what_an_arm_must_read() -> None:
    found = {one.arm: one for one in estimates(replace(PLAN, lengths=(8_000, 1_000_000)))}
    assert {one.runs for one in found.values()} == {4}
    assert found["map_reduce"].usage.input > 2 * 1_008_000
    assert found["direct"].usage.input < 2 * 8_400 + 2 * 33_000
    assert found["direct_whole"].usage.calls == 2


def test_an_estimate_for_the_local_model_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_LOCAL_MODEL", "not-there.gguf")
    assert {one.usage.cost for one in estimates(replace(PLAN, model="local"))} == {0.0}


def test_every_arm_has_a_description() -> None:
    assert all(arm(name).name == name and arm(name).about for name in names())
