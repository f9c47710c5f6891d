"""Checks which steps follow an RLM in a chain: its output is a dict, which not every Runnable accepts.

LangChain asks none of its steps what may follow it, and puts the steps of a chain within a chain into one list. Of
`prompt | rlm | parser`, neither operator is ours. So each chain is checked where LangChain makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import wraps
from itertools import pairwise
from typing import Any, Literal

from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    RouterRunnable,
    RunnableBranch,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.passthrough import RunnableAssign

from rlm_langchain.errors import ConfigurationError

TAKE_NO_DICT = (BaseLanguageModel, BaseOutputParser, BaseRetriever)
"""Types of steps that accept no dict."""


class GivesRunOutput:
    """A Runnable whose output is an `RLMOutput`."""


def check_steps(steps: Sequence[Any]) -> None:
    """Raise `ConfigurationError` if a step of a chain accepts only the answer and gets the output of an RLM, and
    say how to pass just the answer."""
    for step, following in pairwise(step for step in steps if type(step) is not RunnablePassthrough):
        if any(isinstance(end, GivesRunOutput) for end in _ends(step, "last")):
            for start in _ends(following, "first"):
                _check_takes_dict(start)


def _check_takes_dict(step: Any) -> None:
    if isinstance(step, TAKE_NO_DICT):
        name = type(step).__name__
        raise ConfigurationError(
            f"{name} cannot take what an RLM gives, which is a dict. Give it the answer: "
            f'rlm.pick("answer") | {name}(...)'
        )


def _ends(step: Any, end: Literal["first", "last"]) -> Iterator[Any]:
    """Yield the steps within a step that get its input, or that make its output."""
    match step:
        case RunnableSequence():
            within = [next((one for one in _from(step, end) if type(one) is not RunnablePassthrough), None)]
        case RunnableBindingBase() | RunnableEachBase():
            within = [step.bound]
        case RunnableBranch():
            within = [step.default, *(runnable for _, runnable in step.branches)]
        case RunnableParallel():
            within = [*step.steps__.values()]
        case RunnableAssign():
            within = [step.mapper]
        case RunnableWithFallbacks():
            within = [*step.runnables]
        case RouterRunnable():
            within = [*step.runnables.values()]
        case DynamicRunnable():
            within = [step.default, *getattr(step, "alternatives", {}).values()]
        case _:
            yield step
            return
    for one in within:
        yield from _ends(one, end)


def _from(chain: RunnableSequence[Any, Any], end: Literal["first", "last"]) -> Sequence[Any]:
    return chain.steps if end == "first" else chain.steps[::-1]


def _check_all_chains() -> None:
    make = RunnableSequence.__init__

    @wraps(make)
    def make_checked(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        check_steps(self.steps)

    RunnableSequence.__init__ = make_checked  # type: ignore[method-assign]


_check_all_chains()
