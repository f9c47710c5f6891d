"""The only place that calls models. `ask_model` reuses a recorded reply, reserves budget, calls, and writes a
receipt.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.budget.ledger import Reservation
from rlm_langchain.models.call import Account, Completion, RetryPolicy, complete
from rlm_langchain.models.messages import flaw_of, with_cache_control
from rlm_langchain.models.model import Model
from rlm_langchain.run.reservation import expected_cost, max_output_tokens, reservation_for
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
        return _with_unread(tree, request, known)
    tree.check()
    ledger, held, model = tree.ledger, request.may_use_reserve, request.model

    def estimate() -> Usage:
        return reservation_for(ledger, model, request.messages, last=request.last)

    reservation = ledger.reserve(estimate(), last=held, estimate=estimate)
    async with asyncio.timeout(ledger.seconds_left(last=held)), reservation as entry:
        tree.agreement.started(request.path)
        completion = await complete(
            model,
            with_cache_control(request.messages)
            if request.cacheable and model.needs_cache_control
            else request.messages,
            config=config,
            gate=tree.gate,
            output_tokens=max_output_tokens(ledger.budget, last=request.last),
            retry=retry,
            account=Account(entry, lambda completion: _keep(tree, request, entry, completion)),
        )
    return _with_unread(tree, request, completion)


def _keep(tree: RunTree, request: ModelRequest, entry: Reservation, completion: Completion) -> None:
    """Add the cost of a reply to the ledger at once, and write its receipt."""
    used, wanted = completion.usage, entry.wanted
    if completion.failed == "lost":
        _keep_lost(tree, request, entry)
        return
    entry.book(used)
    tree.note(request.path, used)
    if completion.failed:
        key = _key(request, "usage")
        tree.failures[key] = used = unread_by(tree, request).plus(used)
        if tree.receipts:
            receipt = {"place": request.path, "usage": used.record(), "worked": tree.ledger.seconds}
            tree.receipts.write(key, receipt)
        return
    if not completion.from_cache:
        tree.ledger.learn(request.model.name, wanted, used, expected_cost(request.model, used))
    if tree.receipts:
        flaw = flaw_of(completion.text, completion.finish)
        key = request.own_key if flaw and request.own_key is not None else request.key
        tree.receipts.write(key, {**_receipt(request, completion), "worked": tree.ledger.seconds})


def _keep_lost(tree: RunTree, request: ModelRequest, entry: Reservation) -> None:
    """Count a reply that did not arrive against the limits, in this process and in later ones."""
    key = _key(request, "lost")
    tree.failures[key] = lost = _failed(tree, key).plus(entry.wanted)
    entry.lose()
    if tree.receipts:
        tree.receipts.write(key, {"place": request.path, "lost": lost.record(), "worked": tree.ledger.seconds})


def unread_by(tree: RunTree, request: ModelRequest) -> Usage:
    """Return the usage of unreadable replies to this request, in this process and earlier ones."""
    return _failed(tree, _key(request, "usage"))


def _failed(tree: RunTree, key: str) -> Usage:
    """Return the usage stored under the key of a failure."""
    if (used := tree.failures.get(key)) is not None:
        return used
    kept = tree.receipts.find(key) if tree.receipts else None
    return Usage() if kept is None else Usage(**kept[key.rpartition(" ")[2]])


def _key(request: ModelRequest, field: Literal["usage", "lost"]) -> str:
    """Return the key of the receipt of a failure, which stores its figures in this field."""
    return f"{request.path} {request.key} failed {field}"


def _with_unread(tree: RunTree, request: ModelRequest, completion: Completion) -> Completion:
    """Return a reply whose usage includes that of the unreadable replies before it."""
    before = unread_by(tree, request)
    return completion if before == Usage() else replace(completion, usage=completion.usage.plus(before))


def receipt_key(tree: RunTree, model: Model, messages: Sequence[BaseMessage], place: str = "") -> str:
    """Return the receipt key of a request. Without `place`, equal requests in this tree share one reply.

    Empty for a tree without receipts, because hashing a long prompt takes milliseconds of the event loop.
    """
    if tree.receipts is None:
        return ""
    asked = json.dumps([model.name, *([m.type, m.content] for m in messages)], ensure_ascii=True)
    return f"{place} {hashlib.sha256(asked.encode()).hexdigest()}"


def recorded_reply(tree: RunTree, request: ModelRequest) -> Completion | None:
    """Return the reply that an earlier process received, or None. Its cost is attributed to the path of the
    request."""
    if tree.receipts is None:
        return None
    if request.own_key is not None and (own := tree.receipts.find(request.own_key)) is not None:
        return _completion(own, request)
    known = tree.receipts.find(request.key)
    is_own = known is not None and known["place"] == request.path
    if known is None or (request.own_key is not None and not is_own and flaw_of(known["text"], known["finish"])):
        return None
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
    )


def recorded_plan(tree: RunTree, key: str) -> Any:
    """Return the plan stored with a recorded reply, or None."""
    known = tree.receipts.find(key) if tree.receipts else None
    return known["decided"] if known else None


def _receipt(request: ModelRequest, completion: Completion) -> dict[str, object]:
    return {
        "place": request.path,
        "decided": request.plan,
        "text": completion.text,
        "usage": completion.usage.record(),
        "seconds": completion.seconds,
        "retries": completion.retries,
        "finish": completion.finish,
        "from_cache": completion.from_cache,
    }
