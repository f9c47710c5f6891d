"""The command `strategies`: lists the installed strategies, or shows one."""

from __future__ import annotations

import shutil
import sys
from textwrap import fill

from rlm_langchain.cli import streams
from rlm_langchain.cli.commands import inputs
from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import InputError
from rlm_langchain.prompts.strategies import each_installed, strategies_of

USE = "the command is `rlm strategies` or `rlm strategies show NAME`"


def run(what: str | None, name: str | None) -> None:
    """List the strategies, or show one. Raises `InputError`, and `UnknownPlugin` for an unknown name."""
    if what is None:
        _list()
    elif what == "show" and name:
        _show(name)
    else:
        hint = "" if what == "show" else f": did you mean `rlm strategies show {visible(name or what)}`?"
        raise InputError(f"{USE}{hint}")


def _list() -> None:
    """Print a line for each. A broken one is reported on standard error, and the others are listed."""
    found = list(each_installed())
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1_000
    for name, strategy in found:
        if isinstance(strategy, Exception):
            streams.say(f"rlm: the strategy {name!r} is broken and is left out: {visible(repr(strategy))}")
        else:
            print(
                fill(visible(strategy.description), width, initial_indent=f"{name:20} ", subsequent_indent=" " * 21)
            )
    if not found:
        print("no strategies are installed")


def _show(name: str) -> None:
    for one in strategies_of(inputs.strategy(name)):
        print(f"# {one.name}: {visible(one.description)}\n\n{visible(one.guidance.strip())}\n")
        if code := one.prelude.replace("# ruff: noqa\n", "").strip():
            print(f"# defined in the REPL\n\n{visible(code)}\n")
