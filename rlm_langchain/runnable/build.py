"""Builds the components of an RLM from its options. Names of models, sandboxes and strategies are checked
before anything is paid for.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.budget.budget import Budget
from rlm_langchain.context.store import ContextStore
from rlm_langchain.errors import ConfigurationError
from rlm_langchain.graph.calls.functions import functions_of
from rlm_langchain.graph.calls.search import KIND
from rlm_langchain.graph.calls.tools import tools_by_name
from rlm_langchain.graph.components import Components
from rlm_langchain.models.selection import select_models
from rlm_langchain.prompts.strategies import each_installed, is_auto, strategies_of
from rlm_langchain.protocols import Strategy
from rlm_langchain.retrieval.embedder import name_of
from rlm_langchain.retrieval.option import build_search
from rlm_langchain.runnable.contract import Options
from rlm_langchain.sandboxes.choose import choose
from rlm_langchain.sandboxes.reserved_names import RESERVED, bindings, parsed
from rlm_langchain.types import Limits
from rlm_langchain.validation import check_types


def assemble(options: Options) -> Components:
    """Return the components that the options name. Raises `ConfigurationError` or `SandboxError`."""
    check_types("create_rlm", Budget, budget=options.budget)  # pydantic does not check options set later
    check_types("create_rlm", Limits, limits=options.limits)
    store = ContextStore(options.home)
    search = build_search(options.retriever, store.root, options.prices)
    embedder = search.embedder if search else None
    embedders = {name_of(embedder.model): embedder.price is not None} if embedder else {}
    below = options.recursive_model or options.root_model
    root, *subs = select_models(options.root_model, below, options.budget, options.prices, embedders)
    strategies, auto = strategies_of(options.strategies), is_auto(options.strategies)
    _check_helpers(strategies)
    named = options.tools or options.sub_tools or options.functions
    helpers = _helpers(strategies, auto=auto) if named else frozenset()
    tools = tools_by_name(options.tools, helpers)
    sub_tools = tools if options.sub_tools is None else tools_by_name(options.sub_tools, helpers)
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
        auto=auto,
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


def _check_helpers(strategies: Sequence[Strategy]) -> None:
    """Raise `ConfigurationError` for helpers that would replace a function of the REPL, such as `llm_query`."""
    for strategy in strategies:
        tree = parsed(strategy.prelude)
        names = bindings(tree) if isinstance(tree, ast.Module) else ()
        if taken := sorted((line, name) for line, name in names if name in RESERVED):
            line, name = taken[0]
            raise ConfigurationError(
                f"the helpers of the strategy {strategy.name!r} define {name!r} in line {line}, a name that the "
                "REPL itself needs: rename it"
            )


def _helpers(strategies: Sequence[Strategy], *, auto: bool) -> frozenset[str]:
    """Return the names that strategies define in the REPL. Tools must not use them."""
    every = [one for _, one in each_installed() if isinstance(one, Strategy)] if auto else []
    trees = [parsed(one.prelude) for one in (*strategies, *every) if one.prelude]
    return frozenset(name for tree in trees if isinstance(tree, ast.Module) for _, name in bindings(tree))
