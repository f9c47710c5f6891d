"""What a model call may use at most: reserved in the ledger before the call is made."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.estimate import most_tokens
from rlm_langchain.budget.ledger import Ledger
from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.models import pricing
from rlm_langchain.models.call import accepts_output_cap
from rlm_langchain.models.learned import Learned
from rlm_langchain.models.model import Model
from rlm_langchain.types import Usage

OUTPUT_TOKENS = 4_096
"""Tokens reserved for the output of a call that has no cap of its own."""
LAST_OUTPUT_TOKENS = 1_024
"""Tokens reserved for the output of the last call of a run whose tokens or dollars are used up."""
MESSAGE_TOKENS = 8
"""Tokens that providers add around each message, at most."""


def reservation_for(
    ledger: Ledger,
    model: Model,
    messages: Sequence[BaseMessage],
    *,
    last: bool = False,
    learned: Learned | None = None,
) -> Usage:
    """Return the most that a call may use. A model that was seen to use more than its cap may do so again."""
    learned = learned or Learned()
    read = sum(most_tokens(str(message.content)) + MESSAGE_TOKENS for message in messages)
    most = max_output_tokens(ledger.budget, last=last) or OUTPUT_TOKENS
    most = max(learned.of(one.name).most_output(most, one.window) for one in model.chain)
    output = most * _replies_at_once(model)
    overrun = ledger.overrun(model.name)
    wanted = overrun.tokens(Usage(calls=1, input=read, output=output))
    return wanted._replace(cost=overrun.dollars(expected_cost(model, wanted)))


def prompt_tokens(messages: Sequence[BaseMessage]) -> int:
    """Return about how many tokens these messages are: what a model's window has to hold."""
    return sum(approximate_tokens(str(message.content)) + MESSAGE_TOKENS for message in messages)


def max_output_tokens(budget: Budget, *, last: bool = False) -> int | None:
    """Return the cap on a reply. With a limit on tokens or dollars there is one, to know what to reserve."""
    capped = budget.tokens is not None or budget.usd is not None
    own = budget.output_tokens
    most = LAST_OUTPUT_TOKENS if last else OUTPUT_TOKENS
    return min(own or most, most if last else own or most) if capped else own


def expected_cost(model: Model, usage: Usage) -> float | None:
    """Return what so many tokens cost at most, by the prices that we know: those of the dearest model that may be
    asked, and all input may be written to a cache."""
    costs = [
        pricing.cost(one, usage._replace(cached=0), usage.input if one.needs_cache_control else 0)
        for one in model.chain
    ]
    known = [cost for cost in costs if cost is not None]
    return max(known) if len(known) == len(costs) else None


def check_limits_hold(budget: Budget, model: Model) -> None:
    """Raise `ConfigurationError` when a limit could not hold for this model, which a config has chosen."""
    capped = any(limit is not None for limit in (budget.tokens, budget.usd, budget.output_tokens))
    if capped and any(accepts_output_cap(one.chat) is None for one in model.chain):
        raise ConfigurationError(f"{model.name}, which the config chooses, takes no cap on its output: limit calls")
    if budget.usd is not None and not all(map(pricing.has_price, model.chain)):
        raise ConfigurationError(
            f"a limit in dollars needs the price of every model, and none is known for {model.name}, which the "
            f"config "
            "chooses: give it with prices="
        )


def _replies_at_once(model: Model) -> int:
    """Return how many replies each request asks for."""
    several = [
        one.wrapped.bound["n"] if one.wrapped and "n" in one.wrapped.bound else getattr(one.chat, "n", None)
        for one in model.chain
    ]
    return max((count for count in several if isinstance(count, int)), default=1) or 1
