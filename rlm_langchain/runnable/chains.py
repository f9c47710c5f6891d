"""What an RLM may be followed by in a chain: its output is a dict, which not every Runnable takes."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.retrievers import BaseRetriever

from rlm_langchain.errors import ConfigurationError

TAKE_NO_DICT = (BaseLanguageModel, BaseOutputParser, BaseRetriever)


def check_next(step: Any) -> None:
    """Raise `ConfigurationError` for a next step that can only take the answer, with the way to give it that."""
    first = step
    while (inner := getattr(first, "first", None) or getattr(first, "bound", None)) is not None:
        first = inner
    if isinstance(first, TAKE_NO_DICT):
        name = type(first).__name__
        raise ConfigurationError(
            f"{name} cannot take what an RLM gives, which is a dict. Give it the answer: "
            f'rlm.pick("answer") | {name}(...)'
        )
