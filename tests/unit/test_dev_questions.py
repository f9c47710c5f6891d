"""The development set itself: its answers can be computed, and its scorer can tell right from wrong."""

from __future__ import annotations

import pytest

from tests.dev_questions.contexts import CONTEXTS
from tests.dev_questions.questions import DEV, HELD_OUT
from tests.dev_questions.score import is_right


@pytest.mark.parametrize("question", [*DEV, *HELD_OUT], ids=lambda q: q.text[:40])
def test_every_question_has_an_answer_that_scores_as_right(question):
    truth = question.answer(CONTEXTS[question.context]())
    assert truth not in (0, "", None)
    assert is_right(truth, truth, question.text)
    assert is_right(f"The answer is {truth}.", truth, question.text)
    wrong = truth + 1 if isinstance(truth, int | float) else f"x{truth}"
    assert not is_right(wrong, truth, question.text)
    assert not is_right(None, truth, question.text)


@pytest.mark.parametrize(
    ("given", "truth", "right"),
    [
        ("7", 7, True),
        ("There are 1,234 lines.", 1234, True),
        ("7 or 8", 7, False),
        ([7], 7, True),
        (True, 1, False),
        ("17", 7, False),
        ("argparse.py", "argparse.py", True),
        ("'argparse.py'", "argparse.py", True),
        ("The file is argparse.py", "argparse.py", True),
        ("email/argparse.py", "argparse.py", False),
    ],
)
def test_the_scorer_is_strict_about_values(given, truth, right):
    assert is_right(given, truth, "Which?") is right
