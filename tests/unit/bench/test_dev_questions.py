"""The development set itself: its answers can be computed, and its scorer can tell right from wrong."""

from __future__ import annotations

import pytest

from tests.dev_questions.questions import QUESTIONS
from tests.dev_questions.scoring import right

KINDS = {kind: [question for question in QUESTIONS if question.set == kind] for kind in ("dev", "held")}


def test_there_are_enough_questions_and_none_is_in_both_sets():
    assert len(KINDS["dev"]) >= 20
    assert len(KINDS["held"]) >= 12
    assert len({question.query for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_every_question_has_an_answer_that_scores_as_right(question):
    truths = question.truths(question.context())
    assert truths
    for truth in truths:
        assert right(list(truth) if isinstance(truth, tuple) else truth, truths, question.query)
    assert not right(None, truths, question.query)
    assert not right("I do not know", truths, question.query)


@pytest.mark.parametrize(
    ("given", "truth", "expected"),
    [
        (7, 7, True),
        ("There are 1,234 lines.", 1234, True),
        ("7 or 8", 7, False),
        ([7], 7, True),
        (True, 1, False),
        ("17", 7, False),
        ("argparse.py", "argparse.py", True),
        ("The file is argparse.py", "argparse.py", True),
        ("xargparse.py", "argparse.py", False),
    ],
)
def test_the_scorer_is_strict_about_values(given, truth, expected):
    assert right(given, [truth], "Which?") is expected
