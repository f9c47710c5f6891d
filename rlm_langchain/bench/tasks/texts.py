"""Haystacks: RULER's noise, and the source code of Python's standard library.

RULER hides most needles in essays that may not be redistributed. The standard library is on every machine.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Sequence
from functools import cache
from pathlib import Path

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
"""RULER's noise sentence."""
LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"})
LIBRARY = "sources of Python's standard library"
GENERATED = "generated"


@cache
def library() -> dict[str, str]:
    """Return the files of Python's standard library without its tests, by relative path."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path for path in root.rglob("*.py") if not LEFT_OUT & set(path.relative_to(root).parts))
    # POSIX paths, sorted as text, have the same order on every system.
    named = sorted((path.relative_to(root).as_posix(), path) for path in paths)
    return {name: path.read_text(encoding="utf-8", errors="replace") for name, path in named}


def library_lines(rng: random.Random, chars: int) -> list[str]:
    """Return consecutive lines of the standard library from a random file, with about this many characters."""
    names = list(library())
    first, lines, size = rng.randrange(len(names)), list[str](), 0
    while True:
        for name in (*names[first:], *names[:first]):
            for line in library()[name].splitlines():
                size += len(line) + 1
                if size > chars:
                    return lines
                lines.append(line)


def noise_lines(chars: int) -> list[str]:
    """Return lines of RULER's noise with about this many characters."""
    return [NOISE] * (chars // (len(NOISE) + 1))


def hidden(rng: random.Random, lines: Sequence[str], needles: Sequence[str]) -> str:
    """Return the lines as a text, with the needles inserted as lines at random places, in order."""
    places = sorted(rng.randrange(len(lines) + 1) for _ in needles)
    parts, begin = list[str](), 0
    for place, needle in zip(places, needles, strict=True):
        parts += [*lines[begin:place], needle]
        begin = place
    return "\n".join([*parts, *lines[begin:]])
