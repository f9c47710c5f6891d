"""Recursive Language Models on LangGraph (Zhang, Kraska, Khattab, arXiv 2512.24601).

from rlm_langchain import create_rlm

rlm = create_rlm(root_model="openai/gpt-4o", recursive_model="openai/gpt-4o-mini")
rlm.completion(query="What are the main themes?", context=huge_document)["answer"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    """The version that is installed."""

    from rlm_langchain.batch.batch import create_batch
    from rlm_langchain.batch.budget import BatchBudget
    from rlm_langchain.budget.budget import Budget
    from rlm_langchain.errors import (
        BudgetExhausted,
        ConfigurationError,
        InputError,
        JournalError,
        MissingDependency,
        ModelError,
        NoAnswer,
        RLMError,
        SandboxError,
        ThreadBusy,
        UnknownPlugin,
    )
    from rlm_langchain.integrations.agents.middleware import RLMContextMiddleware
    from rlm_langchain.integrations.agents.tool import rlm_tool
    from rlm_langchain.integrations.chat_model.chat_model import ChatRLM
    from rlm_langchain.integrations.hybrid import create_hybrid_rlm
    from rlm_langchain.models.model import Price
    from rlm_langchain.prompts.strategies import read_skill
    from rlm_langchain.protocols import (
        ContextSource,
        HostFunction,
        Sandbox,
        SandboxSession,
        Strategy,
    )
    from rlm_langchain.records import RLMInput, RLMOutput
    from rlm_langchain.retrieval.faiss_store.store import FAISSStore
    from rlm_langchain.retrieval.retriever import RLMRetriever
    from rlm_langchain.runnable.create import create_rlm, create_rlm_graph
    from rlm_langchain.runnable.runnable import RLMRunnable
    from rlm_langchain.types import Limits

_HOMES = {
    "BatchBudget": "batch.budget",
    "BudgetExhausted": "errors",
    "Budget": "budget.budget",
    "ChatRLM": "integrations.chat_model.chat_model",
    "ConfigurationError": "errors",
    "ContextSource": "protocols",
    "FAISSStore": "retrieval.faiss_store.store",
    "HostFunction": "protocols",
    "InputError": "errors",
    "JournalError": "errors",
    "Limits": "types",
    "MissingDependency": "errors",
    "ModelError": "errors",
    "NoAnswer": "errors",
    "Price": "models.model",
    "RLMContextMiddleware": "integrations.agents.middleware",
    "RLMError": "errors",
    "RLMInput": "records",
    "RLMOutput": "records",
    "RLMRetriever": "retrieval.retriever",
    "RLMRunnable": "runnable.runnable",
    "Sandbox": "protocols",
    "SandboxError": "errors",
    "SandboxSession": "protocols",
    "Strategy": "protocols",
    "read_skill": "prompts.strategies",
    "rlm_tool": "integrations.agents.tool",
    "ThreadBusy": "errors",
    "UnknownPlugin": "errors",
    "create_batch": "batch.batch",
    "create_hybrid_rlm": "integrations.hybrid",
    "create_rlm": "runnable.create",
    "create_rlm_graph": "runnable.create",
}

__all__ = [
    "BatchBudget",
    "Budget",
    "BudgetExhausted",
    "ChatRLM",
    "ConfigurationError",
    "ContextSource",
    "FAISSStore",
    "HostFunction",
    "InputError",
    "JournalError",
    "Limits",
    "MissingDependency",
    "ModelError",
    "NoAnswer",
    "Price",
    "RLMContextMiddleware",
    "RLMError",
    "RLMInput",
    "RLMOutput",
    "RLMRetriever",
    "RLMRunnable",
    "Sandbox",
    "SandboxError",
    "SandboxSession",
    "Strategy",
    "ThreadBusy",
    "UnknownPlugin",
    "create_batch",
    "create_hybrid_rlm",
    "create_rlm",
    "create_rlm_graph",
    "read_skill",
    "rlm_tool",
]


def __getattr__(name: str) -> Any:
    """Public names are found when they are used: importing the package costs next to nothing."""
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("rlm-langchain")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rlm_langchain.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names: those that were not used yet are not there to be seen."""
    return __all__
