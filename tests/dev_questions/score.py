"""Whether an answer is the right one: the right number must be the number of the answer, not one of several."""

from __future__ import annotations

import re
from typing import Any


def is_right(given: Any, truth: float | str, question: str) -> bool:
    """Strict about values, lenient about the words around them."""
    if given is None or isinstance(given, bool):
        return False
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    if isinstance(truth, int | float):
        return _is_number(given, truth, question)
    return _is_name(str(given), truth, question)


def _is_number(given: Any, truth: float, question: str) -> bool:
    if isinstance(given, int | float):
        return abs(given - truth) < 1e-6 * max(1.0, abs(truth))
    asked = set(_numbers(question))
    said = {number for number in _numbers(str(given)) if number not in asked or number == truth}
    return said == {float(truth)}


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)]


def _is_name(given: str, truth: str, question: str) -> bool:
    """The name alone, or in a sentence that adds no other candidate than what the question said."""
    plain = given.strip().strip("'\"`.")
    if plain == truth:
        return True
    said = re.search(rf"(?<![\w/;]){re.escape(truth)}(?![\w/;])", given)
    others = set(re.findall(r"[\w./;]{3,}", given)) - set(re.findall(r"[\w./;]{3,}", f"{question} {truth}"))
    return said is not None and len(others) <= 8
