"""Asks the person at the terminal whether a batch of calls may be made."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, TextIO

from rlm_langchain.cli import streams
from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import ConfigurationError

OFF = "off"
"""The value of `--approve-above-calls` and `--approve-above-usd` that turns the question off, also for a saved run
that waits for its answer."""
REPLIES = {"y": True, "yes": True, "n": False, "no": False, "": False}
"""What a person may type."""


def check() -> None:
    """Raise `ConfigurationError` if there is no terminal to ask at."""
    with _terminal():
        pass


def ask_person(request: Mapping[str, Any]) -> bool:
    """Ask, and wait for a reply as long as it takes. Anything but yes or no is asked again; Enter is a no."""
    with _terminal() as terminal:
        streams.print_somewhere(f"{visible(request['question'])} [y/N] ", end="")
        while (reply := terminal.readline().strip().lower()) not in REPLIES:
            streams.print_somewhere("y for yes, n for no: ", end="")
        return REPLIES[reply]


def _terminal() -> TextIO | nullcontext[TextIO]:
    """Return where the person types. Standard input may be the context."""
    if sys.stdin is not None and sys.stdin.isatty():
        return nullcontext(sys.stdin)
    try:
        return open(streams.TERMINAL, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            "--approve-above-calls and --approve-above-usd ask a person, and there is no terminal here to ask at: "
            "leave them out, or turn them off for a saved run (--approve-above-calls off, --approve-above-usd off) "
            "and limit the run with --calls or --usd"
        ) from error
