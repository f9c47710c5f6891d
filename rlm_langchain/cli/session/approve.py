"""The question whether a fan-out may be paid for, put to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, TextIO

from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import ConfigurationError

OFF = "off"
"""What `--approve-above-calls` and `--approve-above-usd` take to go on without asking, also where a run waits."""
WORDS = {"y": True, "yes": True, "n": False, "no": False, "": False}
"""What a person may type."""
TERMINAL = "/dev/tty"
"""Of the session that the command runs in."""


def check() -> None:
    """Raise `ConfigurationError` when there is nobody to ask."""
    with _terminal():
        pass


def granted(asked: Mapping[str, Any]) -> bool:
    """Ask, and wait for as long as it takes, again for what is neither a yes nor a no. Nothing is a no."""
    with _terminal() as terminal:
        print(f"{visible(asked['question'])} [y/N] ", end="", file=sys.stderr, flush=True)
        while (said := terminal.readline().strip().lower()) not in WORDS:
            print("y for yes, n for no: ", end="", file=sys.stderr, flush=True)
        return WORDS[said]


def _terminal() -> TextIO | nullcontext[TextIO]:
    """Where the person types; standard input may be taken by the context."""
    if sys.stdin is not None and sys.stdin.isatty():
        return nullcontext(sys.stdin)
    try:
        return open(TERMINAL, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            "--approve-above-calls and --approve-above-usd ask a person, and there is no terminal here to ask at: "
            "leave them out, or turn off what the thread has (--approve-above-calls off, --approve-above-usd off), "
            "and limit the run with --calls or --usd"
        ) from error
