"""The worker of a batch: looks up, resumes or asks one row.

It keeps no state between rows and can be called again for a row at any time, in this process or another one. The
answer of a row that has ended is read from its thread; a resumed row does not request a received reply again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from rlm_langchain.batch.questions import Entry, Questions
from rlm_langchain.batch.results import Result, RowError, ended, question_changed_error, unfinished, usage_of
from rlm_langchain.budget.budget import Budget
from rlm_langchain.context.sanitize import visible
from rlm_langchain.durability.standing import standing_of
from rlm_langchain.errors import JournalError, RLMError
from rlm_langchain.graph.boundary import BUDGET_KEY
from rlm_langchain.records import RLMInput, output_of
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.runnable.runnable import RLMRunnable
from rlm_langchain.types import Usage, total_usage

QUESTION_KEY: Final = "rlm_batch_question"
"""Key in the metadata of each checkpoint of a row: the hash of its question."""


class UnfinishedRow(NamedTuple):
    """Usage of a row that was started and has not ended."""

    used: Usage
    """Usage so far. Requests whose reply never came count with the maximum that they may have used."""
    lost: Usage = Usage()
    """The part of `used` that was spent on requests whose reply never came."""


class RowOutcome(NamedTuple):
    """Outcome of running a row."""

    result: Result
    used: Usage | None
    """Usage of the row, over all runs of the batch. None: unknown."""
    failed: bool
    """Whether an error stopped the row."""


class Worker:
    """Runs rows with one RLM."""

    def __init__(self, rlm: RLMRunnable, questions: Questions, metadata: Mapping[str, str]) -> None:
        self._rlm, self._questions, self._metadata = rlm, questions, metadata

    @property
    def home(self) -> Path:
        """Return the folder of contexts, receipts and locks."""
        return self._rlm.built.components.store.root

    async def look_up(self, entry: Entry) -> Result | UnfinishedRow | None:
        """Return the result of a row that has ended, the usage of an unfinished row, or None for a new row.

        Raises `InputError` if its thread answers another question, and `JournalError` if the thread is damaged.
        """
        config, graph = self._config(entry), self._rlm.graph
        saver: Any = graph.checkpointer
        if await saver.aget_tuple(config) is None:
            return None
        snapshot = await graph.aget_state(config)
        standing = standing_of(snapshot)
        if standing.state == "broken":
            raise JournalError(f"the thread {entry.thread!r} is damaged")
        if await self._question_of(entry, snapshot) != entry.fingerprint:
            raise question_changed_error(entry)
        if standing.has_ended:
            return ended(entry, output_of(snapshot.values))
        return await asyncio.to_thread(self._unfinished_row, snapshot.values)

    async def _question_of(self, entry: Entry, snapshot: StateSnapshot) -> str | None:
        """Return the hash of a thread's question, or None if it has several."""
        records = snapshot.values.get("trajectory", [])
        if sum(record["type"] == "question" and not record["path"] for record in records) > 1:
            return None
        metadata: Any = snapshot.metadata or {}
        if QUESTION_KEY in metadata:
            return str(metadata[QUESTION_KEY])
        saver: Any = self._rlm.graph.checkpointer
        top: RunnableConfig = {"configurable": {"thread_id": entry.thread, "checkpoint_ns": ""}}
        # `rlm resume` writes checkpoints without the hash.
        earlier = [saved.metadata async for saved in saver.alist(top)]
        return next((str(found[QUESTION_KEY]) for found in earlier if QUESTION_KEY in found), None)

    def _unfinished_row(self, values: dict[str, Any]) -> UnfinishedRow:
        """Return the usage of a run that has not ended, from its records and receipts."""
        components, run = self._rlm.built.components, values.get("run")
        tree = RunTree(components.budget)
        tree.store = components.store
        if run:
            tree.open_receipts(components.receipts_path(run))
        tree.journal("", values.get("trajectory", []))
        requests = tree.receipts.requests() if tree.receipts else []
        return UnfinishedRow(tree.ledger.spent, total_usage(request.used for request in requests if request.lost))

    async def run(self, entry: Entry, budget: Budget, *, resume: bool) -> RowOutcome:
        """Ask or resume a row within a budget. Errors of this library become results; others are raised."""
        config = self._config(entry, budget)
        try:
            if resume:
                asked: RLMInput | None = None
            else:
                query, context = await asyncio.to_thread(self._questions.load, entry)
                asked = {"query": query, "context": context}
            output = await self._rlm.ainvoke(asked, config)
        except RLMError as error:
            return await self._stopped(entry, error)
        if output.get("status") is None:
            return await self._stopped(entry, RLMError("the run waits for a person, and a batch cannot ask one"))
        return _outcome(ended(entry, output))

    async def _stopped(self, entry: Entry, error: RLMError) -> RowOutcome:
        described = RowError(type=type(error).__name__, message=visible(str(error)))
        used: Usage | None
        try:
            found = await self.look_up(entry)
        except RLMError:
            used = None
        else:
            used = found.used if isinstance(found, UnfinishedRow) else Usage()
            if found is not None and not isinstance(
                found, UnfinishedRow
            ):  # the run has ended, and only its last save failed
                return _outcome(found)
        cost = used.cost if used else None
        return RowOutcome(unfinished(entry, "stopped", error=described, cost=cost), used, failed=True)

    def _config(self, entry: Entry, budget: Budget | None = None) -> RunnableConfig:
        settings: dict[str, Any] = {"thread_id": entry.thread}
        if budget is not None:
            settings[BUDGET_KEY] = budget
        return {"configurable": settings, "metadata": {**self._metadata, QUESTION_KEY: entry.fingerprint}}


def _outcome(result: Result) -> RowOutcome:
    return RowOutcome(result, usage_of(result), failed=False)
