"""Computes the most that a model call may use, which the ledger reserves before the call."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from rlm_langchain.budget.budget import Budget
from rlm_langchain.models import pricing
from rlm_langchain.models.estimate import most_prompt_tokens
from rlm_langchain.models.learned import Learned
from rlm_langchain.models.model import Model
from rlm_langchain.types import Usage

OUTPUT_TOKENS = 4_096
"""Tokens reserved for the output of a call without a cap of its own."""
LAST_OUTPUT_TOKENS = 1_024
"""Tokens reserved for the output of a run's last call if its tokens or dollars are used up."""


def reservation_for(budget: Budget, model: Model, prompt: int, learned: Learned, *, last: bool = False) -> Usage:
    """Return the most that a call may use whose prompt has at most `prompt` tokens (see `most_prompt_tokens`).

    If a model has exceeded its cap before, that is taken into account.
    """
    chain, most = model.chain, max_output_tokens(budget, last=last) or OUTPUT_TOKENS
    replies = _replies_at_once(chain)
    caps = [learned.of(one.name).most_output(most, one.window) for one in chain]
    overrun = learned.of(model.name).overrun
    wanted = overrun.tokens(Usage(calls=1, input=prompt, output=max(caps) * replies))
    return wanted._replace(cost=overrun.dollars(expected_cost(chain, wanted)))


def reservations_for_turn(
    budget: Budget, model: Model, messages: Sequence[BaseMessage], learned: Learned
) -> tuple[Usage, Usage]:
    """Return the most that a turn with this prompt may use, and the most of a run's last call with it."""
    prompt = most_prompt_tokens(messages)
    last_call = reservation_for(budget, model, prompt, learned, last=True)
    return reservation_for(budget, model, prompt, learned), last_call


def max_output_tokens(budget: Budget, *, last: bool = False) -> int | None:
    """Return the cap on a reply. With a limit on tokens or dollars there is always one, so that it can be
    reserved."""
    capped = budget.tokens is not None or budget.usd is not None
    own = budget.output_tokens
    most = LAST_OUTPUT_TOKENS if last else OUTPUT_TOKENS
    return min(own or most, most if last else own or most) if capped else own


def expected_cost(models: Sequence[Model], usage: Usage) -> float | None:
    """Return the highest cost of this usage with any of these models, or None if a price is unknown.

    The prices are those of the most expensive model, as if all input were written to a cache.
    """
    costs = [
        pricing.cost(one, usage._replace(cached=0), usage.input if one.needs_cache_control else 0) for one in models
    ]
    known = [cost for cost in costs if cost is not None]
    return max(known) if len(known) == len(costs) else None


def _replies_at_once(models: Sequence[Model]) -> int:
    """Return how many replies each request asks for."""
    several = [
        one.wrapped.bound["n"] if one.wrapped and "n" in one.wrapped.bound else getattr(one.chat, "n", None)
        for one in models
    ]
    return max((count for count in several if isinstance(count, int)), default=1) or 1
