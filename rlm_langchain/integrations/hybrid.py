"""Retrieve, then read: a retriever finds a few hundred documents, and an RLM reads them with code."""

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
    """A question finds `k` documents, which are the context of the RLM. Input: a question, or `{"query": ...}`.

    None and `Command` resume a thread, as they do for `RLMRunnable`: nothing is retrieved again.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", use_attribute_docstrings=True)

    retriever: Any
    """A LangChain retriever or vector store. `search` in the REPL asks it too."""
    rlm: RLMRunnable
    """What reads the documents. Anything that is no RLM is a `ConfigurationError`."""
    k: int = Field(default=300, ge=1)
    """How many documents a question finds, at most."""
    name: str | None = None
    """What it is called in traces. None: the name of its class."""

    @known_options
    def __init__(self, retriever: Any, rlm: RLMRunnable, *, k: int = 300, name: str | None = None) -> None:
        """Make a hybrid RLM of a retriever and an RLM."""
        options: dict[str, Any] = {"retriever": retriever, "rlm": rlm, "k": k, "name": name}
        with option_errors(type(self)):
            super().__init__(**options)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The options, each in short."""
        for name, value in super().__repr_args__():
            yield name, safe_repr(value)

    _is_rlm = field_validator("rlm", mode="before")(checked_rlm)

    @field_validator("retriever")
    @classmethod
    def _can_retrieve(cls, given: Any) -> Any:
        if not isinstance(given, BaseRetriever | VectorStore):
            raise ConfigurationError(
                f"retriever is {given!r}; give a LangChain retriever or vector store, for example RLMRetriever(...)"
            )
        return given

    def __or__(self, other: Any) -> Any:
        """Go on with the output, a dict. Raises `ConfigurationError` for a step that takes none."""
        check_next(other)
        return super().__or__(other)

    def invoke(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> RLMOutput:
        """Retrieve, then answer."""
        return self.rlm.invoke(self._asked(input, ensure_config(config)), config, **kwargs)

    async def ainvoke(
        self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RLMOutput:
        """Retrieve, then answer, on this event loop."""
        return await self.rlm.ainvoke(await self._aasked(input, ensure_config(config)), config, **kwargs)

    def stream(self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """What happens after the retrieval, as `RLMRunnable.stream` gives it."""
        yield from self.rlm.stream(self._asked(input, ensure_config(config)), config, **kwargs)

    async def astream(
        self, input: LangChainInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Like `stream`, on this event loop."""
        asked = await self._aasked(input, ensure_config(config))
        async with aclosing(cast(Any, self.rlm.astream(asked, config, **kwargs))) as parts:
            async for part in parts:
                yield part

    def _asked(self, input: LangChainInput, config: RunnableConfig) -> LangChainInput:
        query = _query(input)
        if query is None:
            return input
        if isinstance(self.retriever, VectorStore):
            return self._with(query, self.retriever.similarity_search(query, k=self.k))
        return self._with(query, self.retriever.invoke(query, config, **k_option(self.retriever, self.k)))

    async def _aasked(self, input: LangChainInput, config: RunnableConfig) -> LangChainInput:
        query = _query(input)
        if query is None:
            return input
        if isinstance(self.retriever, VectorStore):
            return self._with(query, await self.retriever.asimilarity_search(query, k=self.k))
        return self._with(query, await self.retriever.ainvoke(query, config, **k_option(self.retriever, self.k)))

    def _with(self, query: str, documents: list[Document]) -> RLMInput:
        return {"query": query, "context": documents[: self.k]}


def _query(input: LangChainInput) -> str | None:
    """The question; None when a thread is to be resumed."""
    if isinstance(input, str):
        return input
    if not isinstance(input, dict):
        return None
    if input.get("context"):
        raise InputError('a hybrid RLM is asked with a question, or {"query": ...}; its context it finds itself')
    return input.get("query") or ""


def create_hybrid_rlm(
    retriever: BaseRetriever | VectorStore,
    root_model: str | BaseChatModel | Model,
    *,
    k: int = 300,
    **options: Unpack[RLMOptions],
) -> HybridRLM:
    """An RLM that reads what a retriever finds: `k` documents, far more than a prompt takes.

    Args:
        retriever: A LangChain retriever or vector store. Code in the REPL can ask it for more with
            `search(query, k)`.
        root_model: Writes the code, as for `create_rlm`.
        k: How many documents are the context, at most.
        options: All others of `create_rlm`.

    Raises:
        ConfigurationError: For an option that there is not, or whose value is of another kind.
    """
    check_names(options, RLMOptions.__annotations__.keys() | {"k"})
    rlm = RLMRunnable(root_model, retriever=retriever, **options)
    return HybridRLM(retriever, rlm, k=k)
