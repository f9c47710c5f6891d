"""`rlm strategies`: what is installed, and what one of them says and defines."""

from __future__ import annotations

import shutil
import sys
from textwrap import fill

from rlm_langchain.cli.commands.inputs import strategy
from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import InputError
from rlm_langchain.prompts.strategies import each_installed, strategies_of

USE = "rlm strategies, or rlm strategies show NAME"


def run(what: str | None, name: str | None) -> None:
    """List them, or show one. Raises `InputError` for anything else, `ConfigurationError` for a name of none."""
    if what is None:
        _list()
    elif what == "show" and name:
        _show(name)
    else:
        raise InputError(f"{USE}: did you mean `rlm strategies show {what}`?" if not name else f"say {USE}")


def _list() -> None:
    """One line each; what is broken is named beside the list, and stops nothing."""
    found = list(each_installed())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1_000
    for name, one in found:
        if isinstance(one, Exception):
            print(f"rlm: the strategy {name!r} is broken and is left out: {visible(repr(one))}", file=sys.stderr)
        else:
            print(fill(visible(one.description), width, initial_indent=f"{name:20} ", subsequent_indent=" " * 21))
    if not found:
        print("no strategies are installed")


def _show(name: str) -> None:
    for one in strategies_of(strategy(name)):
        print(f"# {one.name}: {visible(one.description)}\n\n{visible(one.guidance.strip())}\n")
        if code := one.prelude.replace("# ruff: noqa\n", "").strip():
            print(f"# defined in the REPL\n\n{visible(code)}\n")
