"""Formats observations: what the root model reads of a cell's output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlm_langchain.context.sanitize import shown
from rlm_langchain.prompts.render import has, render
from rlm_langchain.trajectory.degradation import described, shortfalls
from rlm_langchain.trajectory.journal import Journal

SHOWN = {"default": 8_000, "compact": 1_500}
"""Characters of a cell's output that a root model sees, by profile."""
SHOWN_SHARE = 0.15
"""Most of the root model's window, as a share of it, that the outputs of one turn take."""
CHARS_PER_TOKEN = 4
_NO_PYTHON = re.compile(r'\A\s*File "<cell|^SyntaxError: .*\nNo code of this cell', re.MULTILINE)
"""Matches the error of a cell that could not be parsed: no traceback in CPython, a last line in monty."""


def format_observation(
    profile: str,
    window: int | None,
    journal: Journal,
    stdout: str,
    error: str | None,
    left_out: Sequence[Mapping[str, str]] = (),
) -> str:
    """Return the observation of the journal's last cell, which has just ended.

    `profile` and `window` (tokens; None: not known) are those of the root model. `left_out`: what the prompt of
    this name says of each context that the calls of the cell read in part.
    """
    turn = journal.turns[-1]
    cells = len(turn["cells"])
    block = sum(cell["turn"] == turn["turn"] for cell in journal.cells)
    printed = f"{stdout.rstrip()}\n{error}".strip() if error else stdout
    most = _room(profile, window, cells) // max(1, cells)
    output = shown(printed, most) if printed.strip() else render(profile, "silent")
    which = f" of block {block}" if cells > 1 else ""
    text = render(profile, "cell", which=which, output=output)
    if error and _NO_PYTHON.search(error) and has(profile, "syntax"):
        text = f"{text}\n{render(profile, 'syntax')}"
    asked = [call for call in journal.calls_since_question if call["cell"] == journal.cells[-1]["cell"]]
    if missing := shortfalls(asked):
        text = f"{text}\n\n{render(profile, 'degraded', missing=described(missing))}"
    if left_out:
        text = f"{text}\n\n{' '.join(render(profile, 'left_out', **values) for values in left_out)}"
    left = cells - block
    return f"{text}\n\n{render(profile, 'not_run', count=left)}" if error and left else text


def _room(profile: str, window: int | None, cells: int) -> int:
    """Return the most characters of output in one turn. A small window would be full after a few turns."""
    usual = SHOWN[profile] * max(1, cells)
    return usual if window is None else min(usual, int(window * SHOWN_SHARE * CHARS_PER_TOKEN))
