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

    from rlm_langchain.chat_model import ChatRLM
    from rlm_langchain.create import create_rlm, create_rlm_graph
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
    from rlm_langchain.hybrid import create_hybrid_rlm
    from rlm_langchain.middleware import RLMContextMiddleware
    from rlm_langchain.node import rlm_tool
    from rlm_langchain.prices import Price
    from rlm_langchain.protocols import ContextSource, Sandbox, SandboxSession, Strategy
    from rlm_langchain.retrieval.retriever import RLMRetriever
    from rlm_langchain.retrieval.store import FAISSStore
    from rlm_langchain.runnable import RLMRunnable
    from rlm_langchain.skills import read_skill
    from rlm_langchain.types import Budget, Limits, RLMInput, RLMOutput

_HOMES = {
    "BudgetExhausted": "errors",
    "Budget": "types",
    "ChatRLM": "chat_model",
    "ConfigurationError": "errors",
    "ContextSource": "protocols",
    "FAISSStore": "retrieval.store",
    "InputError": "errors",
    "JournalError": "errors",
    "Limits": "types",
    "MissingDependency": "errors",
    "ModelError": "errors",
    "NoAnswer": "errors",
    "Price": "prices",
    "RLMContextMiddleware": "middleware",
    "RLMError": "errors",
    "RLMInput": "types",
    "RLMOutput": "types",
    "RLMRetriever": "retrieval.retriever",
    "RLMRunnable": "runnable",
    "Sandbox": "protocols",
    "SandboxError": "errors",
    "SandboxSession": "protocols",
    "Strategy": "protocols",
    "read_skill": "skills",
    "rlm_tool": "node",
    "ThreadBusy": "errors",
    "UnknownPlugin": "errors",
    "create_hybrid_rlm": "hybrid",
    "create_rlm": "create",
    "create_rlm_graph": "create",
}

__all__ = [
    "Budget",
    "BudgetExhausted",
    "ChatRLM",
    "ConfigurationError",
    "ContextSource",
    "FAISSStore",
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
