"""`create_rlm` and `create_rlm_graph`: how people make an RLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from rlm_langchain.budget.budget import Budget
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.models.model import Price
from rlm_langchain.protocols import HostFunction, Sandbox, Strategy
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.options import known_options
from rlm_langchain.runnable.runnable import RLMRunnable
from rlm_langchain.types import Limits

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.tools import BaseTool
    from langchain_core.vectorstores import VectorStore
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph import StateGraph

    from rlm_langchain.models.model import Model


class RLMOptions(TypedDict, total=False):
    """The options of `create_rlm` that are passed on as they are by those who bring a model and a retriever."""

    recursive_model: str | BaseChatModel | Model | Sequence[str | BaseChatModel | Model] | None
    prices: Mapping[str, Price]
    sandbox: str | Sandbox
    strategies: str | Path | Strategy | Sequence[str | Path | Strategy]
    budget: Budget
    limits: Limits
    memo: bool
    output_schema: Any
    tools: Sequence[BaseTool | Callable[..., Any]]
    sub_tools: Sequence[BaseTool | Callable[..., Any]] | None
    functions: Sequence[str | HostFunction]
    citations: bool
    on_budget: Literal["answer", "raise"]
    on_failure: Literal["return", "raise"]
    checkpointer: BaseCheckpointSaver[Any] | bool | None
    home: Path | None
    name: str | None


@known_options
def create_rlm(  # noqa: PLR0913 - a keyword for each option
    root_model: str | BaseChatModel | Model,
    *,
    recursive_model: str | BaseChatModel | Model | Sequence[str | BaseChatModel | Model] | None = None,
    prices: Mapping[str, Price] = {},
    sandbox: str | Sandbox = "auto",
    strategies: str | Path | Strategy | Sequence[str | Path | Strategy] = (),
    budget: Budget = Budget(),
    limits: Limits = Limits(),
    memo: bool = True,
    output_schema: Any = None,
    tools: Sequence[BaseTool | Callable[..., Any]] = (),
    sub_tools: Sequence[BaseTool | Callable[..., Any]] | None = None,
    functions: Sequence[str | HostFunction] = (),
    retriever: Literal["bm25"] | Embeddings | BaseRetriever | VectorStore | None = None,
    citations: bool = False,
    on_budget: Literal["answer", "raise"] = "answer",
    on_failure: Literal["return", "raise"] = "return",
    checkpointer: BaseCheckpointSaver[Any] | bool | None = None,
    home: Path | None = None,
    name: str | None = None,
) -> RLMRunnable:
    """An RLM from a model and options.

    Args:
        root_model: Writes the code. A name, such as "openai/gpt-4o", "openai:NAME", "ollama:NAME" or "local", or
            any LangChain chat model. A name of no known form is a `ConfigurationError`.
        recursive_model: Answers sub-calls: a model as above, or a list with one per depth. Its first answers what
            the top run asks, by a leaf call or as the root of a child run, its second what those child runs ask,
            and so on; the last one serves all below. None: the root model.
        prices: Dollars per million tokens, by the names of models, where price lists do not know them or you pay
            another price. A name that is none of these models' is a `ConfigurationError` at the first use, and so
            is a limit in dollars while a price is unknown.
        sandbox: Where the code runs: "auto" for the first that works here, the name of one ("cpython", "monty"), or
            a `Sandbox`. A name that is not installed is an `UnknownPlugin`; one that cannot run here, a
            `SandboxError` at the first use.
        strategies: Ways to work that the root model is told of: names, folders of skills (a `Path`), `Strategy`
            values, or several of them; "auto" chooses by the context of each run. A name that is not installed is
            an `UnknownPlugin` at the first use.
        budget: What the whole tree of runs may spend: model calls (1,000), dollars, tokens, seconds of work, turns.
            None in it is no limit. A spent budget ends a run, see `on_budget`.
        limits: What each cell may use in the sandbox: 60 seconds of its own time, 1 GiB of memory, 1 MiB of output.
            A cell that passes one is stopped, and the model is told.
        memo: Whether identical sub-calls of a run are asked once. False for those who want samples.
        output_schema: A type that pydantic knows (a model, `list[int]`, a dataclass, a TypedDict, ...), or a JSON
            schema as a dict: the answer fits it, and is an instance of the type. None: any answer. Anything else is
            a `ConfigurationError`.
        tools: LangChain tools and functions that code in the REPL may call. They run in the host, and are not
            confined. What cannot be a tool, such as a function without a docstring, is a `ConfigurationError`.
        sub_tools: The tools of child runs. None: the same.
        functions: Functions of plug-ins that code in the REPL may call, at every depth: names of the entry point
            group `rlm_langchain.calls`, or `HostFunction` values. They run in the host, and are not confined. A
            name that is not installed is a `ConfigurationError`.
        retriever: What `search(query, k)` in the REPL goes by. "bm25": words; a LangChain embedding model: words
            and meaning, fused; a LangChain retriever or vector store: that one. None: there is no `search`.
            Anything else is a `ConfigurationError`, and a `MissingDependency`, at the first use, what needs an
            extra that is not installed.
        citations: Whether the answer comes with quotes that the host has found in the context:
            `output["citations"]`.
        on_budget: What a spent budget does: "answer" ends in the best answer so far; "raise" raises
            `BudgetExhausted`, whose `output` holds it.
        on_failure: What a run without an answer does: "return" gives back an output that says so; "raise" raises
            `NoAnswer`, whose `output` holds it.
        checkpointer: A LangGraph checkpoint saver, which makes runs durable. None: runs are not kept, except by a
            parent graph. Anything that is no saver is a `ConfigurationError`.
        home: The folder in which contexts and receipts are kept. None: `RLM_HOME`, else the user's data folder.
        name: What the RLM is called in traces and graphs. None: "rlm".

    Raises:
        ConfigurationError: For an option that there is not, or whose value is of another kind; at the first use,
            for options that do not go together.
    """
    return RLMRunnable(**locals())


@known_options
def create_rlm_graph(  # noqa: PLR0913 - a keyword for each option
    root_model: str | BaseChatModel | Model,
    *,
    recursive_model: str | BaseChatModel | Model | Sequence[str | BaseChatModel | Model] | None = None,
    prices: Mapping[str, Price] = {},
    sandbox: str | Sandbox = "auto",
    strategies: str | Path | Strategy | Sequence[str | Path | Strategy] = (),
    budget: Budget = Budget(),
    limits: Limits = Limits(),
    memo: bool = True,
    output_schema: Any = None,
    tools: Sequence[BaseTool | Callable[..., Any]] = (),
    sub_tools: Sequence[BaseTool | Callable[..., Any]] | None = None,
    functions: Sequence[str | HostFunction] = (),
    retriever: Literal["bm25"] | Embeddings | BaseRetriever | VectorStore | None = None,
    citations: bool = False,
    on_budget: Literal["answer", "raise"] = "answer",
    on_failure: Literal["return", "raise"] = "return",
    checkpointer: BaseCheckpointSaver[Any] | bool | None = None,
    home: Path | None = None,
    name: str | None = None,
) -> StateGraph[Any, Any, Any, Any]:
    """The graph of an RLM, not compiled yet: bring a checkpointer of your own. Options are those of `create_rlm`.

    Its input is `query` and `context`, which its first node stores, unless it is a reference that a store of this
    `RLM_HOME` has made. Everything else in its state is its own, see `docs/explanation/security.md`.
    """
    return rlm_graph(assemble(create_rlm(**locals())))
