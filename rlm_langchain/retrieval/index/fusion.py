"""Combines rankings by reciprocal rank fusion, which does not compare scores of different kinds.

The weight of a query's words depends on how well they match. If a passage contains all of them, they are better
evidence than any vector. If the best passage has a quarter of them, by weight, then the text uses other words than
the query, and a ranking by words would only push better hits by meaning down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CONSTANT = 10
"""Constant of reciprocal rank fusion. The larger it is, the less the first ranks count against later ones."""
MAX_WORD_WEIGHT = 3.0
"""Weight of a ranking by words if one passage contains all of them; a ranking by meaning has 1. Tuned on half of
the questions of `tests/measure/retrieval.py`."""


def word_weight(match_share: float) -> float:
    """Return the weight of a ranking by words, whose `Ranking.match_share` (0 to 1) is given."""
    return MAX_WORD_WEIGHT * match_share**2


def fuse(rankings: Sequence[tuple[float, Iterable[int]]]) -> list[tuple[int, float]]:
    """Combine weighted rankings into one. Return numbers with their fused scores, best first.

    Of equal scores, the smaller number comes first.
    """
    scores: dict[int, float] = {}
    for weight, ranking in rankings:
        for place, one in enumerate(ranking, 1):
            number = int(one)
            scores[number] = scores.get(number, 0.0) + weight / (CONSTANT + place)
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
