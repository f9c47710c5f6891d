"""The result of one question for one arm, as a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from rlm_langchain.bench.arms.arm import FREE_MODELS
from rlm_langchain.bench.items import Item
from rlm_langchain.records import Record, RLMOutput
from rlm_langchain.types import Usage, UsageRecord, total_usage

MAX_ANSWER_CHARS = 2_000
"""Maximum characters of an answer in a row."""


class Row(TypedDict):
    """The result of one question for one arm."""

    item: str
    family: str
    length: int
    index: int
    arm: str
    score: float
    """From 0 to 1; 0 for a failure."""
    answer: str
    """The answer, cut to `MAX_ANSWER_CHARS`. Empty for a failure."""
    failure: str | None
    """Why there is no answer, or None."""
    stop_reason: str
    root: UsageRecord
    """Usage of an RLM's own turns. Zero for a baseline."""
    sub: UsageRecord
    """Usage of the calls made by code: sub-calls of an RLM, or all calls of a baseline."""
    seconds: float
    resumed: bool
    """Whether another process started the run. `seconds` then covers only the last process."""


def row_of(item: Item, arm: str, output: RLMOutput, *, seconds: float, resumed: bool) -> Row:
    """Build the row for an output of an arm."""
    answer, failure = _answer(output)
    root, sub = usage_of(output["trajectory"])
    return Row(
        item=item.id,
        family=item.family,
        length=item.length,
        index=item.index,
        arm=arm,
        score=0.0 if failure else item.score(answer),
        answer=answer[:MAX_ANSWER_CHARS],
        failure=failure,
        stop_reason=output["stop_reason"],
        root=root.record(),
        sub=sub.record(),
        seconds=round(seconds, 3),
        resumed=resumed,
    )


def _answer(output: RLMOutput) -> tuple[str, str | None]:
    """Return the answer as text, and the reason if there is none."""
    answer = output["answer"]
    if output["status"] == "failed" or answer is None:
        return "", output["stop_reason"]
    if isinstance(answer, dict) and set(answer) == {"failed"}:  # of a baseline
        return "", str(answer["failed"]).partition(":")[0]
    if isinstance(answer, dict) and set(answer) == {"text"}:
        answer = answer["text"]
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False), None


def usage_of(records: Iterable[Record]) -> tuple[Usage, Usage]:
    """Return the usage of a run's own turns, and of all calls below them."""
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
    """Return the dollars of a row, or None if the price of a call is unknown."""
    costs = (row["root"]["cost"], row["sub"]["cost"])
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
