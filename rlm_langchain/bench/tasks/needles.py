"""RULER's needle tasks: single, multi-key, multi-value, multi-query, and variable tracking.

The wording of needles and questions is RULER's. Keys are an adjective and a noun; values are numbers of 7 digits.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from functools import partial

from rlm_langchain.bench.items import Family, Question
from rlm_langchain.bench.tasks.texts import GENERATED, LIBRARY, hidden, library_lines, noise_lines

ADJECTIVES, NOUNS = (
    words.split()
    for words in (
        "amused bright calm daring eager faded gentle hollow idle jolly keen lively mellow noble odd plain "
        "quiet rapid sturdy tender upbeat vivid witty young zesty brisk dusty frosty golden humble",
        "anchor basket candle desert engine feather garden hammer island jacket kettle lantern meadow needle "
        "orchard pillow quarry ribbon saddle temple umbrella valley window yarn zipper bridge cradle fountain "
        "harbor mirror",
    )
)
"""Parts of a key."""
OTHERS = 3
"""Number of distractor keys in `niah_multikey`."""
SEVERAL = 4
"""Number of values per key in `niah_multivalue`, and of queried keys in `niah_multiquery`."""
HOPS = 4
"""Number of assignments after the first one in `variable_tracking`."""


def _keys(rng: random.Random, count: int) -> list[str]:
    pairs = rng.sample(range(len(ADJECTIVES) * len(NOUNS)), count)
    return [f"{ADJECTIVES[pair // len(NOUNS)]}-{NOUNS[pair % len(NOUNS)]}" for pair in pairs]


def _numbers(rng: random.Random, count: int) -> list[str]:
    return [str(number) for number in rng.sample(range(10**6, 10**7), count)]


def _needle(key: str, number: str) -> str:
    return f"One of the special magic numbers for {key} is: {number}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"


def _asked(keys: Sequence[str], context: str, numbers: Sequence[str]) -> Question:
    one = len(numbers) == 1
    told = "A special magic number is" if one else "Some special magic numbers are"
    what = "What is the special magic number" if one else "What are all the special magic numbers"
    text = f"{told} hidden within the text. {what} for {_listed(keys)} mentioned in the provided text?"
    return Question(text, context, tuple(numbers), "ruler_all")


def single(rng: random.Random, chars: int) -> Question:
    """Hide one needle in noise (RULER's `niah_single_1`)."""
    [key], [number] = _keys(rng, 1), _numbers(rng, 1)
    needle = _needle(key, number)
    return _asked([key], hidden(rng, noise_lines(chars - len(needle)), [needle]), [number])


def several(rng: random.Random, chars: int, *, keys: int, asked: int, values: int) -> Question:
    """Hide needles in real text: `values` for each of `keys` keys, of which `asked` are queried."""
    names, numbers = _keys(rng, keys), _numbers(rng, keys * values)
    needles = [_needle(names[n // values], number) for n, number in enumerate(numbers)]
    wanted = numbers[: asked * values]
    rng.shuffle(needles)
    lines = library_lines(rng, chars - sum(len(needle) + 1 for needle in needles))
    return _asked(names[:asked], hidden(rng, lines, needles), wanted)


def variable_tracking(rng: random.Random, chars: int) -> Question:
    """Hide a chain of assignments in noise, and ask for all of its variables (RULER's `vt`)."""
    names = list[str]()
    while len(names) <= HOPS:
        name = "".join(rng.choices(string.ascii_uppercase, k=5))
        names += [name] if name not in names else []
    number = str(rng.randint(10_000, 99_999))
    chain = [f"VAR {names[0]} = {number}"] + [f"VAR {names[n + 1]} = VAR {names[n]}" for n in range(HOPS)]
    lines = noise_lines(chars - sum(len(line) + 1 for line in chain))
    text = (
        "The text holds a chain of variable assignments. Find all variables that are assigned the value "
        f"{number}, directly or through other variables, in the text."
    )
    return Question(text, hidden(rng, lines, chain), tuple(names), "ruler_all")


FAMILIES = (
    Family("niah_single", "one number in noise (RULER)", GENERATED, single),
    Family(
        "niah_multikey",
        "one number, among three for other keys (RULER)",
        LIBRARY,
        partial(several, keys=OTHERS + 1, asked=1, values=1),
    ),
    Family(
        "niah_multivalue",
        "four numbers for a key (RULER)",
        LIBRARY,
        partial(several, keys=1, asked=1, values=SEVERAL),
    ),
    Family(
        "niah_multiquery",
        "the numbers for four keys (RULER)",
        LIBRARY,
        partial(several, keys=SEVERAL, asked=SEVERAL, values=1),
    ),
    Family("variable_tracking", "all variables of a chain of assignments (RULER)", GENERATED, variable_tracking),
)
