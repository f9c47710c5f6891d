"""The benchmark as inspect_ai tasks: items are samples, arms are solvers, and each item has its metric.

Inspect provides logs of all samples, retries of failed ones, and `inspect view`. The arms call the models
themselves, under their own limits, so inspect gets a mock model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval_set, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from rlm_langchain.bench.items import length_name
from rlm_langchain.bench.plan import LOGS
from rlm_langchain.bench.results import Row
from rlm_langchain.bench.run import Run, begin, run_of
from rlm_langchain.errors import RLMError

NO_MODEL = "mockllm/model"
"""Inspect's mock model, which is never called."""
ROW = "row"
"""Key of the result in the metadata of a sample and of its score."""


@task
def rlm_bench(folder: str, arm: str, family: str, length: int) -> Task:
    """Return the task in which an arm answers the questions of one family and length. `folder` holds the plan."""
    run = run_of(Path(folder))
    samples = [
        Sample(
            id=record["id"],
            input=run.stored["questions"][record["id"]]["text"],
            target=run.stored["questions"][record["id"]]["expected"],
            metadata={"sha256": record["sha256"], "chars": record["chars"]},
        )
        for record in run.stored["manifest"]["items"]
        if record["family"] == family and record["length"] == length
    ]
    name = f"{arm}-{family}-{length_name(length)}"
    return Task(MemoryDataset(samples), solver=answering(folder, arm), scorer=known_answer(), name=name)


@solver
def answering(folder: str, arm: str) -> Solver:
    """Return a solver in which an arm answers the question of a sample."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        run = run_of(Path(folder))
        row = await run.answer(arm, run.item(str(state.sample_id)))
        state.metadata[ROW] = row
        state.output = ModelOutput.from_content(NO_MODEL, row["answer"])
        state.completed = True
        return state

    return solve


@scorer(metrics=[mean()])
def known_answer() -> Scorer:
    """Return a scorer that reports the score by the item's metric."""

    async def score(state: TaskState, target: Target) -> Score:
        row: Row = state.metadata[ROW]
        return Score(value=row["score"], answer=row["answer"], explanation=row["failure"], metadata={ROW: row})

    return score


def execute(run: Run, parallel: int) -> None:
    """Run everything in the folder of a benchmark that has no result yet.

    Raises the `RLMError` of the first question that fails with one, and `KeyboardInterrupt` after Ctrl-C.
    """
    begin(run)
    plan = run.plan
    tasks = [
        rlm_bench(folder=str(run.folder), arm=arm, family=family, length=length)
        for length in plan.lengths
        for family in plan.families
        for arm in plan.arms
    ]
    done, logs = eval_set(
        tasks,
        log_dir=str(run.folder / LOGS),
        model=NO_MODEL,
        max_tasks=1,
        max_samples=parallel,
        retry_attempts=0,
        retry_immediate=False,
        fail_on_error=True,
        display="none",
        log_dir_allow_dirty=True,
    )
    if run.stopped is not None:
        raise run.stopped
    if not done:
        raise RLMError(_reason(logs))
    if len(rows(run.folder)) < plan.runs:  # after Ctrl-C, inspect reports success
        raise KeyboardInterrupt


def _reason(logs: list[EvalLog]) -> str:
    errors = [log.error.message for log in logs if log.error is not None]
    return errors[0] if errors else "the benchmark was interrupted: the same command continues"


def rows(folder: Path) -> list[Row]:
    """Return the results in the folder of a benchmark, in the order of its plan."""
    found: dict[tuple[str, str], Row] = {}
    for log in _logs(folder):
        for sample in log.samples or ():
            score = (sample.scores or {}).get("known_answer")
            if score is not None and sample.error is None:
                row: Any = (score.metadata or {})[ROW]
                found[row["arm"], row["item"]] = row
    run = run_of(folder)
    order = {record["id"]: number for number, record in enumerate(run.stored["manifest"]["items"])}
    return sorted(found.values(), key=lambda row: (run.plan.arms.index(row["arm"]), order[row["item"]]))


def _logs(folder: Path) -> Iterator[EvalLog]:
    """Yield the logs of a benchmark, oldest first."""
    for info in list_eval_logs(str(folder / LOGS), descending=False):
        yield read_eval_log(info)
