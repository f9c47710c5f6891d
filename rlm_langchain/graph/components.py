"""The components that a graph is built from: everything that does not change during a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from rlm_langchain.answers.coverage import CoverageTracker, IndexCache
from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.budget.budget import Budget
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.graph.boundary import INVOCATION_KEY, check_run_name
from rlm_langchain.graph.strategy_choice import strategies_for_run
from rlm_langchain.models.call import RetryPolicy
from rlm_langchain.models.model import Model
from rlm_langchain.prompts.strategies import strategies_of
from rlm_langchain.protocols import HostFunction, Sandbox, Strategy
from rlm_langchain.records import depth_of
from rlm_langchain.retrieval.option import Search
from rlm_langchain.run.cancellation import Invocation
from rlm_langchain.run.event_loops import run_in_thread
from rlm_langchain.run.run_tree import RunTree, RunTreeRegistry
from rlm_langchain.trajectory.journal import Journal, earlier_names
from rlm_langchain.types import ContextFile, ContextRef, Limits

if TYPE_CHECKING:
    from rlm_langchain.graph.state import SubcallTask

Tools = dict[str, BaseTool]
"""Tools by the names that code in the REPL calls them by."""
DEFAULT_ITERATIONS = {"default": 30, "compact": 4}
"""Default of `Budget.iterations`, the turns of a run, by the profile of its root model. A small model that has no
answer after two turns rarely finds one: the questions of 47 that it answered correctly took one or two turns."""
NO_RECURSION_LIMIT = 1_000_000_000
"""A recursion limit for LangGraph that is never reached, because the budget ends a run."""


@dataclass(frozen=True, slots=True)
class Components:
    """The models, tools, limits and stores of a graph."""

    root: Model
    subs: tuple[Model, ...]
    """Models for sub-calls: one for each depth; the last one is used for all greater depths."""
    sandbox: Sandbox
    strategies: tuple[Strategy, ...] = ()
    auto: bool = False
    """Whether each run also has the strategies that suit its context."""
    budget: Budget = Budget()
    limits: Limits = Limits()
    store: ContextStore = field(default_factory=ContextStore)
    retry: RetryPolicy = RetryPolicy()
    memo: bool = True
    """Whether identical sub-calls of a run tree are made once."""
    tools: tuple[Tools, Tools] = ({}, {})
    """The tools of the top run, and those of child runs."""
    functions: Mapping[str, HostFunction] = field(default_factory=dict)
    """Functions of plug-ins by name. Code in the REPL calls them, and the host runs them."""
    schema: AnswerSchema | None = None
    """The schema that the answer of the top run must fit, or None."""
    search: Search | None = None
    """Answers calls of `search`. If None, the REPL has no such function."""
    citations: bool = False
    """Whether the top run must quote the context in its answer. The quotes are looked up in the context."""
    trees: RunTreeRegistry = field(default_factory=RunTreeRegistry)
    index_cache: IndexCache = field(default_factory=IndexCache)
    """Indexes of the contexts, to find which parts of them models have read."""

    def root_model(self, path: str) -> Model:
        """Return the root model of the run at `path`."""
        return self.subs[min(depth_of(path), len(self.subs)) - 1] if path else self.root

    def sub_model(self, path: str) -> Model:
        """Return the model that answers the sub-calls of the run at `path`."""
        return self.subs[min(depth_of(path), len(self.subs) - 1)]

    def max_iterations(self, path: str) -> int:
        """Return the most turns that the run at `path` may take."""
        most = self.budget.iterations
        return DEFAULT_ITERATIONS[self.root_model(path).profile] if most is None else most

    def tree(self, run: str, config: RunnableConfig) -> RunTree:
        """Return the live tree of a run. It keeps receipts if the run has a thread, and so can be resumed.

        Raises `Cancelled` if the call that the run belongs to was cancelled.
        """
        settings = config.get("configurable", {})
        invocation: Invocation | None = settings.get(INVOCATION_KEY)
        if invocation is not None:
            invocation.join(run)
        durable = "thread_id" in settings
        budget = (invocation and invocation.budget) or self.budget
        tree = self.trees.get(run, budget, self.receipts_path(run) if durable else None)
        tree.store = self.store
        return tree

    async def load_tree(self, run: str, config: RunnableConfig) -> None:
        """Load the tree of a run, with its receipts. There may be many, so they are not read on the event loop."""
        if "thread_id" in config.get("configurable", {}) and not self.trees.has_receipts(run):
            await run_in_thread(lambda: self.tree(run, config), lambda: None)

    def coverage_tracker(self, tree: RunTree, state: Mapping[str, Any], journal: Journal) -> CoverageTracker:
        """Return the tracker of the parts of the top run's contexts that models have read."""
        if tree.coverage is None:
            tree.coverage = CoverageTracker(self.store, self.index_cache)
        if not state["path"]:
            tree.coverage.set_contexts(journal.contexts.values())
        return tree.coverage

    def restore_tree(self, tree: RunTree, task: SubcallTask) -> None:
        """Tell the tree of a child run what the top run knows. After a crash, only the task has it."""
        tree.approval_limit.raise_to(task.get("agreed"))
        tree.coverage = tree.coverage or CoverageTracker(self.store, self.index_cache)
        tree.coverage.set_contexts(task.get("tops", []))

    def receipts_path(self, run: str) -> Path:
        """Return the path of a run's receipts. Raises `JournalError` for a name that no run can have."""
        return self.store.root / "receipts" / f"{check_run_name(run)}.jsonl"

    def close(self, run: str) -> None:
        """Release a run, and delete its receipts if it has ended: its last checkpoint has all that they have."""
        if self.trees.close(run):
            with suppress(NotADirectoryError):  # `home` is a file, so no receipts were written
                self.receipts_path(run).unlink(missing_ok=True)

    def answer_schema(self, path: str) -> AnswerSchema | None:
        """Return the schema of the answer of the run at `path`. Only the top run has one."""
        return None if path else self.schema

    def wants_citations(self, path: str) -> bool:
        """Return whether the run at `path` must quote the context in its answer. Only the top run may have to."""
        return self.citations and not path

    def tools_of(self, path: str) -> Tools:
        """Return the custom tools of the run at `path`."""
        return self.tools[1] if path else self.tools[0]

    def strategies_for(self, context: ContextRef | None, path: str) -> tuple[Strategy, ...]:
        """Return the strategies of the run at `path` over this context."""
        model = self.root_model(path)
        return strategies_for_run(self.strategies, model, self.budget, context, auto=self.auto)

    def check_resumable(self, journal: Journal) -> dict[str, ContextFile]:
        """Return the files of a run's contexts, by their names in the REPL, if this RLM can rebuild that REPL.

        Raises `JournalError` for a context that is gone or has changed, and `ConfigurationError` if this RLM has
        another sandbox, or lacks a strategy that the cells may have used.
        """
        if journal.sandbox not in (None, self.sandbox.name):
            raise ConfigurationError(
                f"this run used the sandbox {journal.sandbox!r}, and this RLM has {self.sandbox.name!r}: "
                f"there its cells may do something else. Resume it with sandbox={journal.sandbox!r}"
            )
        self.strategies_for_cells(journal)
        earlier = dict(zip(earlier_names(journal.earlier), journal.earlier, strict=True))
        return {name: self.store.open(ref) for name, ref in {**journal.contexts, **earlier}.items()}

    def check_unchanged(self, journal: Journal) -> None:
        """Raise `JournalError` if a user's file that is a context of this run has changed.

        The REPL may hold the old text, but child runs, quotes and searches would read the new one.
        """
        for ref in journal.contexts.values():
            if "path" in ref:
                self.store.open(ref)

    def strategies_for_cells(self, journal: Journal) -> tuple[Strategy, ...]:
        """Return the strategies whose helpers the cells of a run may use."""
        missing = sorted(set(journal.strategies) - {strategy.name for strategy in self.strategies})
        if missing and not self.auto:
            raise ConfigurationError(
                f"this run had the strategies {journal.strategies}, whose helpers its cells may use, and this RLM "
                f"lacks {', '.join(missing)}: give them too; more are welcome"
            )
        return (*self.strategies, *strategies_of(missing))
