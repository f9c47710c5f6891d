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
    known = received(tree, query.key, query.place)
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
                tree.receipts.write(query.key, _receipt(query, completion))

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


def received(tree: Tree, key: str, place: str) -> Completion | None:
    """The reply that an earlier process received under this key. It is on the account of the place that asked."""
    known = tree.receipts.find(key) if tree.receipts else None
    if known is None:
        return None
    usage = Usage(**known["usage"]) if known["place"] == place else Usage()
    return Completion(known["text"], usage, known["seconds"], known["retries"], known["finish"])


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
