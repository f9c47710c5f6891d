"""`create_rlm` and `create_rlm_graph`: the public constructors of an RLM."""

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
    """Options of `create_rlm` for functions that pass them on and take the model and the retriever themselves."""

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
    """Make an RLM from a model and options.

    Args:
        root_model: The model that writes the code: a name, such as "openai/gpt-4o", "openai:NAME", "ollama:NAME" or
            "local", or any LangChain chat model. A name of unknown form raises `ConfigurationError`.
        recursive_model: The model that answers sub-calls, or a list with one model per depth. The first answers the
            calls of the top run, as a plain sub-call or as the root model of a child run, the second the calls of
            those child runs, and so on; the last one serves all deeper levels. None: the root model.
        prices: Dollars per million tokens, by model name, for models that are in no price list or for which you pay
            another price. On first use, a name of none of these models raises `ConfigurationError`, and so does a
            limit in dollars with an unknown price.
        sandbox: Where the code runs: "auto" for the first sandbox that works here, the name of one ("cpython",
            "monty"), or a `Sandbox`. A name that is not installed raises `UnknownPlugin`. One that cannot run here
            raises `SandboxError` on first use.
        strategies: Strategies for the root model: a name, a folder of skills (a `Path`), a `Strategy`, or several
            of them. "auto" chooses by the context of each run. A name that is not installed raises `UnknownPlugin`
            on first use.
        budget: What the whole tree of runs may spend: model calls (1,000), dollars, tokens, seconds of work, turns.
            A limit of None does not apply. An exhausted budget ends a run, see `on_budget`.
        limits: What each cell may use in the sandbox: 60 seconds of its own time, 1 GiB of memory, 1 MiB of output.
            A cell that exceeds a limit is stopped, and the model is informed.
        memo: Whether identical sub-calls of a run are made only once. Use False to get several samples.
        output_schema: The type of the answer, of which the answer is an instance: a type that pydantic knows (a
            model, `list[int]`, a dataclass, a TypedDict, ...), or a JSON schema as a dict. None: any answer.
            Anything else raises `ConfigurationError`.
        tools: LangChain tools and functions that code in the REPL may call. They run in the host without
            confinement. Something that cannot be a tool, such as a function without a docstring, raises
            `ConfigurationError`.
        sub_tools: The tools of child runs. None: the same as `tools`.
        functions: Plug-in functions that code in the REPL may call, at every depth: names of the entry point group
            `rlm_langchain.calls`, or `HostFunction` values. They run in the host without confinement. A name that
            is not installed raises `ConfigurationError`.
        retriever: What `search(query, k)` in the REPL ranks by. "bm25": words. A LangChain embedding model: words
            and meaning, fused. A LangChain retriever or vector store: whatever that one uses. None: there is no
            `search`. Anything else raises `ConfigurationError`; a missing extra raises `MissingDependency` on first
            use.
        citations: Whether the answer comes with quotes that the host has verified in the context, in
            `output["citations"]`.
        on_budget: What happens when the budget is exhausted. "answer": the run ends with its best answer so far.
            "raise": it raises `BudgetExhausted`, whose `output` holds that answer.
        on_failure: What happens when a run has no answer. "return": it returns an output that says so. "raise": it
            raises `NoAnswer`, whose `output` holds it.
        checkpointer: A LangGraph checkpointer, which makes runs durable. None: runs are not saved, except by a
            parent graph. Anything else raises `ConfigurationError`.
        home: The folder for contexts and receipts. None: `RLM_HOME`, else the user's data folder.
        name: The name of the RLM in traces and graphs. None: "rlm".

    Raises:
        ConfigurationError: For an unknown option or a value of the wrong type; on first use, for options that
            contradict each other.
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
    """Return the uncompiled graph of an RLM, for use with your own checkpointer. The options are those of
    `create_rlm`.

    Its input is `query` and `context`. The first node stores the context, unless it is a reference made by a
    store of this `RLM_HOME`. All other keys of the state are internal, see `docs/explanation/security.md`.
    """
    return rlm_graph(assemble(create_rlm(**locals())))
