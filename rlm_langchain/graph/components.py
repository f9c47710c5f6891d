"""What a graph is built from: everything that does not change during a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from rlm_langchain.answers.coverage import CoverageTracker, IndexCache
from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.budget.budget import Budget
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.graph.boundary import SEEN, check_run
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

Tools = dict[str, BaseTool]
"""By the names that code calls them by."""
TURNS = {"default": 30, "compact": 4}
"""Root turns of a run by its model's profile, when none are given. A small model without an answer after two goes
in circles: of 47 questions, those that it answered rightly took it one or two."""
NO_RECURSION_LIMIT = 1_000_000_000
"""LangGraph's recursion limit: out of the way, since our budget ends a run."""


@dataclass(frozen=True, slots=True)
class Components:
    """The parts, captured when the graph is built."""

    root: Model
    subs: tuple[Model, ...]
    """For sub-calls: one per depth, the last one for all below it."""
    sandbox: Sandbox
    strategies: tuple[Strategy, ...] = ()
    auto: bool = False
    """Whether there are also those that suit the context of each run."""
    budget: Budget = Budget()
    limits: Limits = Limits()
    store: ContextStore = field(default_factory=ContextStore)
    retry: RetryPolicy = RetryPolicy()
    memo: bool = True
    """Whether identical sub-calls of a tree are asked once."""
    tools: tuple[Tools, Tools] = ({}, {})
    """Of the top run, and of child runs."""
    functions: Mapping[str, HostFunction] = field(default_factory=dict)
    """Functions of plug-ins, by name: code in the REPL calls them, the host runs them."""
    schema: AnswerSchema | None = None
    """What the answer of the top run must fit."""
    search: Search | None = None
    """What answers `search` in the REPL; None: there is no such function."""
    citations: bool = False
    """Whether the answer of the top run comes with quotes that are looked up in the context."""
    trees: RunTreeRegistry = field(default_factory=RunTreeRegistry)
    index_cache: IndexCache = field(default_factory=IndexCache)
    """Indexes by which it is known what models have read."""

    def root_model(self, depth: int) -> Model:
        """The root model of a run at this depth."""
        return self.root if depth == 0 else self.sub_model(depth - 1)

    def sub_model(self, depth: int) -> Model:
        """The model that answers the sub-calls of a run at this depth."""
        return self.subs[min(depth, len(self.subs) - 1)]

    def max_iterations(self, depth: int) -> int:
        """How many turns a run at this depth may take."""
        given = self.budget.iterations
        return TURNS[self.root_model(depth).profile] if given is None else given

    def tree(self, run: str, config: RunnableConfig) -> RunTree:
        """The living tree of a run. One that has a thread can be resumed, so it keeps receipts.

        Raises `Cancelled` when what asks works for a call that was cancelled.
        """
        settings = config.get("configurable", {})
        invocation: Invocation | None = settings.get(SEEN)
        if invocation is not None:
            invocation.join(run)
        durable = "thread_id" in settings
        tree = self.trees.get(run, self.budget, self.receipts(run) if durable else None)
        tree.store = self.store
        return tree

    async def ready(self, run: str, config: RunnableConfig) -> None:
        """Have the tree of a run at hand: its receipts may be many, and are not read on the event loop."""
        if "thread_id" in config.get("configurable", {}) and not self.trees.has_receipts(run):
            await run_in_thread(lambda: self.tree(run, config), lambda: None)

    def coverage_tracker(self, tree: RunTree, state: Mapping[str, Any], journal: Journal) -> CoverageTracker:
        """What tells which parts of the top run's contexts models have read."""
        if tree.coverage is None:
            tree.coverage = CoverageTracker(self.store, self.index_cache)
        tops = state.get("tops")
        tree.coverage.set_contexts(journal.contexts.values() if tops is None else tops)
        return tree.coverage

    def receipts(self, run: str) -> Path:
        """Where the receipts of a run are. Raises `JournalError` for a name that we gave to no run."""
        return self.store.root / "receipts" / f"{check_run(run)}.jsonl"

    def close(self, run: str) -> None:
        """Let go of a run. When it has ended, and its last checkpoint is written, nothing can need its receipts."""
        if self.trees.close(run):
            with suppress(NotADirectoryError):  # `home` is a file: there was nowhere to keep any
                self.receipts(run).unlink(missing_ok=True)

    def answer_schema(self, path: str) -> AnswerSchema | None:
        """What the answer of the run at `path` must fit: child runs answer as they were asked."""
        return None if path else self.schema

    def wants_citations(self, path: str) -> bool:
        """Whether the answer of the run at `path` comes with quotes: that of the top run may."""
        return self.citations and not path

    def tools_of(self, path: str) -> Tools:
        """The custom tools of the run at `path`."""
        return self.tools[1] if path else self.tools[0]

    def strategies_for(self, context: ContextRef | None, path: str) -> tuple[Strategy, ...]:
        """The strategies of the run at `path` over this context."""
        model = self.root_model(depth_of(path))
        return strategies_for_run(self.strategies, model, self.budget, context, auto=self.auto)

    def check_resumable(self, journal: Journal) -> dict[str, ContextFile]:
        """What the REPL of a journal is given, by name, when this machine can make it again.

        Raises `JournalError` for a context that is gone or was changed, and `ConfigurationError` when what its
        cells have used is not here.
        """
        if journal.sandbox not in (None, self.sandbox.name):
            raise ConfigurationError(
                f"this run used the sandbox {journal.sandbox!r}, and this RLM has {self.sandbox.name!r}: "
                f"there its cells may do something else. Resume it with sandbox={journal.sandbox!r}"
            )
        self.strategies_in(journal)
        earlier = dict(zip(earlier_names(journal.earlier), journal.earlier, strict=True))
        return {name: self.store.open(ref) for name, ref in {**journal.contexts, **earlier}.items()}

    def unchanged(self, journal: Journal) -> None:
        """Raise `JournalError` when a file of the user's that a run is about is not what it was.

        Its REPL may hold the text as it was; but its child runs, quotes and searches would read another one.
        """
        for ref in journal.contexts.values():
            if "path" in ref:
                self.store.open(ref)

    def strategies_in(self, journal: Journal) -> tuple[Strategy, ...]:
        """Return the strategies whose helpers the cells of a run may use."""
        missing = sorted(set(journal.strategies) - {strategy.name for strategy in self.strategies})
        if missing and not self.auto:
            raise ConfigurationError(
                f"this run had the strategies {journal.strategies}, whose helpers its cells may use, and this RLM "
                f"lacks {', '.join(missing)}: give them too; more are welcome"
            )
        return (*self.strategies, *strategies_of(missing))
