"""`create_batch`: asks many questions, as one campaign that can be killed and run again.

Each row is a run on a thread of its own, named by the campaign and the id of the row. So what became of a row is
always on its thread: an answer, a run that can be resumed, or nothing. A batch that is run again finds the first,
resumes the second and asks the third. The file of results only saves it the look at threads that have ended.

`Batch` gives rows their places and their grants, in this process. `Worker` does one row, wherever it is.
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

from rlm_langchain.batch.purse import LEAST, Account, Purse
from rlm_langchain.batch.questions import Entry, Questions
from rlm_langchain.batch.results import RIGHT, Result, ResultFile, RowError, unfinished, usage_of
from rlm_langchain.batch.worker import Begun, Done, Worker
from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limiters import Pace
from rlm_langchain.durability.thread_lock import thread_lock
from rlm_langchain.errors import ConfigurationError, JournalError, ThreadBusy
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.types import Usage
from rlm_langchain.validation import check_types

ROWS_AT_ONCE: Final = 16
"""Rows that are worked on at once, if nothing else is said. Each holds a sandbox."""
MOST_ERRORS: Final = 20
"""So many rows that end in errors, one after the other, stop the batch: a key is wrong, a provider is down."""


@dataclass(slots=True)
class Progress:
    """How far a batch has come."""

    rows: int
    found: int = 0
    """Rows that had ended before."""
    working: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Rows by status, those that were found included."""
    spent: Usage = Usage()
    """What all rows have used that do not work now, over all times that the batch was run."""
    started: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        """Return the number of rows that have ended, with or without an answer."""
        return sum(self.statuses[name] for name in (*RIGHT, "failed"))

    @property
    def rate(self) -> float:
        """Return the rows a second that this process has ended."""
        return (self.ended - self.found) / max(1e-9, time.monotonic() - self.started)

    @property
    def seconds_left(self) -> float | None:
        """Return about how many seconds the rest takes, or None if there is nothing to tell it by."""
        left = self.rows - sum(self.statuses.values())
        return left / self.rate if self.rate else None


class Summary(NamedTuple):
    """The end of a batch."""

    campaign: str
    statuses: dict[str, int]
    """Rows by status."""
    found: int
    """Rows that had ended before this process began."""
    failures: list[Result]
    """The rows that have no answer: failed, stopped or not asked."""
    spent: Usage
    """What all rows have used, over all times that the batch was run."""
    purse: Purse
    seconds: float

    @property
    def is_right(self) -> bool:
        """Return whether all rows have an answer, complete or partial."""
        return not self.failures


Show = Callable[[Progress, Result | None], object]
"""Is called with each result, and with None when rows have started."""


def create_batch(
    rlm: RLMRunnable,
    questions: str | PathLike[str] | Iterable[Mapping[str, Any]],
    out: str | PathLike[str],
    *,
    name: str | None = None,
    purse: Purse = Purse(),  # noqa: B008 - a frozen value
    rows_at_once: int | None = None,
    metadata: Mapping[str, str] = {},
) -> Batch:
    """Return a batch, whose questions are checked. `await batch.arun()` asks them.

    Args:
        rlm: Answers each row. It needs a checkpointer with async methods. Its `budget` is the most that one row may
            use, except for `concurrency` and `requests_per_minute`, which all rows share.
        questions: A file of JSON lines, or an iterable of dicts: `id`, `query`, and `context`, or `path` relative
            to the folder of the file; also `model` and `budget` of the row.
        out: The file of results. It is continued if it is one of this batch.
        name: Name of the campaign, with which the threads of its rows begin. None: made from the path of the file.
        purse: What all rows may use together, over all times that the batch is run.
        rows_at_once: Rows that are worked on at once. None: 16, or the concurrency of the budget if that is less.
        metadata: More metadata of each checkpoint.

    Raises:
        InputError: For rows that cannot be asked; it lists them by line.
        ConfigurationError: For options that cannot be used.
    """
    checked_rlm(rlm)
    check_types("create_batch", Purse, purse=purse)
    check_types("create_batch", (int, type(None)), rows_at_once=rows_at_once)
    if rows_at_once is not None and rows_at_once < 1:
        raise ConfigurationError(f"rows_at_once={rows_at_once}: at least one row must be worked on")
    if rlm.checkpointer is None or isinstance(rlm.checkpointer, bool):
        raise ConfigurationError(
            "a batch needs a checkpointer, to be run again: create_rlm(..., checkpointer=AsyncSqliteSaver(...))"
        )
    if rlm.budget.asks_person:
        raise ConfigurationError("nobody is asked in a batch: leave out approve_above_calls and approve_above_usd")
    given = Questions(questions, name)
    results = ResultFile(out)
    if results.path == given.path:
        raise ConfigurationError(f"the results would replace the questions {given.path}: give another file")
    entries = given.check(rlm.budget)
    at_once = min(ROWS_AT_ONCE, rlm.budget.concurrency) if rows_at_once is None else rows_at_once
    workers = _workers(rlm, {entry.model for entry in entries}, given, purse, dict(metadata))
    return Batch(given.campaign, entries, results, workers, purse, rlm.budget, at_once)


def _workers(
    rlm: RLMRunnable, models: set[str | None], questions: Questions, purse: Purse, metadata: dict[str, str]
) -> dict[str | None, Worker]:
    """Return a worker for each model, all at one pace. Raises `ConfigurationError`."""
    pace, found = Pace(rlm.budget.concurrency, rlm.budget.requests_per_minute), {}
    # With its share of the purse each run has these limits, so its models must have prices and output caps.
    missing = [name for name in purse.limits if getattr(rlm.budget, name) is None]
    limits: dict[str, Any] = {name: max(LEAST[name], getattr(purse, name)) for name in missing}
    base = {"on_budget": "answer", "on_failure": "return", "budget": replace(rlm.budget, **limits)}
    for model in models:
        chosen = base if model is None else {**base, "root_model": model}
        found[model] = Worker(rlm.model_copy(update=chosen).at_pace(pace), questions, metadata)
    return found


class Batch:
    """A campaign of questions. `create_batch` makes one."""

    def __init__(
        self,
        campaign: str,
        entries: list[Entry],
        results: ResultFile,
        workers: Mapping[str | None, Worker],
        purse: Purse,
        budget: Budget,
        at_once: int,
    ) -> None:
        self.campaign, self.purse = campaign, purse
        self._entries = {entry.thread: entry for entry in entries}
        self._results, self._workers = results, workers
        self._budget, self._at_once = budget, at_once
        self._reset()

    def _reset(self) -> None:
        self.progress = Progress(len(self._entries))
        self._account = Account(self.purse)
        self._begun: dict[str, Begun] = {}
        """The rows that were begun before and have not ended."""
        self._failures: list[Result] = []
        self._errors = 0
        """Rows that an error has stopped since the last one that ended."""

    async def arun(self, show: Show | None = None) -> Summary:
        """Work on all rows that have not ended, and return how the batch ended.

        A row that fails does not end the batch. Raises `ThreadBusy` if another process runs this batch,
        `InputError` for a question that was changed, and `JournalError` if there is a purse and it is not known
        what a row has spent of it.
        """
        self._reset()
        show = show or _show_nothing
        with ExitStack() as held:
            held.enter_context(self._locked())
            kept = self._results.read(self.campaign, self._entries)
            for result in kept.values():
                self._find(result)
            todo, unnoticed = await self._look([entry for name, entry in self._entries.items() if name not in kept])
            self.progress.found, self.progress.started = self.progress.ended, time.monotonic()
            held.enter_context(self._results.writing(unnoticed))
            await self._work(todo, show)
        return self.summary()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process run this batch, or write to its results."""
        home = next(iter(self._workers.values())).home
        with ExitStack() as locks:
            try:
                for what in (f"batch {self.campaign}", f"results {self._results.path}"):
                    locks.enter_context(thread_lock(home, f"rlm {what}"))
            except ThreadBusy as busy:
                raise ThreadBusy(
                    f"another process runs the batch {self.campaign!r}, or writes to {self._results.path}: wait "
                    "for it"
                ) from busy
            yield

    def summary(self) -> Summary:
        """Return how far the batch has come."""
        progress = self.progress
        seconds = time.monotonic() - progress.started
        return Summary(
            self.campaign,
            dict(progress.statuses),
            progress.found,
            self._failures,
            progress.spent,
            self.purse,
            seconds,
        )

    def _find(self, result: Result) -> None:
        """Count a row that had ended before. One that is no longer in the questions has spent all the same."""
        self._account.spent = self._account.spent.plus(usage_of(result))
        self._account.learn(usage_of(result))
        if result["thread"] in self._entries:
            self._count(result)

    async def _look(self, entries: Iterable[Entry]) -> tuple[deque[Entry], list[Result]]:
        """Return the rows to work on, the begun ones first, and the results of those that ended unnoticed."""
        new, unnoticed = deque[Entry](), list[Result]()
        for entry in entries:
            try:
                found = await self._workers[entry.model].look(entry)
            except JournalError as error:
                if self.purse.limits:
                    error.add_note(
                        f"It is not known what the row {entry.id!r} has spent of the purse. After `rlm forget "
                        f"{entry.thread}` it is asked anew, and what it has spent is not counted."
                    )
                    raise
                found = None  # working on it will say so
            if isinstance(found, Begun):
                self._begun[entry.thread] = found
                self._account.spent = self._account.spent.plus(found.used)
            elif found is not None:
                self._find(found)
                unnoticed.append(found)
            else:
                new.append(entry)
        return deque([*(self._entries[thread] for thread in self._begun), *new]), unnoticed

    async def _work(self, todo: deque[Entry], show: Show) -> None:
        working: dict[asyncio.Task[Done], Entry] = {}
        try:
            while True:
                while (places := self._places(len(working))) and todo and (budget := self._grant(todo[0], places)):
                    entry = todo.popleft()
                    begun = entry.thread in self._begun
                    task = asyncio.create_task(self._workers[entry.model].work(entry, budget, begun=begun))
                    working[task] = entry
                self.progress.working = len(working)
                show(self.progress, None)
                if not working:
                    break
                done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    entry = working.pop(task)
                    self.progress.working = len(working)
                    self._end(entry, task.result(), show)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            self.progress.working = 0
        for entry in todo:
            self._save(self._not_begun(entry), show)

    def _places(self, working: int) -> int:
        """Return how many more rows may start now."""
        if self._errors >= MOST_ERRORS:
            return 0
        return max(0, (1 if self._account.needs_pilot else self._at_once) - working)

    def _grant(self, entry: Entry, places: int) -> Budget | None:
        budget = replace(self._budget, **entry.budget)
        before, lost = self._begun.get(entry.thread, Begun(Usage()))
        return self._account.grant(entry.thread, budget, places, before, lost)

    def _end(self, entry: Entry, done: Done, show: Show) -> None:
        """Take back the grant of a row, and save its result."""
        self._account.settle(entry.thread, done.used, None if done.failed else done.result["stop_reason"])
        self._errors = self._errors + 1 if done.failed else 0
        self._save(done.result, show)

    def _not_begun(self, entry: Entry) -> Result:
        """Return the result of a row that has no place or no money."""
        begun = self._begun.get(entry.thread)
        if self._errors >= MOST_ERRORS:
            reason, why = None, f"{MOST_ERRORS} rows before it ended in errors, one after the other"
        else:
            reason = self._account.empty()
            why = f"not enough is left in the purse for another row ({reason})"
            if reason == "usd" and self._account.spent.cost is None:
                why = "there is a limit in dollars, and it is not known what earlier rows have cost"
        error = RowError(type="NotAsked" if begun is None else "Stopped", message=why)
        if begun is None:
            return unfinished(entry, "not asked", reason=reason, error=error)
        return unfinished(entry, "stopped", reason=reason, error=error, cost=begun.used.cost)

    def _save(self, result: Result, show: Show) -> None:
        self._results.add(result)
        self._count(result)
        show(self.progress, result)

    def _count(self, result: Result) -> None:
        self.progress.statuses[result["status"]] += 1
        self.progress.spent = self._account.spent
        if result["status"] not in RIGHT:
            self._failures.append(result)


def _show_nothing(progress: Progress, result: Result | None) -> None:
    """Do nothing."""
