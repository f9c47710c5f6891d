"""Selects the models of an RLM, with their prices, and refuses models for which its limits would not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rlm_langchain.budget.budget import Budget
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.models.call import accepts_output_cap
from rlm_langchain.models.model import Model, Price, Role
from rlm_langchain.models.pricing import has_price
from rlm_langchain.models.registry import resolve


def select_models(
    root: Any, below: Any, budget: Budget, prices: Mapping[str, Price], others: Mapping[str, bool]
) -> list[Model]:
    """Return the root model and those for sub-calls, with the user's prices.

    `below` is a model or several. `others` says of each other model that costs money whether its price is known.
    Raises `ConfigurationError` for a limit that would not hold, and for the price of a model that is not used.
    """
    sub_models = below if isinstance(below, list | tuple) else [below]
    roles: list[tuple[Any, Role]] = [(root, "root"), *((model, "sub") for model in sub_models)]
    models = [_with_prices(resolve(model, role), prices) for model, role in roles]
    called = [one for model in models for one in model.chain]
    _check_prices(budget, prices, {one.name: has_price(one) for one in called} | {**others})
    _check_caps(budget, called)
    return models


def _with_prices(model: Model, prices: Mapping[str, Price]) -> Model:
    """Return the model, its fallbacks, and the models that a config may choose, with the user's prices."""
    price, choose = prices.get(model.name, model.price), model.choose
    return replace(
        model,
        price=price,
        fallbacks=tuple(_with_prices(one, prices) for one in model.fallbacks),
        choose=choose and (lambda config: _with_prices(choose(config), prices)),
    )


def check_limits_hold(budget: Budget, model: Model) -> None:
    """Raise `ConfigurationError` if a limit cannot be applied to this model, which a config has chosen."""
    if _needs_cap(budget) and any(accepts_output_cap(one.chat) is None for one in model.chain):
        raise ConfigurationError(
            f"{model.name}, which the config chooses, accepts no limit for its output: limit calls instead"
        )
    if budget.usd is not None and not all(map(has_price, model.chain)):
        raise ConfigurationError(
            f"a limit in dollars needs the price of every model, and none is known for {model.name}, which the "
            "config chooses: set it with prices="
        )


def _needs_cap(budget: Budget) -> bool:
    """Return whether a limit holds only for models whose output can be capped."""
    return any(limit is not None for limit in (budget.tokens, budget.usd, budget.output_tokens))


def _check_caps(budget: Budget, models: Iterable[Model]) -> None:
    """Raise `ConfigurationError` for a limit on tokens or dollars with a model that has no output cap, because
    it could exceed the limit."""
    uncapped = sorted({model.name for model in models if accepts_output_cap(model.chat) is None})
    if uncapped and _needs_cap(budget):
        raise ConfigurationError(
            f"a limit on tokens or dollars needs models whose replies can be capped: {', '.join(uncapped)} takes "
            "no max_tokens. Use another class for it, or limit `calls` or `seconds` instead"
        )


def _check_prices(budget: Budget, prices: Mapping[str, Price], is_priced: Mapping[str, bool]) -> None:
    """Raise `ConfigurationError` for a limit in dollars with a model whose price is unknown, because its cost
    cannot be counted."""
    if unknown_names := sorted(set(prices) - set(is_priced)):
        raise ConfigurationError(f"there are prices for {unknown_names}, but the models are {sorted(is_priced)}")
    dollars = budget.usd is not None or budget.approve_above_usd is not None
    unknown = sorted(name for name, known in is_priced.items() if not known)
    if dollars and unknown:
        raise ConfigurationError(
            f"a limit in dollars needs the price of every model, and none is known for {', '.join(unknown)}: "
            f"give it with prices={{{unknown[0]!r}: Price(input=..., output=...)}}, or --price IN:OUT, in dollars "
            "per million tokens; or limit `tokens` or `calls` instead"
        )
