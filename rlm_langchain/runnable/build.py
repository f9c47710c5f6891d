"""Builds the components of an RLM from its options. Names of models, sandboxes and strategies are checked
before anything is paid for.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.budget.budget import Budget
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.graph.calls.functions import functions_of
from rlm_langchain.graph.calls.search import KIND
from rlm_langchain.graph.calls.tools import tools_of
from rlm_langchain.graph.components import Components
from rlm_langchain.models.call import accepts_output_cap
from rlm_langchain.models.model import Model, Price, Role
from rlm_langchain.models.pricing import has_price
from rlm_langchain.models.registry import resolve
from rlm_langchain.prompts.strategies import each_installed, is_auto, strategies_of
from rlm_langchain.protocols import Strategy
from rlm_langchain.retrieval.embedder import Embedder, name_of
from rlm_langchain.retrieval.option import build_search
from rlm_langchain.runnable.contract import Options
from rlm_langchain.sandboxes.choose import choose
from rlm_langchain.sandboxes.reserved_names import bindings, parsed
from rlm_langchain.types import Limits
from rlm_langchain.validation import check_types


def assemble(options: Options) -> Components:
    """Return the components that the options name. Raises `ConfigurationError` or `SandboxError`."""
    check_types("create_rlm", Budget, budget=options.budget)  # set later, they have not been looked at
    check_types("create_rlm", Limits, limits=options.limits)
    store = ContextStore(options.home)
    search = build_search(options.retriever, store.root, options.prices)
    root, *subs = _models(options, search.embedder if search else None)
    strategies = strategies_of(options.strategies)
    named = options.tools or options.sub_tools or options.functions
    helpers = _helpers(strategies, auto=is_auto(options.strategies)) if named else frozenset()
    tools = tools_of(options.tools, helpers)
    sub_tools = tools if options.sub_tools is None else tools_of(options.sub_tools, helpers)
    if search and KIND in {**tools, **sub_tools}:
        raise ConfigurationError(
            f"a tool is called {KIND!r}, and a retriever brings a function of that name: rename one"
        )
    functions = functions_of(options.functions)
    if taken := sorted(functions.keys() & ({*tools, *sub_tools} | ({KIND} if search else set()))):
        raise ConfigurationError(f"there are two functions of the REPL called {taken[0]!r}: rename one")
    if taken := sorted(functions.keys() & helpers):
        raise ConfigurationError(f"a strategy brings a function called {taken[0]!r} too: rename yours")
    return Components(
        root=root,
        subs=tuple(subs),
        sandbox=choose(options.sandbox),
        strategies=strategies,
        auto=is_auto(options.strategies),
        budget=options.budget,
        limits=options.limits,
        store=store,
        memo=options.memo,
        tools=(tools, sub_tools),
        search=search,
        functions=functions,
        citations=options.citations,
        schema=None if options.answer_schema is None else AnswerSchema(options.answer_schema),
    )


def _helpers(strategies: Sequence[Strategy], *, auto: bool) -> frozenset[str]:
    """Return the names that strategies define in the REPL. Tools must not use them."""
    others = [one for _, one in each_installed() if isinstance(one, Strategy)] if auto else []
    trees = [parsed(one.prelude) for one in (*strategies, *others) if one.prelude]
    return frozenset(name for tree in trees if isinstance(tree, ast.Module) for _, name in bindings(tree))


def _models(options: Options, embedder: Embedder | None) -> list[Model]:
    """Return the root model and those for sub-calls, with their prices."""
    below = options.recursive_model or options.root_model
    several = below if isinstance(below, list | tuple) else [below]
    roles: list[tuple[Any, Role]] = [(options.root_model, "root"), *((model, "sub") for model in several)]
    models = [resolve(model, role) for model, role in roles]
    priced = [_with_prices(model, options.prices) for model in models]
    prices = {one.name: has_price(one) for model in priced for one in model.chain}
    if embedder is not None:
        prices[name_of(embedder.model)] = embedder.price is not None
    _check_prices(options, prices)
    _check_caps(options, priced)
    return priced


def _with_prices(model: Model, prices: Mapping[str, Price]) -> Model:
    """Return the model, its fallbacks, and the models that a config may choose, with the user's prices."""
    price, choose = prices.get(model.name, model.price), model.choose
    return replace(
        model,
        price=price,
        fallbacks=tuple(_with_prices(one, prices) for one in model.fallbacks),
        choose=choose and (lambda config: _with_prices(choose(config), prices)),
    )


def _check_caps(options: Options, models: list[Model]) -> None:
    """Raise `ConfigurationError` for a limit on tokens or dollars with a model that has no output cap, because
    it could exceed the limit."""
    budget = options.budget
    each = [one for model in models for one in model.chain]
    uncapped = sorted({model.name for model in each if accepts_output_cap(model.chat) is None})
    if uncapped and any(limit is not None for limit in (budget.tokens, budget.usd, budget.output_tokens)):
        raise ConfigurationError(
            f"a limit on tokens or dollars needs models whose replies can be capped: {', '.join(uncapped)} takes "
            "no max_tokens. Use another class for it, or limit `calls` or `seconds` instead"
        )


def _check_prices(options: Options, prices: dict[str, bool]) -> None:
    """Raise `ConfigurationError` for a limit in dollars with a model whose price is unknown, because its cost
    cannot be counted."""
    if strangers := sorted(set(options.prices) - set(prices)):
        raise ConfigurationError(f"there are prices for {strangers}, but the models are {sorted(prices)}")
    dollars = options.budget.usd is not None or options.budget.approve_above_usd is not None
    unknown = sorted(name for name, known in prices.items() if not known)
    if dollars and unknown:
        raise ConfigurationError(
            f"a limit in dollars needs the price of every model, and none is known for {', '.join(unknown)}: "
            f"give it with prices={{{unknown[0]!r}: Price(input=..., output=...)}}, or --price IN:OUT, in dollars "
            "per million tokens; or limit `tokens` or `calls` instead"
        )
