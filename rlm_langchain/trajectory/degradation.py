"""Counts what an answer may be missing: refused or failed calls, cut replies, child runs that ended early.

A failed call that was repeated in the same run and then answered is not counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from rlm_langchain.budget.limits import STOPS, TREE_LIMITS
from rlm_langchain.context.sanitize import shows_nothing
from rlm_langchain.records import CallRecord
from rlm_langchain.trajectory.call_kinds import kind_of
from rlm_langchain.types import Shortfall, StopReason

STOP_SENTENCES: dict[StopReason, str] = {
    "answer": "the model gave its answer",
    "prose": "the model answered in words, without code",
    **{reason: stop.for_people for reason, stop in STOPS.items()},
    "no_progress": "the model only repeated itself",
    "no_answer": "the model gave an empty answer",
    "degraded": "the model gave its answer without all that it had asked for",
    "model": "the model did not answer",
    "cancelled": "it was cancelled",
}
"""Why a run ended, for people."""

NAMES: dict[Shortfall, tuple[str, str]] = {
    "refused": ("call was refused by a limit", "calls were refused by a limit"),
    "declined": ("call was declined by a person", "calls were declined by a person"),
    "failed": ("call failed", "calls failed"),
    "cut": ("reply was cut off", "replies were cut off"),
    "filtered": ("reply was filtered by the provider", "replies were filtered by the provider"),
    "empty": ("reply was empty", "replies were empty"),
    "child_partial": ("child run ended early", "child runs ended early"),
    "child_failed": ("child run found no answer", "child runs found no answer"),
    "empty_context": ("context was empty", "contexts were empty"),
    "found_nothing": ("search found nothing", "searches found nothing"),
    "no_citations": ("answer came without a quote", "answers came without a quote"),
    "dropped_citations": ("quote was not found, and left out", "quotes were not found, and left out"),
}
"""Each shortfall in words, singular and plural."""
_TREE_REASONS = frozenset(stop.reason for _, stop in TREE_LIMITS)


def shortfalls(calls: Iterable[CallRecord]) -> dict[Shortfall, int]:
    """Return what is missing of the replies to these calls, by kind."""
    return dict(Counter(kind for call in _unanswered(calls) if (kind := _shortfall(call)) is not None))


def limit_of(calls: Iterable[CallRecord]) -> StopReason | None:
    """Return the first limit that refused one of these calls or ended its child run early, or None."""
    return next((limit for call in _unanswered(calls) if (limit := _limit(call)) is not None), None)


def empty_searches(calls: Iterable[CallRecord]) -> int:
    """Return how many of these calls were searches without a hit, as their replies say."""
    return sum(call["kind"] == "search" and _has_no_hit(call["value"]) for call in calls)


def _has_no_hit(value: object) -> bool:
    try:
        return isinstance(value, str) and json.loads(value)["hits"] == []
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def is_blank(answer: object) -> bool:
    """Return whether an answer is None, or a text that shows nothing."""
    return answer is None or (isinstance(answer, str) and shows_nothing(answer))


def describe_shortfalls(missing: Mapping[Shortfall, int]) -> str:
    """Return the counts as a phrase for people."""
    return ", ".join(f"{count:,} {NAMES[kind][count != 1]}" for kind, count in missing.items())


def _unanswered(calls: Iterable[CallRecord]) -> list[CallRecord]:
    by_number = {call["call"]: call for call in calls}
    answered = {call["prompt_sha256"] for call in by_number.values() if _shortfall(call) is None}
    return [call for call in by_number.values() if call["prompt_sha256"] not in answered]


def _shortfall(call: CallRecord) -> Shortfall | None:
    refused = call.get("refused")
    if refused is not None:
        return "declined" if refused == "declined" else "refused"
    if not kind_of(call["kind"]).is_answered_by_model:
        return None
    if child := call.get("child"):
        return {"partial": "child_partial", "failed": "child_failed"}.get(child[-1]["status"])  # type: ignore[return-value]
    return "failed" if call["error"] is not None else call.get("flaw")


def _limit(call: CallRecord) -> StopReason | None:
    refused = call.get("refused")
    if refused is not None:
        return None if refused == "declined" else refused
    reason: StopReason | None = child[-1]["stop_reason"] if (child := call.get("child")) else None
    return reason if reason in _TREE_REASONS else None
