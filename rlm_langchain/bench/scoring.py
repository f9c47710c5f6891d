"""Metrics of answers, by the published rules. They are pure functions that return a score from 0 to 1.

- RULER: `string_match_all` and `string_match_part` of its evaluation script, for one answer.
- OOLONG (synth): the answer follows the last colon; a number that is off by d scores 0.75 ** d.
- OOLONG-Pairs: F1 over pairs of numbers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Literal

AnswerType = Literal["LABEL", "NUMERIC", "COMPARISON", "USER", "DATE", "MONTH_YEAR"]

SHORT = 20
"""Length in characters from which OOLONG's parser treats an answer as a sentence."""
COMPARISONS = ("more common", "less common", "same frequency")
_CONTROL = re.compile(r"[\x00-\x1f]")
_PAIR = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)")


def string_match_all(expected: Sequence[str], answer: str) -> float:
    """Return the share of the expected texts that the answer contains, without regard to case (RULER)."""
    said = _printable(answer)
    return sum(text.lower() in said for text in expected) / len(expected)


def string_match_part(expected: Sequence[str], answer: str) -> float:
    """Return 1 if the answer contains one of the expected texts, without regard to case, else 0 (RULER)."""
    said = _printable(answer)
    return float(any(text.lower() in said for text in expected))


def _printable(answer: str) -> str:
    return _CONTROL.sub("\n", answer).strip().lower()


def oolong(answer_type: AnswerType, expected: Sequence[str], answer: str) -> float:
    """Return the score of an answer to a question of OOLONG's synthetic set.

    `expected` holds one text: a list in Python's notation, such as `"[4]"` or `"['spam']"`, as in the published
    files. As there, only its first item counts.
    """
    gold = _gold(expected[0])
    said = _last_part(answer)
    if said == str(gold):
        return 1.0
    if said in COMPARISONS:
        return float(said in str(gold))
    if answer_type == "NUMERIC":
        return _closeness(gold, said)
    if answer_type == "DATE":
        return float(_date(said) == gold)
    return 0.0


def _gold(text: str) -> object:
    if "datetime" in text:
        return datetime.strptime(text, "[datetime.date(%Y, %m, %d)]")
    return ast.literal_eval(text)[0]


def _last_part(answer: str) -> str:
    """Return the answer as OOLONG's parser extracts it: the text after the last colon, or the last word."""
    if ":" not in answer:
        return answer if len(answer) < SHORT else (answer.split() or [""])[-1]
    said = answer.rsplit(":", maxsplit=1)[-1].strip()
    for mark in "*[]":
        said = said.replace(mark, "")
    if len(said) < SHORT:
        return said
    return next((words for words in COMPARISONS if words in said), said)


def _closeness(gold: object, said: str) -> float:
    try:
        return float(0.75 ** abs(int(str(gold)) - int(said)))
    except ValueError:
        return 0.0


def _date(said: str) -> datetime | None:
    from dateutil.parser import parse

    try:
        found: datetime = parse(said)
    except (ValueError, OverflowError):
        return None
    return found


def pairs_f1(expected: Sequence[str], answer: str) -> float:
    """Return the F1 of the pairs `(a, b)` in an answer. The order within a pair, and repetitions, do not count.

    OOLONG-Pairs does not define the score if no pair is correct. Here an answer without pairs then scores 1, any
    other 0.
    """
    gold, said = _pairs("\n".join(expected)), _pairs(answer)
    if not gold or not said:
        return float(gold == said)
    return 2 * len(gold & said) / (len(gold) + len(said))


def _pairs(text: str) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in ((int(a), int(b)) for a, b in _PAIR.findall(text))}


Metric = Literal["ruler_all", "ruler_part", "oolong_numeric", "oolong_label", "pairs_f1"]

METRICS: dict[Metric, Callable[[Sequence[str], str], float]] = {
    "ruler_all": string_match_all,
    "ruler_part": string_match_part,
    "oolong_numeric": partial(oolong, "NUMERIC"),
    "oolong_label": partial(oolong, "LABEL"),
    "pairs_f1": pairs_f1,
}
"""Metrics by their names in the manifest."""
