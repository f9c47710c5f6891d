"""`create_rlm` and `create_rlm_graph`: how people make an RLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from pydantic import ValidationError

from rlm_langchain.budget.budget import Budget
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.graph.graph import rlm_graph
from rlm_langchain.models.model import Price
from rlm_langchain.protocols import HostFunction, Sandbox, Strategy
from rlm_langchain.runnable.build import assemble
from rlm_langchain.runnable.io_schemas import option_error
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
    from pydantic import BaseModel

    from rlm_langchain.models.model import Model


class RLMOptions(TypedDict, total=False):
    """The keyword arguments of `create_rlm`: the fields of `RLMRunnable`, which says what each of them means."""

    recursive_model: str | BaseChatModel | Model | Sequence[str | BaseChatModel | Model] | None
    prices: Mapping[str, Price]
    sandbox: str | Sandbox
    strategies: str | Path | Strategy | Sequence[str | Path | Strategy]
    budget: Budget
    limits: Limits
    memo: bool
    output_schema: type[BaseModel] | Mapping[str, Any] | None
    tools: Sequence[BaseTool | Callable[..., Any]]
    sub_tools: Sequence[BaseTool | Callable[..., Any]] | None
    functions: Sequence[str | HostFunction]
    retriever: str | Embeddings | BaseRetriever | VectorStore | None
    citations: bool
    on_budget: Literal["answer", "raise"]
    on_failure: Literal["return", "raise"]
    checkpointer: BaseCheckpointSaver[Any] | bool | None
    home: Path | None
    name: str | None


def create_rlm(root_model: str | BaseChatModel | Model, **options: Unpack[RLMOptions]) -> RLMRunnable:
    """An RLM from a model and options: the fields of `RLMRunnable`, which says more of each.

    `root_model` writes the code: a name, such as "openai/gpt-4o", "openai:NAME", "ollama:NAME" or "local", or any
    LangChain chat model. `recursive_model` answers sub-calls. What it may spend: `budget`, `limits`, `prices`. How
    it works: `sandbox`, `strategies`, `tools`, `functions`, `retriever`, `memo`. What comes out: `output_schema`,
    `citations`, `on_budget`, `on_failure`. Where it is kept: `checkpointer`, `home`.

    Raises `ConfigurationError` for an option that there is not, or whose value is of another kind.
    """
    try:
        return RLMRunnable(root_model=root_model, **options)
    except ValidationError as error:
        known = {field.alias or name for name, field in RLMRunnable.model_fields.items()}
        raise ConfigurationError(option_error(error, known - {"name"})) from None


def create_rlm_graph(
    root_model: str | BaseChatModel | Model, **options: Unpack[RLMOptions]
) -> StateGraph[Any, Any, Any, Any]:
    """The same as a `StateGraph` that is not compiled yet: bring a checkpointer of your own.

    Its input is `query` and `context`, which its first node stores, unless it is a reference that a store of this
    `RLM_HOME` has made. Everything else in its state is its own, see `docs/security.md`.
    """
    return rlm_graph(assemble(create_rlm(root_model, **options)))
