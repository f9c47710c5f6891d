"""Intervals and tests against values from the literature and from direct calculation."""

from __future__ import annotations

import math
import random

import pytest

from rlm_langchain.bench.statistics import mcnemar, paired_bootstrap, percentile, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (25, 50, 0.3664, 0.6336),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_of_no_items_is_the_whole_range() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (9, 1, 0.021484375), (5, 5, 1.0), (0, 10, 0.001953125)],
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    first = [True] * only_first + [False] * only_second + [True, False] * 7
    second = [False] * only_first + [True] * only_second + [True, False] * 7
    assert mcnemar(first, second) == pytest.approx(p)


def test_the_bootstrap_of_equal_differences_is_that_difference() -> None:
    assert paired_bootstrap([0.5, 1.0, 0.25], [0.25, 0.75, 0.0]) == (0.25, 0.25)


def test_the_bootstrap_is_close_to_the_normal_interval_of_many_items() -> None:
    rng = random.Random(3)
    first, second = [float(rng.random() < 0.7) for _ in range(100)], [float(rng.random() < 0.5) for _ in range(100)]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean = sum(differences) / 100
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / 99 / 100)
    assert paired_bootstrap(first, second) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.02)
    assert paired_bootstrap(first, second) == paired_bootstrap(first, second)


def test_percentiles_are_measured_values() -> None:
    assert percentile([], 0.5) is None
    assert [percentile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 2.0, 4.0, 4.0]
