"""The only place that calls models: it reuses recorded replies, reserves budget, and writes receipts."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.budget.ledger import Receipt, Reservation
from rlm_langchain.models.call import Account, Completion, RetryPolicy, complete, parsed_text
from rlm_langchain.models.estimate import most_tokens_read
from rlm_langchain.models.messages import flaw_of
from rlm_langchain.models.model import Model
from rlm_langchain.models.reservation import (
    expected_cost,
    max_output_tokens,
    reservation_for,
)
from rlm_langchain.models.selection import check_limits_hold
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.types import Usage


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A call of a model, with the key under which its reply is found again after a crash."""

    model: Model
    messages: Sequence[BaseMessage]
    path: str
    """Path of the call in the tree. Its cost is attributed to this path."""
    key: str
    """Key of its receipt, from `receipt_key`."""
    own_key: str | None = None
    """Key for a flawed reply if equal calls share `key`: a flawed reply answers only the calls of its own batch."""
    plan: Any = None
    """The decisions made before the call, which depend on the clock or the ledger. Stored with the reply,
    because a process that finds the reply must continue from the same decisions."""
    last: bool = False
    """Whether this is the last call of its run. Its reply is then kept short."""
    cacheable: bool = False
    """Whether later prompts begin with this one, so that caching it at the provider pays off."""
    may_use_reserve: bool = False
    """Whether it may use the budget that the ledger holds back."""


async def ask_model(tree: RunTree, request: ModelRequest, retry: RetryPolicy, config: RunnableConfig) -> Completion:
    """Return the reply to a request: the recorded one of an earlier process, or a new one.

    Raises `BudgetRefused` if it does not fit into the budget, `TimeoutError` if the run's time ends meanwhile,
    `CallFailed` if the provider fails even after retries, `JournalError` if its reply cannot be stored.
    """
    known = recorded_reply(tree, request)
    if known is not None:
        return await _parse_recorded(tree, request, known, config)
    tree.check()
    model = request.model.chosen(config)
    if model is not request.model:
        check_limits_hold(tree.ledger.budget, model)
        request = replace(request, model=model)
    ledger, may_use_reserve = tree.ledger, request.may_use_reserve
    prompt = await most_tokens_read(model, request.messages, config)

    estimate = partial(reservation_for, ledger.budget, model, prompt, tree.learned, last=request.last)
    reservation = tree.reserve(request.path, estimate(), last=may_use_reserve, estimate=estimate)
    async with asyncio.timeout(ledger.seconds_left(last=may_use_reserve)), reservation as entry:
        tree.approval_limit.started(request.path)
        completion = await complete(
            model,
            request.messages,
            config=config,
            limiter=tree.limiter,
            output_tokens=max_output_tokens(ledger.budget, last=request.last),
            retry=retry,
            account=Account(entry, lambda completion: _book_reply(tree, request, prompt, entry, completion)),
            learned=tree.learned,
            cacheable=request.cacheable,
        )
        if any(one.wrapped is not None and one.wrapped.after for one in model.chain):
            _write_parsed_text(tree, request, completion)
        return completion


async def _parse_recorded(
    tree: RunTree, request: ModelRequest, known: Completion, config: RunnableConfig
) -> Completion:
    """Return a recorded reply after the parsers of its model.

    They run now if the process that received the reply ended before they did, or if they failed in it.
    """
    if known.raw_of is None:
        return known
    model = request.model.chosen(config)
    by = next((one for one in model.chain if one.name == known.raw_of), model)
    text = await parsed_text(by, AIMessage(known.text), config)
    completion = replace(known, text=text, raw_of=None)
    _write_parsed_text(tree, request, completion)
    return completion


def _write_parsed_text(tree: RunTree, request: ModelRequest, completion: Completion) -> None:
    """Write the parsed text of a reply. The receipt of the raw text has already settled the request."""
    if tree.receipts is not None:
        reply = _receipt(request, completion)
        tree.receipts.write(
            _receipt_key_of(request, completion),
            {**reply, "place": request.path, "usage": completion.usage._asdict()},
        )


def _receipt_key_of(request: ModelRequest, completion: Completion) -> str:
    """Return the key of a receipt. A reply that is flawed or not yet parsed is not shared with equal requests."""
    alone = completion.raw_of is not None or flaw_of(completion.text, completion.finish)
    return request.own_key if alone and request.own_key is not None else request.key


def _book_reply(
    tree: RunTree, request: ModelRequest, prompt: int, entry: Reservation, completion: Completion
) -> None:
    """Add the cost of a reply to the ledger at once, and write its receipt. `prompt` is the most tokens that its
    prompt should have had."""
    used, wanted = completion.usage, entry.wanted
    if completion.failed == "lost":
        entry.lose()
        return
    if completion.failed:
        entry.book(used)
        return
    entry.book(used, Receipt(_receipt_key_of(request, completion), _receipt(request, completion)))
    if not completion.from_cache:
        expected = expected_cost(request.model.chain, used)
        tree.learned.add_usage(request.model.name, used, prompt, wanted, expected)


def receipt_key(tree: RunTree, model: Model, messages: Sequence[BaseMessage], call_path: str = "") -> str:
    """Return the receipt key of a request. Without `call_path`, equal requests in this tree share one reply.

    Empty for a tree without receipts, because hashing a long prompt takes milliseconds of the event loop.
    """
    if tree.receipts is None:
        return ""
    described = json.dumps([model.name, *([m.type, m.content] for m in messages)], ensure_ascii=True)
    return f"{call_path} {hashlib.sha256(described.encode()).hexdigest()}"


def recorded_reply(tree: RunTree, request: ModelRequest) -> Completion | None:
    """Return the reply that an earlier process received, or None. Its cost is attributed to the path of the
    request."""
    if tree.receipts is None:
        return None
    own = None if request.own_key is None else tree.receipts.find(request.own_key)
    if own is not None and own.get("raw_of") is None:
        return _completion(own, request)
    known = tree.receipts.find(request.key)
    is_own = known is not None and known["place"] == request.path
    if known is None or (request.own_key is not None and not is_own and flaw_of(known["text"], known["finish"])):
        return None if own is None else _completion(own, request)
    return _completion(known, request)


def _completion(receipt: dict[str, Any], request: ModelRequest) -> Completion:
    usage = Usage(**receipt["usage"]) if receipt["place"] == request.path else Usage()
    return Completion(
        receipt["text"],
        usage,
        receipt["seconds"],
        receipt["retries"],
        receipt["finish"],
        receipt.get("from_cache", False),
        receipt.get("raw_of"),
    )


def recorded_plan(tree: RunTree, key: str) -> Any:
    """Return the plan stored with a recorded reply, or None."""
    known = tree.receipts.find(key) if tree.receipts else None
    return known["decided"] if known else None


def _receipt(request: ModelRequest, completion: Completion) -> dict[str, object]:
    return {
        "decided": request.plan,
        "text": completion.text,
        "seconds": completion.seconds,
        "retries": completion.retries,
        "finish": completion.finish,
        "from_cache": completion.from_cache,
        "raw_of": completion.raw_of,
    }
