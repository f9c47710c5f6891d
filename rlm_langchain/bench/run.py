"""Runs arms on questions, each on its own thread, which can be resumed, and under a shared dollar limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

from rlm_langchain.bench.arms.arm import Setting, arm
from rlm_langchain.bench.items import Item
from rlm_langchain.bench.plan import Plan, StoredRun, context_path, read_plan, read_run, stored_item
from rlm_langchain.bench.results import Row, cost_of, row_of, usage_of
from rlm_langchain.durability.standing import standing_of
from rlm_langchain.errors import RLMError
from rlm_langchain.models.model import Model
from rlm_langchain.records import RLMOutput, output_of
from rlm_langchain.runnable.fork import reading_graph

if TYPE_CHECKING:
    from rlm_langchain.runnable.runnable import RLMRunnable

THREADS, HOME = "threads.sqlite", "home"


class SpendLimit(RLMError):
    """Raised when the dollar limit of the whole benchmark leaves no room for another question."""


@dataclass
class Run:
    """A benchmark in a folder."""

    folder: Path
    usd: float | None = None
    """Dollar limit for the whole benchmark, over all processes. None: no limit."""
    progress: Callable[[Row], None] = field(default=lambda _: None)
    """Called with each result."""
    stopped: RLMError | None = None
    """The error that stopped the benchmark, or None."""
    _spent: dict[str, float] = field(default_factory=dict)
    """Dollars spent, by thread."""
    _reserved: float = 0.0
    """Dollars that questions in flight may still use."""

    @cached_property
    def stored(self) -> StoredRun:
        """Return the stored plan, manifest and questions."""
        return read_run(self.folder)

    @cached_property
    def plan(self) -> Plan:
        """Return the plan in the folder."""
        return read_plan(self.stored)

    @cached_property
    def models(self) -> tuple[Model, Model]:
        """Return the root model and the model for sub-calls."""
        return self.plan.resolve("root"), self.plan.resolve("sub")

    def item(self, name: str) -> Item:
        """Return an item of the manifest without its context, which is in a file."""
        return stored_item(self.stored, name)

    def build(self, name: str, question: str, **options: Any) -> RLMRunnable:
        """Build an arm for a question."""
        root, sub = self.models
        return arm(name).build(Setting(root, sub, question, self.plan.budget, options))

    async def answer(self, name: str, item: Item) -> Row:
        """Answer a question with an arm, or resume an earlier process. Raises `SpendLimit`."""
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        thread = f"{name} {item.id}"
        config: RunnableConfig = {"configurable": {"thread_id": thread}}
        each = self._reserve()
        try:
            async with AsyncSqliteSaver.from_conn_string(str(self.folder / THREADS)) as saver:
                await self._read_spent(saver)
                self._check(each)
                built = self.build(name, item.question.text, checkpointer=saver, home=self.folder / HOME)
                began = time.monotonic()
                output, resumed = await self._ask(built, item, config)
        except RLMError as error:
            self.stopped = error
            raise
        finally:
            self._reserved -= each
        row = row_of(item, name, output, seconds=time.monotonic() - began, resumed=resumed)
        self._spent[thread] = cost_of(row) or 0.0
        self.progress(row)
        return row

    async def _ask(self, built: RLMRunnable, item: Item, config: RunnableConfig) -> tuple[RLMOutput, bool]:
        """Return the output of a thread, and whether an earlier process started it."""
        state = await built.graph.aget_state(config)
        standing = standing_of(state)
        if standing.has_ended and standing.is_saved:
            return output_of(state.values), True
        if standing.is_open or standing.has_ended:
            return await built.ainvoke(None, config), True
        context = context_path(self.folder, item.id)
        return await built.ainvoke({"query": item.question.text, "context": context}, config), False

    def _reserve(self) -> float:
        each = self.plan.usd_each if self.usd is not None else None
        self._reserved += each or 0.0
        return each or 0.0

    def _check(self, each: float) -> None:
        if self.usd is None:
            return
        spent = sum(self._spent.values())
        if spent + self._reserved > self.usd:
            raise SpendLimit(
                f"${spent:.4f} of ${self.usd:.4f} are spent, and the next question may use ${each:.4f}: "
                "run the same command with a higher --usd to continue"
            )

    async def _read_spent(self, saver: Any) -> None:
        """Read the spending of earlier processes, including unanswered questions, once."""
        if self.usd is None or self._spent:
            return
        await saver.setup()
        graph = reading_graph(saver)
        async with saver.conn.execute("select distinct thread_id from checkpoints") as cursor:
            names = [name async for (name,) in cursor]
        for name in names:
            state = await graph.aget_state({"configurable": {"thread_id": name}})
            costs = [usage.cost for usage in usage_of(state.values.get("trajectory") or [])]
            self._spent[name] = sum(cost or 0.0 for cost in costs)


_RUNS: dict[Path, Run] = {}


def run_of(folder: Path) -> Run:
    """Return the benchmark in a folder: the registered one, or a new one."""
    return _RUNS.setdefault(folder.resolve(), Run(folder.resolve()))


def begin(run: Run) -> None:
    """Register a benchmark for its folder in this process."""
    _RUNS[run.folder.resolve()] = run
