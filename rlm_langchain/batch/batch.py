"""`create_batch`: asks many questions as one batch, which can be killed and run again.

Each row is a run on its own thread, named after the batch and the id of the row. The thread holds the answer, a run
that can be resumed, or nothing yet. When a batch is run again, it reads the answers, resumes the unfinished runs
and asks the other rows. The file of results saves it from reading the threads of rows that have ended.

`Batch` schedules the rows and gives each a part of the budget. `Worker` runs a single row.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, Final, NamedTuple

from rlm_langchain.batch.budget import MIN_GRANT, BatchBudget, BudgetAllocator
from rlm_langchain.batch.questions import Entry, Questions
from rlm_langchain.batch.results import ANSWERED, Result, ResultFile, RowError, unfinished, usage_of
from rlm_langchain.batch.worker import RowOutcome, UnfinishedRow, Worker
from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limiters import Pace
from rlm_langchain.durability.thread_lock import thread_lock
from rlm_langchain.errors import ConfigurationError, JournalError, ThreadBusy
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.types import Usage
from rlm_langchain.validation import check_types

DEFAULT_ROWS_AT_ONCE: Final = 16
"""Default number of rows that run at once, each in its own sandbox."""
MAX_CONSECUTIVE_ERRORS: Final = 20
"""Consecutive rows with errors that stop the batch: probably a key is wrong, or a provider is down."""


@dataclass(slots=True)
class Progress:
    """Progress of a batch."""

    rows: int
    found: int = 0
    """Rows that had ended before this process started."""
    running: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Number of rows by status, including those in `found`."""
    spent: Usage = Usage()
    """Usage of all rows that are not running now, over all runs of the batch."""
    started: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        """Return the number of rows that have ended, with or without an answer."""
        return sum(self.statuses[name] for name in (*ANSWERED, "failed"))

    @property
    def rate(self) -> float:
        """Return how many rows per second this process has finished."""
        return (self.ended - self.found) / max(1e-9, time.monotonic() - self.started)

    @property
    def seconds_left(self) -> float | None:
        """Return an estimate of the remaining seconds, or None if this process has not finished a row yet."""
        left = self.rows - sum(self.statuses.values())
        return left / self.rate if self.rate else None


class Summary(NamedTuple):
    """Outcome of a batch."""

    name: str
    """Name of the batch."""
    statuses: dict[str, int]
    """Number of rows by status."""
    found: int
    """Rows that had ended before this process started."""
    failures: list[Result]
    """Rows without an answer: failed, stopped or not asked."""
    spent: Usage
    """Usage of all rows, over all runs of the batch."""
    budget: BatchBudget
    seconds: float

    @property
    def all_answered(self) -> bool:
        """Return whether every row has an answer, complete or partial."""
        return not self.failures


Show = Callable[[Progress, Result | None], object]
"""Called with each result, and with None when rows have started."""


def create_batch(
    rlm: RLMRunnable,
    questions: str | PathLike[str] | Iterable[Mapping[str, Any]],
    out: str | PathLike[str],
    *,
    name: str | None = None,
    budget: BatchBudget = BatchBudget(),  # noqa: B008 - a frozen value
    rows_at_once: int | None = None,
    metadata: Mapping[str, str] = {},
) -> Batch:
    """Check the questions and return a batch. `await batch.arun()` asks them.

    Args:
        rlm: Answers each row. It needs a checkpointer with async methods. Its `budget` limits each row, except for
            `concurrency` and `requests_per_minute`, which all rows share.
        questions: A JSON Lines file, or an iterable of dicts, with the keys `id`, `query`, and either `context` or
            `path` (relative to the folder of the file); optionally `model` and `budget` for the row.
        out: The file of results. If it holds results of this batch, new ones are appended.
        name: Name of the batch, and prefix of the threads of its rows. None: derived from the path of the file.
        budget: Limits for all rows together, over all runs of the batch.
        rows_at_once: Maximum number of rows that run at once. None: 16, or the RLM's `concurrency` if lower.
        metadata: Additional metadata for each checkpoint.

    Raises:
        InputError: If rows are invalid; the message lists them by line.
        ConfigurationError: If options are invalid.
    """
    checked_rlm(rlm)
    check_types("create_batch", BatchBudget, budget=budget)
    check_types("create_batch", (int, type(None)), rows_at_once=rows_at_once)
    if rows_at_once is not None and rows_at_once < 1:
        raise ConfigurationError(f"rows_at_once={rows_at_once}: give 1 or more")
    if rlm.checkpointer is None or isinstance(rlm.checkpointer, bool):
        raise ConfigurationError(
            "a batch needs a checkpointer, so that it can be run again: "
            "create_rlm(..., checkpointer=AsyncSqliteSaver(...))"
        )
    if rlm.budget.asks_person:
        raise ConfigurationError("a batch cannot ask a person: leave out approve_above_calls and approve_above_usd")
    given = Questions(questions, name)
    results = ResultFile(out)
    if results.path == given.path:
        raise ConfigurationError(f"the results would overwrite the questions in {given.path}: give another file")
    entries = given.check(rlm.budget)
    at_once = min(DEFAULT_ROWS_AT_ONCE, rlm.budget.concurrency) if rows_at_once is None else rows_at_once
    workers = _workers(rlm, {entry.model for entry in entries}, given, budget, dict(metadata))
    return Batch(given.batch_name, entries, results, workers, budget, rlm.budget, at_once)


def _workers(
    rlm: RLMRunnable, models: set[str | None], questions: Questions, budget: BatchBudget, metadata: dict[str, str]
) -> dict[str | None, Worker]:
    """Return a worker for each model. All share the rate limit. Raises `ConfigurationError`."""
    pace, found = Pace(rlm.budget.concurrency, rlm.budget.requests_per_minute), {}
    # Each run gets these limits with its part of the budget, so its models must have prices and output caps.
    missing = [name for name in budget.limits if getattr(rlm.budget, name) is None]
    limits: dict[str, Any] = {name: max(MIN_GRANT[name], getattr(budget, name)) for name in missing}
    base = {"on_budget": "answer", "on_failure": "return", "budget": replace(rlm.budget, **limits)}
    for model in models:
        chosen = base if model is None else {**base, "root_model": model}
        found[model] = Worker(rlm.model_copy(update=chosen).at_pace(pace), questions, metadata)
    return found


class Batch:
    """Many questions with one budget. `create_batch` makes one."""

    def __init__(
        self,
        name: str,
        entries: list[Entry],
        results: ResultFile,
        workers: Mapping[str | None, Worker],
        budget: BatchBudget,
        row_budget: Budget,
        at_once: int,
    ) -> None:
        self.name, self.budget = name, budget
        self._entries = {entry.thread: entry for entry in entries}
        self._results, self._workers = results, workers
        self._row_budget, self._at_once = row_budget, at_once
        self._reset()

    def _reset(self) -> None:
        self.progress = Progress(len(self._entries))
        self._allocator = BudgetAllocator(self.budget)
        self._unfinished: dict[str, UnfinishedRow] = {}
        """Rows that earlier processes started and did not finish, by thread."""
        self._failures: list[Result] = []
        self._errors = 0
        """Consecutive rows that an error has stopped."""

    async def arun(self, show: Show | None = None) -> Summary:
        """Run all rows that have not ended, and return the outcome.

        A row that fails does not end the batch. Raises `ThreadBusy` if another process runs this batch,
        `InputError` if a question was changed, and `JournalError` if the batch has a limit and the usage of a row
        is unknown because its thread is damaged.
        """
        self._reset()
        show = show or _show_nothing
        with ExitStack() as stack:
            stack.enter_context(self._locked())
            recorded = self._results.read(self.name, self._entries)
            for result in recorded.values():
                self._count_ended(result)
            todo, unrecorded = await self._sort_rows(
                [entry for name, entry in self._entries.items() if name not in recorded]
            )
            self.progress.found, self.progress.started = self.progress.ended, time.monotonic()
            stack.enter_context(self._results.writing(unrecorded))
            await self._run_rows(todo, show)
        return self.summary()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the locks that keep other processes from running this batch or writing to its results."""
        home = next(iter(self._workers.values())).home
        with ExitStack() as locks:
            try:
                for what in (f"batch {self.name}", f"results {self._results.path}"):
                    locks.enter_context(thread_lock(home, f"rlm {what}"))
            except ThreadBusy as busy:
                raise ThreadBusy(
                    f"another process runs the batch {self.name!r} or writes to {self._results.path}: wait until "
                    "it has ended"
                ) from busy
            yield

    def summary(self) -> Summary:
        """Return the outcome so far."""
        progress = self.progress
        seconds = time.monotonic() - progress.started
        return Summary(
            self.name,
            dict(progress.statuses),
            progress.found,
            self._failures,
            progress.spent,
            self.budget,
            seconds,
        )

    def _count_ended(self, result: Result) -> None:
        """Count a row that had ended before. A row that was removed from the questions still counts as spent."""
        self._allocator.spent = self._allocator.spent.plus(usage_of(result))
        self._allocator.record_usage(usage_of(result))
        if result["thread"] in self._entries:
            self._count(result)

    async def _sort_rows(self, entries: Iterable[Entry]) -> tuple[deque[Entry], list[Result]]:
        """Return the rows to run, unfinished ones first, and results that are missing in the file of results."""
        new, unrecorded = deque[Entry](), list[Result]()
        for entry in entries:
            try:
                found = await self._workers[entry.model].look_up(entry)
            except JournalError as error:
                if self.budget.limits:
                    error.add_note(
                        f"The usage of the row {entry.id!r} is unknown, so the limit of the batch cannot be kept. "
                        f"`rlm forget {entry.thread}` deletes the row's run: it is then asked again, and its "
                        "earlier usage is not counted."
                    )
                    raise
                found = None  # running it reports the damage
            if isinstance(found, UnfinishedRow):
                self._unfinished[entry.thread] = found
                self._allocator.spent = self._allocator.spent.plus(found.used)
            elif found is not None:
                self._count_ended(found)
                unrecorded.append(found)
            else:
                new.append(entry)
        return deque([*(self._entries[thread] for thread in self._unfinished), *new]), unrecorded

    async def _run_rows(self, todo: deque[Entry], show: Show) -> None:
        running: dict[asyncio.Task[RowOutcome], Entry] = {}
        try:
            while True:
                while (
                    (slots := self._free_slots(len(running))) and todo and (budget := self._grant(todo[0], slots))
                ):
                    entry = todo.popleft()
                    resume = entry.thread in self._unfinished
                    task = asyncio.create_task(self._workers[entry.model].run(entry, budget, resume=resume))
                    running[task] = entry
                self.progress.running = len(running)
                show(self.progress, None)
                if not running:
                    break
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    entry = running.pop(task)
                    self.progress.running = len(running)
                    self._record_outcome(entry, task.result(), show)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self.progress.running = 0
        for entry in todo:
            self._save(self._unstarted_result(entry), show)

    def _free_slots(self, running: int) -> int:
        """Return how many more rows can start now."""
        if self._errors >= MAX_CONSECUTIVE_ERRORS:
            return 0
        return max(0, (1 if self._allocator.needs_pilot else self._at_once) - running)

    def _grant(self, entry: Entry, slots: int) -> Budget | None:
        budget = replace(self._row_budget, **entry.budget)
        before, lost = self._unfinished.get(entry.thread, UnfinishedRow(Usage()))
        return self._allocator.grant(entry.thread, budget, slots, before, lost)

    def _record_outcome(self, entry: Entry, done: RowOutcome, show: Show) -> None:
        """Return the unused part of the row's grant to the budget, and save the result."""
        self._allocator.release(entry.thread, done.used, None if done.failed else done.result["stop_reason"])
        self._errors = self._errors + 1 if done.failed else 0
        self._save(done.result, show)

    def _unstarted_result(self, entry: Entry) -> Result:
        """Return the result of a row that cannot start, because of too many errors or too little budget."""
        earlier = self._unfinished.get(entry.thread)
        if self._errors >= MAX_CONSECUTIVE_ERRORS:
            reason, why = None, f"the {MAX_CONSECUTIVE_ERRORS} rows before it all ended in errors"
        else:
            reason = self._allocator.exhausted_limit()
            why = f"the rest of the batch's budget is too small for another row ({reason})"
            if reason == "usd" and self._allocator.spent.cost is None:
                why = "the batch has a limit in dollars, and the cost of earlier rows is unknown"
        error = RowError(type="NotAsked" if earlier is None else "Stopped", message=why)
        if earlier is None:
            return unfinished(entry, "not asked", reason=reason, error=error)
        return unfinished(entry, "stopped", reason=reason, error=error, cost=earlier.used.cost)

    def _save(self, result: Result, show: Show) -> None:
        self._results.add(result)
        self._count(result)
        show(self.progress, result)

    def _count(self, result: Result) -> None:
        self.progress.statuses[result["status"]] += 1
        self.progress.spent = self._allocator.spent
        if result["status"] not in ANSWERED:
            self._failures.append(result)


def _show_nothing(progress: Progress, result: Result | None) -> None:
    """Do nothing."""
