"""The question whether a fan-out may be paid for, put to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, TextIO

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
        print(f"{question(asked)} [y/N] ", end="", file=sys.stderr, flush=True)
        return terminal.readline().strip().lower() in ("y", "yes")


def question(asked: Mapping[str, Any]) -> str:
    """What a person has to decide."""
    calls = "1 sub-call is" if asked["calls"] == 1 else f"{asked['calls']:,} sub-calls are"
    where = f" (by the child run {asked['path']})" if asked["path"] else ""
    spent = "" if asked["spent_usd"] is None else f", {_dollars(asked['spent_usd'])}"
    return (
        f"{calls} about to be made{where}, for {_estimate(asked['estimated_usd'])}; "
        f"so far there were {asked['spent_calls']:,} model calls{spent}. Go on?"
    )


def _estimate(usd: float | None) -> str:
    return "a price that is not known" if usd is None else f"{_dollars(usd)} at most"


def _dollars(usd: float) -> str:
    return f"${usd:,.4f}"


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
