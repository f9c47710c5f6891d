"""Functions that plug-ins add to the REPL: found by entry point, called by code in the sandbox, run in the host.

A call is journaled and counts against `Budget.tool_calls`; its price, if it has one, is charged to the budget. The
reply is written to disk before it is used, so that no crash repeats the call. A function is not confined: it may do
whatever its author wants, with arguments that code of a model has chosen.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from keyword import iskeyword
from math import inf
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from rlm_langchain.budget.ledger import BudgetRefused
from rlm_langchain.context.sanitize import clip, quotable
from rlm_langchain.durability.receipts import recorded
from rlm_langchain.errors import ConfigurationError, RLMError
from rlm_langchain.graph.calls.handler import CallHandler, CallSite
from rlm_langchain.graph.calls.host_code import (
    MAX_ERROR_CHARS,
    definitions,
    failure_message,
    in_own_thread,
    result_of,
)
from rlm_langchain.graph.calls.tool_names import REPL_NAMES, is_python_name
from rlm_langchain.graph.calls.tool_results import too_big_message
from rlm_langchain.graph.components import Components
from rlm_langchain.plugins import load
from rlm_langchain.protocols import HostFunction
from rlm_langchain.sandboxes.reserved_names import RESERVED
from rlm_langchain.types import CallResult, ContextRef, Usage

GROUP = "calls"
"""The entry point group is `rlm_langchain.` and this name."""


class FunctionHandler(CallHandler):
    """Handles `function`: a call of a plug-in's function."""

    def prelude(self, components: Components, path: str) -> str:
        """Return the code that defines the functions in the REPL."""
        return definitions("function", components.functions)

    def guidance(self, components: Components, path: str, context: ContextRef | None) -> str:
        """Return the functions' part of the root model's prompt."""
        functions = components.functions.values()
        return "\n".join(
            f"- `{one.name}({one.signature})` is run outside the REPL: {quotable(one.guidance.strip())}"
            for one in functions
        )

    def reservation(self, site: CallSite) -> Usage:
        """Return the price of a call, as the function states it."""
        try:
            name = json.loads(site.numbered.call.prompt)[0]
            return Usage(cost=site.components.functions[name].usd)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return Usage()

    async def answer(self, site: CallSite, config: RunnableConfig) -> CallResult:
        """Run the function that the call names, at most once. Return its result as JSON, or an error message."""
        place, prompt = site.numbered.call_path, site.numbered.call.prompt
        key = f"{place} tool {hashlib.sha256(prompt.encode()).hexdigest()}"
        return await recorded(site.tree.receipts, key, place, lambda: _run_counted(site))


def functions_of(wanted: Iterable[str | HostFunction]) -> dict[str, HostFunction]:
    """Return functions by the names that code calls them by. A `str` in `wanted` names an installed one.

    Raises `UnknownPlugin` for one that is not installed, and `ConfigurationError` for one that code cannot call and
    for two with the same name.
    """
    if isinstance(wanted, str):
        raise ConfigurationError(f"functions={wanted!r} is a text: give a list, [{wanted!r}]")
    functions: dict[str, HostFunction] = {}
    for one in wanted:
        function = _load_function(one) if isinstance(one, str) else one
        if problem := _problem(function, functions):
            raise ConfigurationError(f"{_name(function)!r} cannot be a function of the REPL: {problem}")
        functions[function.name] = function
    return functions


def _load_function(name: str) -> HostFunction:
    found: HostFunction = load(GROUP, name)
    return found


def _name(function: Any) -> str:
    return str(getattr(function, "name", type(function).__name__))


def _problem(function: Any, others: Mapping[str, HostFunction]) -> str | None:
    """Return why code could not call this function, and what to do. None if it could."""
    if not isinstance(function, HostFunction):
        return f"it is a {type(function).__name__}, not a HostFunction"
    name, usd = function.name, function.usd
    for field in ("name", "signature", "guidance"):
        if not isinstance(text := getattr(function, field), str):
            return f"{field}={text!r}: give a text"
    faults = (
        (not name.isidentifier() or iskeyword(name), "that is not a valid name in Python. Rename it"),
        (is_python_name(name), "it is a name of Python. Rename it"),
        (name in RESERVED or name in REPL_NAMES, "the REPL has a function of that name. Rename it"),
        (name in others, "there are two of that name. Rename one"),
        (not function.guidance.strip(), "it has no guidance: say what it is for and what it returns"),
        (
            not (isinstance(usd, int | float) and 0 <= usd < inf),
            f"usd={usd!r}: give the price of a call in dollars, 0 or more",
        ),
    )
    return next((why for is_wrong, why in faults if is_wrong), None) or _signature_problem(function)


def _signature_problem(function: HostFunction) -> str | None:
    """Return why the signature is not valid, or not that of the function. None if it is."""
    try:
        [declared] = ast.parse(f"def f({function.signature}): ...").body
    except (SyntaxError, ValueError):
        return (
            f"signature={function.signature!r} is no valid parameter list: give what stands between the "
            "parentheses of a `def`"
        )
    try:
        actual = list(inspect.signature(function.function).parameters)
    except (TypeError, ValueError) as error:
        return f"the parameters of its `function` cannot be read: {error}"
    if not isinstance(declared, ast.FunctionDef):
        return f"signature={function.signature!r} is more than a parameter list"
    arguments = declared.args
    named = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    named += [one.arg for one in (arguments.vararg,) if one] + [one.arg for one in arguments.kwonlyargs]
    named += [one.arg for one in (arguments.kwarg,) if one]
    if named != actual:
        declared_names, actual_names = (", ".join(names) or "no parameters" for names in (named, actual))
        return f"its signature has {declared_names}, its function {actual_names}"
    return None


async def _run_counted(site: CallSite) -> CallResult:
    """Run the call if `Budget.tool_calls` allows one more."""
    async with site.tree.tool_call(site.numbered.call_path) as is_left:
        if not is_left:
            return CallResult(None, "not run: no tool calls are left", refused="tool_calls")
        return await _run(site)


async def _run(site: CallSite) -> CallResult:
    try:
        name, args, kwargs = json.loads(site.numbered.call.prompt)
        function = site.components.functions[name]
    except (ValueError, KeyError, TypeError, RecursionError):
        return CallResult(None, "there is no such function")
    try:
        bound = inspect.signature(function.function).bind(*args, **kwargs)
    except TypeError as error:  # raised by `bind`: the text is Python's, about names that code chose
        return CallResult(None, f"{name} was called wrongly: {clip(str(error), MAX_ERROR_CHARS)}")
    try:
        async with asyncio.timeout(site.tree.ledger.seconds_left()), _paid_place(site, function):
            return await result_of(site.tree, _result(name, function, bound, site.components.limits.value))
    except BudgetRefused as refused:
        return CallResult(None, f"not run: {refused}", refused=refused.reason)
    except (RLMError, GraphBubbleUp):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a function raises
        return CallResult(None, f"{name} {failure_message(error)}")


async def _result(name: str, function: HostFunction, bound: inspect.BoundArguments, most: int) -> CallResult:
    """Return the result of the function, as JSON. A sync function runs in a thread of its own. So does the
    conversion to JSON, because a long value would block the event loop."""
    if inspect.iscoroutinefunction(function.function):
        result = await function.function(*bound.args, **bound.kwargs)
    else:
        result = await in_own_thread(lambda: function.function(*bound.args, **bound.kwargs))
        result = await result if inspect.isawaitable(result) else result
    return await in_own_thread(lambda: _as_json(name, result, most))


def _as_json(name: str, result: Any, most: int) -> CallResult:
    """Return a result as JSON of at most `most` characters. A value that JSON would change is an error."""
    try:
        text = json.dumps(result, allow_nan=False)
        if len(text) > most:
            return CallResult(None, f"{name} ran, but {too_big_message(most)}")
        json.dumps(result, ensure_ascii=False).encode()  # half of a surrogate pair would come to no sandbox
        if json.loads(text) == result:
            return CallResult(text)
    except (TypeError, ValueError, RecursionError):
        pass
    return CallResult(None, f"{name} returned a {type(result).__name__} that JSON cannot represent")


@asynccontextmanager
async def _paid_place(site: CallSite, function: HostFunction) -> AsyncIterator[None]:
    """Wait for a free place among the running tools. Reserve the price before, and charge it after the call."""
    tree = site.tree
    if not function.usd:
        async with tree.tool_limiter:
            yield
        return
    cost = Usage(cost=float(function.usd))
    tree.check()
    async with tree.reserve(site.numbered.call_path, cost) as entry:
        tree.approval_limit.started(site.numbered.call_path)
        while True:
            await entry.renew()
            async with tree.tool_limiter:
                if entry.begin():
                    try:
                        yield
                    finally:  # even after a failure, because the call may have been charged
                        entry.book(cost)
                    return
