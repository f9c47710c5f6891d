"""The one door: every call to a model goes through `ask`, so none is unbooked, unbounded or paid twice."""

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
    """A question to a model, and how its reply is found again after a crash."""

    model: Model
    messages: Sequence[BaseMessage]
    path: str
    """In the tree: on whose account it is."""
    key: str
    """Of its receipt, from `key_of`."""
    own_key: str | None = None
    """That of a flawed reply, where `key` is shared by all who ask the same: it answers calls of its wave only."""
    plan: Any = None
    """What was decided by the clock or the account before it was asked. Kept with the reply: a process that finds
    the one must go on from the other, or the reply would be one to another question."""
    last: bool = False
    """Whether its run ends with it: then the reply is kept short."""
    cacheable: bool = False
    """Whether later prompts begin with this one: then it is worth a place in the provider's cache."""
    may_use_reserve: bool = False
    """Whether it may use what the ledger holds back."""


async def ask_model(tree: RunTree, query: ModelRequest, retry: RetryPolicy, config: RunnableConfig) -> Completion:
    """The reply to `query`: the one that was received before, in this process or an earlier one, or a new one.

    Raises `Refused` when it does not fit into the budget, `TimeoutError` when the run's time ends meanwhile,
    `CallFailed` when the provider fails, after retries, `JournalError` when its reply could not be kept.
    """
    known = recorded_reply(tree, query)
    if known is not None:
        return _with_unread(tree, query, known)
    tree.check()
    ledger, held, model = tree.ledger, query.may_use_reserve, query.model

    def estimate() -> Usage:
        return reservation_for(ledger, model, query.messages, last=query.last)

    reservation = ledger.reserve(estimate(), last=held, estimate=estimate)
    async with asyncio.timeout(ledger.seconds_left(last=held)), reservation as entry:
        tree.agreement.started(query.path)
        completion = await complete(
            model,
            with_cache_control(query.messages) if query.cacheable and model.needs_cache_control else query.messages,
            config=config,
            gate=tree.gate,
            output_tokens=max_output_tokens(ledger.budget, last=query.last),
            retry=retry,
            account=Account(entry, lambda completion: _keep(tree, query, entry, completion)),
        )
    return _with_unread(tree, query, completion)


def _keep(tree: RunTree, query: ModelRequest, entry: Reservation, completion: Completion) -> None:
    """Book a reply, at once, and write its receipt."""
    used, wanted = completion.usage, entry.wanted
    if completion.failed == "lost":
        _keep_lost(tree, query, entry)
        return
    entry.book(used)
    tree.note(query.path, used)
    if completion.failed:
        key = _key(query, "usage")
        tree.failures[key] = used = unread_by(tree, query).plus(used)
        if tree.receipts:
            receipt = {"place": query.path, "usage": used.record(), "worked": tree.ledger.seconds}
            tree.receipts.write(key, receipt)
        return
    if not completion.from_cache:
        tree.ledger.learn(query.model.name, wanted, used, expected_cost(query.model, used))
    if tree.receipts:
        flaw = flaw_of(completion.text, completion.finish)
        key = query.own_key if flaw and query.own_key is not None else query.key
        tree.receipts.write(key, {**_receipt(query, completion), "worked": tree.ledger.seconds})


def _keep_lost(tree: RunTree, query: ModelRequest, entry: Reservation) -> None:
    """Count a reply that did not come against the limits, in this process and in later ones."""
    key = _key(query, "lost")
    tree.failures[key] = lost = _failed(tree, key).plus(entry.wanted)
    entry.lose()
    if tree.receipts:
        tree.receipts.write(key, {"place": query.path, "lost": lost.record(), "worked": tree.ledger.seconds})


def unread_by(tree: RunTree, query: ModelRequest) -> Usage:
    """What replies to this question have used that could not be read, in this process or an earlier one."""
    return _failed(tree, _key(query, "usage"))


def _failed(tree: RunTree, key: str) -> Usage:
    """What is kept under the key of a failure."""
    if (used := tree.failures.get(key)) is not None:
        return used
    kept = tree.receipts.find(key) if tree.receipts else None
    return Usage() if kept is None else Usage(**kept[key.rpartition(" ")[2]])


def _key(query: ModelRequest, field: Literal["usage", "lost"]) -> str:
    """Of the receipt of a failure, whose figures are in this field of it."""
    return f"{query.path} {query.key} failed {field}"


def _with_unread(tree: RunTree, query: ModelRequest, completion: Completion) -> Completion:
    """A reply, with what those before it have cost that could not be read."""
    before = unread_by(tree, query)
    return completion if before == Usage() else replace(completion, usage=completion.usage.plus(before))


def receipt_key(tree: RunTree, model: Model, messages: Sequence[BaseMessage], place: str = "") -> str:
    """What a reply is kept under. Without a place, whoever asks the same in this tree has the same reply.

    Nothing for a tree that keeps none: to hash a long prompt takes milliseconds of the event loop.
    """
    if tree.receipts is None:
        return ""
    asked = json.dumps([model.name, *([m.type, m.content] for m in messages)], ensure_ascii=True)
    return f"{place} {hashlib.sha256(asked.encode()).hexdigest()}"


def recorded_reply(tree: RunTree, query: ModelRequest) -> Completion | None:
    """The reply that an earlier process received to a query. It is on the account of the place that asked."""
    if tree.receipts is None:
        return None
    if query.own_key is not None and (own := tree.receipts.find(query.own_key)) is not None:
        return _completion(own, query)
    known = tree.receipts.find(query.key)
    is_own = known is not None and known["place"] == query.path
    if known is None or (query.own_key is not None and not is_own and flaw_of(known["text"], known["finish"])):
        return None
    return _completion(known, query)


def _completion(receipt: dict[str, Any], query: ModelRequest) -> Completion:
    usage = Usage(**receipt["usage"]) if receipt["place"] == query.path else Usage()
    return Completion(
        receipt["text"],
        usage,
        receipt["seconds"],
        receipt["retries"],
        receipt["finish"],
        receipt.get("from_cache", False),
    )


def recorded_plan(tree: RunTree, key: str) -> Any:
    """What was decided about a question whose reply an earlier process received; None when there is none."""
    known = tree.receipts.find(key) if tree.receipts else None
    return known["decided"] if known else None


def _receipt(query: ModelRequest, completion: Completion) -> dict[str, object]:
    return {
        "place": query.path,
        "decided": query.plan,
        "text": completion.text,
        "usage": completion.usage.record(),
        "seconds": completion.seconds,
        "retries": completion.retries,
        "finish": completion.finish,
        "from_cache": completion.from_cache,
    }
