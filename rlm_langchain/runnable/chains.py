"""Checks which steps may follow an RLM in a chain: its output is a dict, which not every Runnable accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableParallel

from rlm_langchain.errors import ConfigurationError

TAKE_NO_DICT = (BaseLanguageModel, BaseOutputParser, BaseRetriever)
"""Types of steps that accept no dict."""
_WITHIN = ("first", "bound", "runnable", "mapper")
"""Attributes of LangChain's Runnables that hold the step which gets their input."""


def check_next(step: Any) -> None:
    """Raise `ConfigurationError` if the next step accepts only the answer, and say how to pass just that."""
    first = step
    while (inner := next(filter(None, (getattr(first, name, None) for name in _WITHIN)), None)) is not None:
        first = inner
    branches = first.steps__ if isinstance(first, RunnableParallel) else first
    for branch in branches.values() if isinstance(branches, Mapping) else ():
        check_next(branch)
    if isinstance(first, TAKE_NO_DICT):
        name = type(first).__name__
        raise ConfigurationError(
            f"{name} cannot take what an RLM gives, which is a dict. Give it the answer: "
            f'rlm.pick("answer") | {name}(...)'
        )
