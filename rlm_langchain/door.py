"""The one door: every call to a model goes through `ask`, so none is unbooked, unbounded or paid twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.calling import Completion, complete
from rlm_langchain.machine import Machine
from rlm_langchain.marks import marked
from rlm_langchain.models import Model
from rlm_langchain.responses import flaw_of
from rlm_langchain.tree import Tree
from rlm_langchain.types import Usage


@dataclass(frozen=True, slots=True)
class Query:
    """A question to a model, and how its reply is found again after a crash."""

    model: Model
    messages: Sequence[BaseMessage]
    place: str
    """In the tree: on whose account it is."""
    key: str
    """Of its receipt, from `key_of`."""
    own_key: str | None = None
    """That of a flawed reply, where `key` is shared by all who ask the same: it answers calls of its wave only."""
    decided: Any = None
    """What was decided by the clock or the account before it was asked. Kept with the reply: a process that finds
    the one must go on from the other, or the reply would be one to another question."""
    last: bool = False
    """Whether its run ends with it: then the reply is kept short."""
    grows: bool = False
    """Whether later prompts begin with this one: then it is worth a place in the provider's cache."""
    held: bool = False
    """Whether it may use what the ledger holds back."""


async def ask(machine: Machine, tree: Tree, query: Query, config: RunnableConfig) -> Completion:
    """The reply to `query`: the one that was received before, in this process or an earlier one, or a new one.

    Raises `Refused` when it does not fit into the budget, `TimeoutError` when the run's time ends meanwhile,
    `CallFailed` when the provider fails, after retries, `JournalError` when its reply could not be kept.
    """
    known = received(tree, query)
    if known is not None:
        return known
    tree.check()
    ledger, held = tree.ledger, query.held
    wanted = machine.estimate(query.model, query.messages, last=query.last)
    async with asyncio.timeout(ledger.seconds_left(last=held)), ledger.reserve(wanted, last=held) as entry:
        tree.agreement.asked(query.place)

        def keep(completion: Completion) -> None:
            entry.used = completion.usage
            tree.note(query.place, completion.usage)
            if tree.receipts:
                flaw = flaw_of(completion.text, completion.finish)
                key = query.own_key if flaw and query.own_key is not None else query.key
                tree.receipts.write(key, _receipt(query, completion))

        return await complete(
            query.model,
            marked(query.messages) if query.grows and query.model.marks else query.messages,
            config=config,
            gate=tree.gate,
            output_tokens=machine.cap(last=query.last),
            retry=machine.retry,
            received=keep,
        )


def key_of(tree: Tree, model: Model, messages: Sequence[BaseMessage], place: str = "") -> str:
    """What a reply is kept under. Without a place, whoever asks the same in this tree has the same reply.

    Nothing for a tree that keeps none: to hash a long prompt takes milliseconds of the event loop.
    """
    if tree.receipts is None:
        return ""
    asked = json.dumps([model.name, *([m.type, m.content] for m in messages)], ensure_ascii=True)
    return f"{place} {hashlib.sha256(asked.encode()).hexdigest()}"


def received(tree: Tree, query: Query) -> Completion | None:
    """The reply that an earlier process received to a query. It is on the account of the place that asked."""
    if tree.receipts is None:
        return None
    if query.own_key is not None and (own := tree.receipts.find(query.own_key)) is not None:
        return _completion(own, query)
    known = tree.receipts.find(query.key)
    is_own = known is not None and known["place"] == query.place
    if known is None or (query.own_key is not None and not is_own and flaw_of(known["text"], known["finish"])):
        return None
    return _completion(known, query)


def _completion(receipt: dict[str, Any], query: Query) -> Completion:
    usage = Usage(**receipt["usage"]) if receipt["place"] == query.place else Usage()
    return Completion(receipt["text"], usage, receipt["seconds"], receipt["retries"], receipt["finish"])


def decided(tree: Tree, key: str) -> Any:
    """What was decided about a question whose reply an earlier process received; None when there is none."""
    known = tree.receipts.find(key) if tree.receipts else None
    return known["decided"] if known else None


def _receipt(query: Query, completion: Completion) -> dict[str, object]:
    return {
        "place": query.place,
        "decided": query.decided,
        "text": completion.text,
        "usage": completion.usage.record(),
        "seconds": completion.seconds,
        "retries": completion.retries,
        "finish": completion.finish,
    }
