"""Whether an answer is right: the truth, and nothing else that could be taken for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tests.dev_questions.questions import Truth

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])", re.IGNORECASE)
TOLERANCE = 1e-3
"""Relative, for numbers that are not whole."""
YES, NO = {"yes", "true"}, {"no", "false", "none"}


def right(answer: Any, truths: Iterable[Truth], query: str) -> bool:
    """Whether the answer states one of the truths. No answer is never right."""
    return answer is not None and any(_states(answer, truth, query) for truth in truths)


def _states(answer: Any, truth: Truth, query: str) -> bool:
    match truth:
        case bool():
            return _says(answer) is truth
        case int() | float():
            return _is_number(answer, float(truth), query)
        case str():
            return _is_text(answer, truth)
        case tuple():
            return _are_texts(answer, truth)


def _says(answer: Any) -> bool | None:
    """Yes, no, or neither; a sentence says what its first such word says."""
    if isinstance(answer, bool):
        return answer
    words = re.findall(r"[a-z]+", str(answer).lower())
    said = [word in YES for word in words if word in YES | NO]
    return said[0] if said else None


def _is_number(answer: Any, truth: float, query: str) -> bool:
    """The number itself, or a text in which it is the only number beside those of the question."""
    if isinstance(answer, bool):
        return False
    if isinstance(answer, int | float):
        return _same(answer, truth)
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, list):
        return len(answer) == 1 and _is_number(answer[0], truth, query)
    asked = set(_numbers(query))
    said = {number for number in _numbers(str(answer)) if number not in asked or _same(number, truth)}
    return bool(said) and all(_same(number, truth) for number in said)


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def _same(number: float, truth: float) -> bool:
    whole = float(truth).is_integer() and abs(truth) < 1e9
    return number == truth if whole else abs(number - truth) <= max(TOLERANCE * abs(truth), 0.05)


def _is_text(answer: Any, truth: str) -> bool:
    """The text itself; first of a pair with its score; or within a sentence that is not much longer."""
    if isinstance(answer, dict):
        answer = [*answer] if len(answer) == 1 else [*answer.values()]
    if isinstance(answer, list):
        texts = [item for item in answer if isinstance(item, str)]
        return len(texts) == 1 and _is_text(texts[0], truth)
    said, sought = _plain(str(answer)), _plain(truth)
    if said == sought:
        return True
    found = re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", said)
    return found is not None and len(said) <= len(sought) + 120 and (len(sought) > 2 or said.endswith(f" {sought}"))


def _are_texts(answer: Any, truth: tuple[str, ...]) -> bool:
    """All of them and no others, in any order."""
    if isinstance(answer, dict):
        answer = [*answer]
    if isinstance(answer, list):
        items = [item[0] if isinstance(item, list) and item else item for item in answer]
        return sorted(_plain(str(item)) for item in items) == sorted(map(_plain, truth))
    said = _plain(str(answer))
    others = re.sub("|".join(re.escape(_plain(item)) for item in truth), "", said)
    return all(_plain(item) in said for item in truth) and not re.search(r"\w/\w|\w\.py\b", others)


def _plain(text: str) -> str:
    """Without case, quotation marks, outer punctuation and doubled blanks."""
    return " ".join(re.sub(r"[\"'`*]", "", text).lower().split()).strip(".:;, ")
