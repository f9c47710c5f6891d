"""The one door: every call to a model goes through `ask`, so none is unbooked, unbounded or paid twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from rlm_langchain.calling import Completion, complete
from rlm_langchain.machine import Machine
from rlm_langchain.models import Model
from rlm_langchain.tree import Tree
from rlm_langchain.types import Usage


async def ask(
    machine: Machine,
    tree: Tree,
    model: Model,
    messages: Sequence[BaseMessage],
    place: str,
    config: RunnableConfig,
    *,
    last: bool = False,
) -> Completion:
    """The reply of `model`, asked at `place` in the tree. `last` may use what the ledger holds back.

    Raises `Refused` when it does not fit into the budget, `TimeoutError` when the run's time ends meanwhile,
    `CallFailed` when the provider fails, after retries.
    """
    key = _key(place, model, messages)
    known = tree.receipts.find(key) if tree.receipts else None
    if known is not None:
        completion = Completion(**{**known, "usage": Usage(**known["usage"])})
        tree.ledger.book(completion.usage)
        return completion
    ledger = tree.ledger
    with ledger.reserve(machine.estimate(model, messages, last=last), last=last) as entry, tree.room():
        async with asyncio.timeout(ledger.seconds_left(last=last)):
            completion = await complete(
                model,
                messages,
                config=config,
                gate=tree.gate,
                output_tokens=machine.cap(last=last),
                retry=machine.retry,
            )
        entry.used = completion.usage
        if tree.receipts:
            tree.receipts.write(key, _receipt(completion))
        return completion


def _key(place: str, model: Model, messages: Sequence[BaseMessage]) -> str:
    asked = json.dumps([model.name, *([m.type, m.content] for m in messages)], ensure_ascii=True)
    return f"{place} {hashlib.sha256(asked.encode()).hexdigest()}"


def _receipt(completion: Completion) -> dict[str, object]:
    return {
        "text": completion.text,
        "usage": completion.usage.record(),
        "seconds": completion.seconds,
        "retries": completion.retries,
        "finish": completion.finish,
    }
