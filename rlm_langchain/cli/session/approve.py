"""The question whether a fan-out may be paid for, put to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, TextIO

from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import ConfigurationError

OFF = "off"
"""What `--approve-above` takes to go on without asking, also past what a run waits for."""
TERMINAL = "/dev/tty"
"""Of the session that the command runs in."""


def check() -> None:
    """Raise `ConfigurationError` when there is nobody to ask."""
    with _terminal():
        pass


def granted(asked: Mapping[str, Any]) -> bool:
    """Ask, and wait for as long as it takes. Only a yes is a yes."""
    with _terminal() as terminal:
        print(f"{visible(asked['question'])} [y/N] ", end="", file=sys.stderr, flush=True)
        return terminal.readline().strip().lower() in ("y", "yes")


def _terminal() -> TextIO | nullcontext[TextIO]:
    """Where the person types; standard input may be taken by the context."""
    if sys.stdin is not None and sys.stdin.isatty():
        return nullcontext(sys.stdin)
    try:
        return open(TERMINAL, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            "--approve-above asks a person, and there is no terminal here to ask at: leave it out, or say "
            "--approve-above off on a thread that has it, and limit the run with --calls or --usd"
        ) from error
