"""The scores against cases worked out by the published rules, at least a hundred for each of them."""

from __future__ import annotations

import random
from itertools import product

import pytest

from rlm_langchain.bench.scoring import oolong, pairs_f1, string_match_all, string_match_part

RNG = random.Random(7)

# RULER: an answer that holds `found` of `of` numbers, told in ways that must not matter.
WAYS = (
    "The numbers are {}.",
    "{}",
    "\n\n  {}\x07\n",
    "**{}** (of the text)",
)


def ruler_cases() -> list[tuple[list[str], str, float, float]]:
    """Expected texts, an answer, and its scores by `string_match_all` and `string_match_part`."""
    cases = []
    for of, way in product(range(1, 7), WAYS):
        for found in range(of + 1):
            expected = [str(number) for number in RNG.sample(range(1_000_000, 9_999_999), of)]
            held = RNG.sample(expected, found)
            cases.append((expected, way.format(", ".join(held)), found / of, float(found > 0)))
    return cases


RULER_BY_HAND: list[tuple[list[str], str, float, float]] = [
    (["Paris"], "PARIS", 1, 1),  # case does not count
    (["ABCDE", "FGHIJ"], "abcde", 0.5, 1),
    (["1234567"], "12345678", 1, 1),  # a substring is enough
    (["1234567"], "1 234 567", 0, 0),
    (["1234567"], "123\x004567", 0, 0),  # control characters become line ends
    (["a", "a"], "a", 1, 1),  # each expected text is looked for by itself
    (["a", "b"], "", 0, 0),
]
RULER = ruler_cases() + RULER_BY_HAND


def test_ruler_scores_the_share_of_the_texts_that_an_answer_contains() -> None:
    assert len(RULER) >= 100
    for expected, answer, share, some in RULER:
        assert string_match_all(expected, answer) == pytest.approx(share), (expected, answer)
        assert string_match_part(expected, answer) == some, (expected, answer)


# OOLONG: a number that is wrong by d is worth 0.75 ** d, wherever the parser finds it.
POWERS = [1.0, 0.75, 0.5625, 0.421875, 0.31640625, 0.2373046875, 0.177978515625]
FORMS = ("{}", "Answer: {}", "**Answer: {}**", "Answer: [{}]", "I counted them.\nThere are in all: {}")
NUMBERS = [
    (f"[{gold}]", form.format(gold + sign * d), POWERS[d])
    for gold, form, d, sign in product((3, 40, 1_000), FORMS, range(len(POWERS)), (1, -1))
]
NUMBERS_BY_HAND = [
    ("[4]", "The total comes to about 4", 1.0),  # long, no colon: the last word
    ("[4]", "The total comes to about 5", 0.75),
    ("[4]", "The total comes to about 4.", 0.0),  # with its full stop that word is no integer
    ("[4]", "Answer: 4.0", 0.0),
    ("[4]", "Answer: four", 0.0),
    ("[4]", "Answer: 4 items", 0.0),
    ("[4]", "Answer: 04", 1.0),  # not the same text, but the same integer
    ("[4]", "4 or 5", 0.0),  # short, no colon: all of it
    ("[4]", "", 0.0),
    ("[4]", " " * 30, 0.0),
    ("[4]", "Answer: 4: that is all", 0.0),  # after the last colon
    ("[4, 9]", "Answer: 9", 0.75**5),  # only the first of several golds counts
    ("[4]", "Answer: less common", 0.0),
]
LABELS = [
    (f"['{gold}']", form.format(said), float(gold == said))
    for gold, said, form in product(("spam", "ham", "entity"), ("spam", "ham", "entity", "Spam"), FORMS[:4])
] + [
    ("['human being']", "Label: human being", 1.0),
    ("['human being']", "I think it is a human being", 0.0),  # long, no colon: the last word
    ("['selectors.py']", "selectors.py", 1.0),
    ("['spam']", "It says spam", 0.0),  # short, no colon: all of it
]
COMPARISONS = [
    (f"['{gold}']", form.format(said), float(said in gold))
    for gold, said, form in product(
        ("more common", "less common", "same frequency", "more common than"),
        ("more common", "less common", "same frequency"),
        ("{}", "Answer: {}", "Answer: it is clearly {} than the other label"),
    )
]


def test_oolong_scores_numbers_by_their_distance() -> None:
    for gold, answer, score in NUMBERS + NUMBERS_BY_HAND:
        assert oolong("NUMERIC", [gold], answer) == pytest.approx(score), (gold, answer)


def test_oolong_scores_labels_by_equality_and_comparisons_by_their_words() -> None:
    for gold, answer, score in LABELS:
        assert oolong("LABEL", [gold], answer) == score, (gold, answer)
    for gold, answer, score in COMPARISONS:
        assert oolong("COMPARISON", [gold], answer) == score, (gold, answer)
    assert len(NUMBERS + NUMBERS_BY_HAND) >= 100
    assert len(LABELS + COMPARISONS) >= 80


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Date: 01/06/2023", 1.0),
        ("Date: Jan 06, 2023", 1.0),
        ("Date: 2023-01-06", 1.0),
        ("Date: 01/07/2023", 0.0),
        ("Date: never", 0.0),
        ("", 0.0),
    ],
)
def test_oolong_scores_dates_by_the_day_that_they_name(answer: str, score: float) -> None:
    assert oolong("DATE", ["[datetime.date(2023, 1, 6)]"], answer) == score


# Pairs: so many that are right, wrong and missing.
COUNTS = list(product(range(6), range(5), range(5)))
LAYOUTS = ("({}, {})", "({},{})", "({1}, {0})")


def test_pairs_are_scored_by_f1() -> None:
    cases = 0
    for right, wrong, missing in COUNTS:
        pairs = [(n, n + 100) for n in range(right + wrong + missing)]
        gold = [f"({a}, {b})" for a, b in (*pairs[:right], *pairs[right + wrong :])]
        layout = LAYOUTS[cases % len(LAYOUTS)]
        answer = "\n".join(layout.format(a, b) for a, b in pairs[: right + wrong])
        f1 = 2 * right / (2 * right + wrong + missing) if right + wrong + missing else 1.0
        assert pairs_f1(gold or [""], answer) == pytest.approx(f1), (gold, answer)
        cases += 1
    assert cases >= 100


def test_a_pair_counts_once_and_in_any_order() -> None:
    assert pairs_f1(["(1, 2)"], "(2, 1) and again (1, 2)") == 1
    assert pairs_f1(["(1, 2)"], "1, 2") == 0
    assert pairs_f1([""], "There are none.") == 1
    assert pairs_f1([""], "(1, 2)") == 0
