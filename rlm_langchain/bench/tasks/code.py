"""Questions about Python's standard library, with answers from its syntax trees."""

from __future__ import annotations

import ast
import random
from collections import Counter
from collections.abc import Iterator, Mapping

from rlm_langchain.bench.items import Family, Question
from rlm_langchain.bench.tasks.texts import LIBRARY, library

TITLE = "=== {} ==="
"""The line above each file."""


def code_base(rng: random.Random, chars: int) -> dict[str, str]:
    """Return files of the standard library with about this many characters in total."""
    names, chosen, size = list(library()), dict[str, str](), 0
    rng.shuffle(names)
    for name in names:
        source = library()[name]
        more = len(source) + len(TITLE.format(name)) + 2
        if "class " in source and size + more <= chars:
            chosen[name], size = source, size + more
    return dict(sorted(chosen.items()))


def classes_in(files: Mapping[str, str]) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield every class in these files with the path of its file."""
    for name, source in files.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                yield name, node


def _as_text(files: Mapping[str, str]) -> str:
    return "\n".join(f"{TITLE.format(name)}\n{source}" for name, source in files.items())


def where_defined(rng: random.Random, chars: int) -> Question:
    """Ask in which file a class is defined."""
    fitting = list[tuple[str, str]]()
    while not fitting:  # a short text holds few files, possibly without a class
        files = code_base(rng, chars)
        found = [(node.name, name) for name, node in classes_in(files)]
        times = Counter(name for name, _ in found)
        fitting = sorted(one for one in found if times[one[0]] == 1)
    name, path = rng.choice(fitting)
    text = (
        f"The text holds source files, each below a line with its path. In which file is the class {name} defined? "
        "Give your final answer in the form 'Answer: path'."
    )
    return Question(text, _as_text(files), (repr([path]),), "oolong_label")


def count_subclasses(rng: random.Random, chars: int) -> Question:
    """Ask how many classes have a certain direct base."""
    fitting = list[str]()
    while not fitting:  # as above
        files = code_base(rng, chars)
        bases = Counter(base for _, node in classes_in(files) for base in {ast.unparse(one) for one in node.bases})
        fitting = sorted(base for base, count in bases.items() if count > 1 and base.isidentifier())
    base = rng.choice(fitting)
    text = (
        "The text holds source files, each below a line with its path. How many classes, at any level, name "
        f"{base} itself among their bases, as in `class A({base}):`? Give your final answer in the form "
        "'Answer: number'."
    )
    return Question(text, _as_text(files), (f"[{bases[base]}]",), "oolong_numeric")


FAMILIES = (
    Family("code_where", "in which file a class is defined", LIBRARY, where_defined),
    Family("code_subclasses", "how many classes have a base", LIBRARY, count_subclasses),
)
