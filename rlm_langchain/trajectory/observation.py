"""Formats observations: what the root model reads of a cell's output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlm_langchain.context.sanitize import shown
from rlm_langchain.prompts.render import has, render
from rlm_langchain.trajectory.degradation import describe_shortfalls, shortfalls
from rlm_langchain.trajectory.journal import Journal

OUTPUT_CHARS = {"default": 8_000, "compact": 1_500}
"""Characters of a cell's output that a root model sees, by profile."""
OUTPUT_SHARE = 0.15
"""Largest share of the root model's window that the outputs of one turn may fill."""
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
    max_chars = _max_chars(profile, window, cells) // max(1, cells)
    output = shown(printed, max_chars) if printed.strip() else render(profile, "silent")
    which = f" of block {block}" if cells > 1 else ""
    text = render(profile, "cell", which=which, output=output)
    if error and _NO_PYTHON.search(error) and has(profile, "syntax"):
        text = f"{text}\n{render(profile, 'syntax')}"
    calls_of_cell = [call for call in journal.calls_since_question if call["cell"] == journal.cells[-1]["cell"]]
    if missing := shortfalls(calls_of_cell):
        text = f"{text}\n\n{render(profile, 'degraded', missing=describe_shortfalls(missing))}"
    if left_out:
        text = f"{text}\n\n{' '.join(render(profile, 'left_out', **values) for values in left_out)}"
    not_run = cells - block
    return f"{text}\n\n{render(profile, 'not_run', count=not_run)}" if error and not_run else text


def _max_chars(profile: str, window: int | None, cells: int) -> int:
    """Return the most characters of output in one turn. A small window would be full after a few turns."""
    usual = OUTPUT_CHARS[profile] * max(1, cells)
    return usual if window is None else min(usual, int(window * OUTPUT_SHARE * CHARS_PER_TOKEN))
