"""Intervals and tests for scores: Wilson's interval, the paired bootstrap, and McNemar's test. No dependencies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import ceil, comb, sqrt
from typing import NamedTuple

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the standard normal distribution."""
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


def wilson(score: float, n: int) -> Interval:
    """Return Wilson's 95% interval for a mean score from 0 to 1 over n items; for no items, (0, 1).

    The interval is meant for scores of 0 or 1. For scores in between it is wider than necessary, because 0 and 1
    are the scores with the largest variance for a given mean.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    square = Z95 * Z95 / n
    centre = (score + square / 2) / (1 + square)
    half = Z95 * sqrt(score * (1 - score) / n + square / (4 * n)) / (1 + square)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def paired_bootstrap(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the 95% interval of mean(`first`) - mean(`second`), for the same items in the same order.

    Items are resampled with both of their scores, 10,000 times (percentile method).
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n, rng = len(differences), random.Random(seed)  # noqa: S311 - statistics, not secrets
    if n == 0:
        return Interval(-1.0, 1.0)
    means = sorted(sum(rng.choices(differences, k=n)) / n for _ in range(RESAMPLES))
    return Interval(means[int(0.025 * RESAMPLES)], means[ceil(0.975 * RESAMPLES) - 1])


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the two-sided p-value of McNemar's exact test, or 1 if the arms never disagree.

    The null hypothesis is that both arms are right equally often. Only items on which they disagree count.
    """
    pairs = list(zip(first, second, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    n, fewer = only_first + only_second, min(only_first, only_second)
    return float(min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n))


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the percentile by the nearest-rank method, or None without values. `share` is from 0 to 1."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None
