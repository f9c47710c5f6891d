"""Which strategies a run has: those that were asked for, and with `auto` those that suit its context.

A strategy that wants the context whole, in the first prompt, is one of them where the context is short for the
model that reads it. Models read short texts better than they write programs about them.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlm_langchain.budget.budget import Budget
from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.models import pricing
from rlm_langchain.models.model import Model
from rlm_langchain.plugins import names
from rlm_langchain.prompts.strategies import DIRECT, strategies_of
from rlm_langchain.protocols import Strategy
from rlm_langchain.types import ContextRef, Usage

MANY = 50
"""Items of a list from which on they are records to label and count rather than documents to read."""


def chosen(context: ContextRef | None) -> tuple[str, ...]:
    """The names of the built-in strategies that suit the shape of a context that is not short."""
    if context is None:
        return ("long_output", "verify")
    if context["type"] == "list" and context["length"] >= MANY:
        return ("peek", "grep", "classify_count", "partition_map")
    return ("peek", "grep", "partition_map", "summarise")


WINDOW = 8_192
"""Tokens that a model is thought to read when its window is not known."""

SHORT = {"default": 16_384, "compact": 2_048}
"""By profile, tokens up to which models read a text better than they program about it, whatever their window (2^14
in figure 1 of the paper; small models lose the thread sooner)."""

BUDGET_SHARE = 0.25
"""Of the tokens and the dollars of a run: what a context in its first prompt may take of them."""


def strategies_for_run(
    given: Sequence[Strategy], model: Model, budget: Budget, context: ContextRef | None, *, auto: bool
) -> tuple[Strategy, ...]:
    """Return the strategies of a run over a context: those of `given` that fit, and with `auto` those that suit it.

    `model` is the root model of the run.
    """
    named = [strategy for strategy in given if not strategy.whole or _fits(budget, model, context, strategy)]
    if not auto:
        return tuple(named)
    there, known = set(names("strategies")), {strategy.name for strategy in given}
    direct = strategies_of([DIRECT] if DIRECT in there - known else [])
    short = [strategy for strategy in direct if _fits(budget, model, context, strategy)]
    suiting = short or strategies_of([name for name in chosen(context) if name in there - known])
    return (*named, *suiting)


def _fits(budget: Budget, model: Model, context: ContextRef | None, strategy: Strategy) -> bool:
    """Whether a context is short for this model, and reading it leaves most of the budget."""
    if context is None:
        return False
    tokens = approximate_tokens(context["size"])
    read = Usage(calls=1, input=tokens)
    cost = pricing.cost(model, read) if budget.usd is not None else None
    limits = (
        (tokens, min(SHORT[model.profile], strategy.whole * (model.window or WINDOW))),
        (tokens, None if budget.tokens is None else budget.tokens * BUDGET_SHARE),
        (cost, None if budget.usd is None else budget.usd * BUDGET_SHARE),
    )
    return all(most is None or (wanted is not None and wanted <= most) for wanted, most in limits)
