"""Protocols for the parts of an `RLMRunnable` that other modules of this folder need, so that they need not
import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

    from rlm_langchain.budget.budget import Budget
    from rlm_langchain.models.model import Price
    from rlm_langchain.protocols import Strategy
    from rlm_langchain.records import RLMOutput
    from rlm_langchain.runnable.run_scope import CompiledRLM
    from rlm_langchain.types import Limits


class Options(Protocol):
    """The options from which an RLM is built, as described in `RLMRunnable`."""

    root_model: Any
    recursive_model: Any
    prices: Mapping[str, Price]
    sandbox: Any
    strategies: str | Path | Strategy | Sequence[str | Path | Strategy]
    budget: Budget
    limits: Limits
    memo: bool
    answer_schema: Any
    tools: Sequence[Any]
    sub_tools: Sequence[Any] | None
    functions: Sequence[Any]
    retriever: Any
    citations: bool
    home: Path | None


class RLMProtocol(Protocol):
    """The parts of an `RLMRunnable` that nodes and streams use: its graph, and the config of a call."""

    @property
    def built(self) -> CompiledRLM:
        """Return the components and their graph."""

    @property
    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Return the compiled graph."""

    def settings(self, config: RunnableConfig | None, *, threads: bool = False) -> RunnableConfig:
        """Return the config of one call."""

    def checked(self, output: RLMOutput) -> RLMOutput:
        """Return the output for the caller. Raises `BudgetExhausted` and `NoAnswer` if the options say so."""

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run, and yield the parts as they are produced."""

    def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run on this event loop, and yield the parts as they are produced."""
