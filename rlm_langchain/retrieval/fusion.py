"""Several rankings made one, by reciprocal rank: scores of different kinds need not be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CONSTANT = 60
"""The larger, the less the first ranks of each ranking count against the later ones."""


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
