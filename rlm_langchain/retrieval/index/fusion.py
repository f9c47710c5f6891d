"""Several rankings made one, by reciprocal rank: scores of different kinds need not be compared.

How much the words of a query count beside its meaning depends on how well they are met. Where a passage has all
of them, they say more than any vector; where the best has a quarter of them, in weight, the query is in other words
than the text, and a ranking by those words would only push aside what meaning has found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CONSTANT = 10
"""The larger, the less the first ranks of each ranking count against the later ones."""
STRONGEST = 3.0
"""Beside meaning, which weighs 1: words of a query that one passage has all of. Chosen on half of the questions of
`tests/measure/retrieval.py`."""


def weight_of_words(met: float) -> float:
    """What words weigh when the best passage has this share, from 0 to 1, of what the query's words could score."""
    return STRONGEST * met**2


def fused(rankings: Sequence[tuple[float, Iterable[int]]]) -> list[tuple[int, float]]:
    """What is ranked, best first, with its fused score. Each ranking comes with its weight.

    Of equals, the one with the smaller number comes first.
    """
    scores: dict[int, float] = {}
    for weight, ranking in rankings:
        for place, one in enumerate(ranking, 1):
            number = int(one)
            scores[number] = scores.get(number, 0.0) + weight / (CONSTANT + place)
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
