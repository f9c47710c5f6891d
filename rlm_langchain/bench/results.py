"""The result of one question put to one arm, as a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from rlm_langchain.bench.arms.arm import FREE_MODELS
from rlm_langchain.bench.items import Item
from rlm_langchain.records import Record, RLMOutput
from rlm_langchain.types import Usage, UsageRecord, total_usage

LONGEST_ANSWER = 2_000
"""Characters of an answer in a row."""


class Row(TypedDict):
    """A result."""

    item: str
    family: str
    length: int
    index: int
    arm: str
    score: float
    """From 0 to 1. 0 for a failure."""
    answer: str
    """The answer, shortened. Empty for a failure."""
    failure: str | None
    """Why there is no answer. None: there is one."""
    stop_reason: str
    root: UsageRecord
    """Usage of an RLM's own turns. Zero for a baseline."""
    sub: UsageRecord
    """Usage of the calls that code has made: sub-calls of an RLM, or all calls of a baseline."""
    seconds: float
    resumed: bool
    """Whether another process began it. `seconds` are then those of the last process only."""


def row_of(item: Item, arm: str, output: RLMOutput, *, seconds: float, resumed: bool) -> Row:
    """Return the result that the output of an arm amounts to."""
    answer, failure = _answer(output)
    root, sub = usage_of(output["trajectory"])
    return Row(
        item=item.id,
        family=item.family,
        length=item.length,
        index=item.index,
        arm=arm,
        score=0.0 if failure else item.score(answer),
        answer=answer[:LONGEST_ANSWER],
        failure=failure,
        stop_reason=output["stop_reason"],
        root=root.record(),
        sub=sub.record(),
        seconds=round(seconds, 3),
        resumed=resumed,
    )


def _answer(output: RLMOutput) -> tuple[str, str | None]:
    """Return the answer as text, and why there is none."""
    answer = output["answer"]
    if output["status"] == "failed" or answer is None:
        return "", output["stop_reason"]
    if isinstance(answer, dict) and set(answer) == {"failed"}:  # of a baseline
        return "", str(answer["failed"]).partition(":")[0]
    if isinstance(answer, dict) and set(answer) == {"text"}:
        answer = answer["text"]
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False), None


def usage_of(records: Iterable[Record]) -> tuple[Usage, Usage]:
    """Return the usage of a run's own turns, and that of all calls below them."""
    root, sub = list[Usage](), list[Usage]()
    for record in records:
        if record["type"] in ("turn", "note") and not record["path"]:
            root += _counted(record)
        elif record["type"] == "call" and "child" in record:
            sub += usage_of(record["child"])
        else:
            sub += _counted(record)
    return total_usage(root), total_usage(sub)


def _counted(record: Mapping[str, Any]) -> list[Usage]:
    if "usage" not in record or record.get("model") in FREE_MODELS:
        return []
    return [Usage(**record["usage"])]


def cost_of(row: Row) -> float | None:
    """Return the dollars of a row. None: the price of a call is unknown."""
    costs = (row["root"]["cost"], row["sub"]["cost"])
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
