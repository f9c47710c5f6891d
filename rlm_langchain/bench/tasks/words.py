"""Lexical counting: how many lines contain a word. Code can count them; a reader has to read the whole text."""

from __future__ import annotations

import random
import re
from collections import Counter

from rlm_langchain.bench.items import Family, Question
from rlm_langchain.bench.tasks.texts import LIBRARY, library_lines

WORD = re.compile(r"\w+")
LEAST, MOST = 3, 60
"""Minimum and maximum number of lines that contain the word."""
SHORTEST = 5
"""Minimum number of letters of the word."""


def count_lines(rng: random.Random, chars: int) -> Question:
    """Ask for the number of lines of the standard library's text that contain a word."""
    lines = library_lines(rng, chars)
    counted = Counter(word for line in lines for word in set(WORD.findall(line)))
    fitting = sorted(
        word
        for word, count in counted.items()
        if LEAST <= count <= MOST and len(word) >= SHORTEST and word.isalpha() and word.isascii()
    )
    word = rng.choice(fitting)
    text = (
        f"How many lines of the text contain the word {word}? Count it as a whole word, in exactly this case; a "
        "line that contains it twice counts once. Give your final answer in the form 'Answer: number'."
    )
    return Question(text, "\n".join(lines), (f"[{counted[word]}]",), "oolong_numeric")


FAMILIES = (Family("count_lines", "how many lines contain a word", LIBRARY, count_lines),)
