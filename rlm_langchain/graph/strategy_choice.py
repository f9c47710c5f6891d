"""Chooses the strategies of a run: those that were requested, and with `auto` those that suit its context.

A strategy that puts the whole context into the first prompt is chosen only if the context is short for its model.
Models read short texts better than they write programs about them.
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

MANY_ITEMS = 50
"""Length of a list from which its items are taken for records to classify and count, not for documents to read."""


def suitable_names(context: ContextRef | None) -> tuple[str, ...]:
    """Return the names of the built-in strategies that suit a context by its type. It is not a short one."""
    if context is None:
        return ("long_output", "verify")
    if context["type"] == "list" and context["length"] >= MANY_ITEMS:
        return ("peek", "grep", "classify_count", "partition_map")
    return ("peek", "grep", "partition_map", "summarise")


DEFAULT_WINDOW = 8_192
"""Assumed context window of a model whose window is not known, in tokens."""

SHORT_CONTEXT = {"default": 16_384, "compact": 2_048}
"""Tokens up to which models read a text better than they program about it, by profile, whatever their window: 2^14
in figure 1 of the paper, fewer for small models."""

BUDGET_SHARE = 0.25
"""Largest share of a run's tokens and dollars that a context in its first prompt may take."""


def strategies_for_run(
    requested: Sequence[Strategy], model: Model, budget: Budget, context: ContextRef | None, *, auto: bool
) -> tuple[Strategy, ...]:
    """Return the strategies of a run: those of `requested` that fit its context, and with `auto` those that suit
    it.

    `model` is the root model of the run.
    """
    named = [strategy for strategy in requested if not strategy.whole or _fits(budget, model, context, strategy)]
    if not auto:
        return tuple(named)
    available = set(names("strategies")) - {strategy.name for strategy in requested}
    direct = strategies_of([DIRECT] if DIRECT in available else [])
    short = [strategy for strategy in direct if _fits(budget, model, context, strategy)]
    suiting = short or strategies_of([name for name in suitable_names(context) if name in available])
    return (*named, *suiting)


def _fits(budget: Budget, model: Model, context: ContextRef | None, strategy: Strategy) -> bool:
    """Return whether a context is short for this model, and reading it leaves most of the budget. One with pictures
    is not read with its text."""
    if context is None or "images" in context:
        return False
    tokens = approximate_tokens(context["size"])
    read = Usage(calls=1, input=tokens)
    cost = pricing.cost(model, read) if budget.usd is not None else None
    limits = (
        (tokens, min(SHORT_CONTEXT[model.profile], strategy.whole * (model.window or DEFAULT_WINDOW))),
        (tokens, None if budget.tokens is None else budget.tokens * BUDGET_SHARE),
        (cost, None if budget.usd is None else budget.usd * BUDGET_SHARE),
    )
    return all(most is None or (wanted is not None and wanted <= most) for wanted, most in limits)
