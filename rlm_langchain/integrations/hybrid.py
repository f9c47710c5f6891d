"""`HybridRLM`: a retriever finds a few hundred documents, and an RLM reads them with code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Unpack, cast

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableSerializable, ensure_config
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, Field, field_validator

from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.records import RLMInput, RLMOutput
from rlm_langchain.retrieval.external import k_option
from rlm_langchain.runnable.chains import check_next
from rlm_langchain.runnable.create import RLMOptions
from rlm_langchain.runnable.options import known_options
from rlm_langchain.runnable.run_scope import LangChainInput
from rlm_langchain.runnable.runnable import RLMRunnable, checked_rlm
from rlm_langchain.runnable.safe_repr import safe_repr
from rlm_langchain.validation import check_names, option_errors

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from rlm_langchain.models.model import Model


class HybridRLM(RunnableSerializable[RLMInput | str, RLMOutput]):
    """Retrieves `k` documents for a question, and passes them to an RLM as its context.

    The input is a question, or `{"query": ...}`. None and `Command` resume a thread, as for `RLMRunnable`, without
    retrieving again.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", use_attribute_docstrings=True)

    retriever: Any
    """A LangChain retriever or vector store. `search` in the REPL uses it, too."""
    rlm: RLMRunnable
    """The RLM that reads the documents. Raises `ConfigurationError` for anything that is no RLM."""
    k: int = Field(default=300, ge=1)
    """Most documents to retrieve for a question."""
    name: str | None = None
    """The name in traces. None: the name of the class."""

    @known_options
    def __init__(self, retriever: Any, rlm: RLMRunnable, *, k: int = 300, name: str | None = None) -> None:
        """Create a hybrid RLM of a retriever and an RLM."""
        options: dict[str, Any] = {"retriever": retriever, "rlm": rlm, "k": k, "name": name}
        with option_errors(type(self)):
            super().__init__(**options)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield the options with short representations."""
        for name, value in super().__repr_args__():
            yield name, safe_repr(value)

    _is_rlm = field_validator("rlm", mode="before")(checked_rlm)

    @field_validator("retriever")
    @classmethod
    def _can_retrieve(cls, retriever: Any) -> Any:
        if not isinstance(retriever, BaseRetriever | VectorStore):
            raise ConfigurationError(
                f"retriever is {retriever!r}; give a LangChain retriever or vector store, for example "
                "RLMRetriever(...)"
            )
        return retriever

    def __or__(self, other: Any) -> Any:
        """Pass the output, a dict, to another step. Raises `ConfigurationError` for a step that takes no dict."""
        check_next(other)
        return super().__or__(other)

    def invoke(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        """Retrieve documents, and answer the question."""
        return self.rlm.invoke(self._with_documents(input, ensure_config(config)), config, **kwargs)

    async def ainvoke(
        self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RLMOutput:
        """Retrieve documents, and answer the question, on this event loop."""
        return await self.rlm.ainvoke(await self._awith_documents(input, ensure_config(config)), config, **kwargs)

    def stream(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Retrieve documents, then yield what `RLMRunnable.stream` yields."""
        yield from self.rlm.stream(self._with_documents(input, ensure_config(config)), config, **kwargs)

    async def astream(
        self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Do what `stream` does, on this event loop."""
        rlm_input = await self._awith_documents(input, ensure_config(config))
        async with aclosing(cast(Any, self.rlm.astream(rlm_input, config, **kwargs))) as parts:
            async for part in parts:
                yield part

    def _with_documents(self, input: LangChainInput, config: RunnableConfig) -> LangChainInput:
        query = _query(input)
        if query is None:
            return input
        if isinstance(self.retriever, VectorStore):
            return self._rlm_input(query, self.retriever.similarity_search(query, k=self.k))
        return self._rlm_input(query, self.retriever.invoke(query, config, **k_option(self.retriever, self.k)))

    async def _awith_documents(self, input: LangChainInput, config: RunnableConfig) -> LangChainInput:
        query = _query(input)
        if query is None:
            return input
        if isinstance(self.retriever, VectorStore):
            return self._rlm_input(query, await self.retriever.asimilarity_search(query, k=self.k))
        return self._rlm_input(
            query, await self.retriever.ainvoke(query, config, **k_option(self.retriever, self.k))
        )

    def _rlm_input(self, query: str, documents: list[Document]) -> RLMInput:
        return {"query": query, "context": documents[: self.k]}


def _query(input: LangChainInput) -> str | None:
    """Return the question, or None for an input that resumes a thread. Raises `InputError` for a context."""
    if isinstance(input, str):
        return input
    if not isinstance(input, dict):
        return None
    if input.get("context"):
        raise InputError('a hybrid RLM retrieves its context itself: give only a question, or {"query": ...}')
    return input.get("query") or ""


def create_hybrid_rlm(
    retriever: BaseRetriever | VectorStore,
    root_model: str | BaseChatModel | Model,
    *,
    k: int = 300,
    **options: Unpack[RLMOptions],
) -> HybridRLM:
    """Create an RLM that reads the `k` documents that a retriever finds, far more than fit into a prompt.

    Args:
        retriever: A LangChain retriever or vector store. Code in the REPL can ask it for more with
            `search(query, k)`.
        root_model: The model that writes the code, as for `create_rlm`.
        k: Most documents to retrieve for a question.
        options: All other options of `create_rlm`.

    Raises:
        ConfigurationError: For an unknown option, or one with a value of the wrong type.
    """
    check_names(options, RLMOptions.__annotations__.keys() | {"k"})
    rlm = RLMRunnable(root_model, retriever=retriever, **options)
    return HybridRLM(retriever, rlm, k=k)
