"""Computes the most that a model call may use, which the ledger reserves before the call."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.estimate import most_tokens
from rlm_langchain.budget.ledger import Ledger
from rlm_langchain.context.describe import approximate_tokens
from rlm_langchain.models import pricing
from rlm_langchain.models.model import Model
from rlm_langchain.types import Usage

OUTPUT_TOKENS = 4_096
"""Tokens reserved for the output of a call without a cap of its own."""
LAST_OUTPUT_TOKENS = 1_024
"""Tokens reserved for the output of a run's last call if its tokens or dollars are used up."""
MESSAGE_TOKENS = 8
"""Most tokens that providers add around each message."""


def reservation_for(ledger: Ledger, model: Model, messages: Sequence[BaseMessage], *, last: bool = False) -> Usage:
    """Return the most that a call may use. If a model has exceeded its cap before, that is taken into account."""
    read = sum(most_tokens(str(message.content)) + MESSAGE_TOKENS for message in messages)
    output = (max_output_tokens(ledger.budget, last=last) or OUTPUT_TOKENS) * _replies_at_once(model)
    overrun = ledger.overrun(model.name)
    wanted = overrun.tokens(Usage(calls=1, input=read, output=output))
    return wanted._replace(cost=overrun.dollars(expected_cost(model, wanted)))


def prompt_tokens(messages: Sequence[BaseMessage]) -> int:
    """Return the approximate number of tokens of these messages, to compare with a model's window."""
    return sum(approximate_tokens(str(message.content)) + MESSAGE_TOKENS for message in messages)


def max_output_tokens(budget: Budget, *, last: bool = False) -> int | None:
    """Return the cap on a reply. With a limit on tokens or dollars there is always one, so that it can be
    reserved."""
    capped = budget.tokens is not None or budget.usd is not None
    own = budget.output_tokens
    most = LAST_OUTPUT_TOKENS if last else OUTPUT_TOKENS
    return min(own or most, most if last else own or most) if capped else own


def expected_cost(model: Model, usage: Usage) -> float | None:
    """Return the highest cost of so many tokens at the known price, as if all input were written to a cache."""
    return pricing.cost(model, usage._replace(cached=0), usage.input if model.needs_cache_control else 0)


def _replies_at_once(model: Model) -> int:
    """Return how many replies each request asks for."""
    several = getattr(model.chat, "n", None)
    return several if isinstance(several, int) and several > 1 else 1
