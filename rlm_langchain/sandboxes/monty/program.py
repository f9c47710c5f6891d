"""The `monty` program: the one that the installed package came with, started with less than we may ourselves."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

LAUNCHER = """#!/bin/sh
cd / && unset PWD OLDPWD && ulimit -c 0 && ulimit -f 0 && ulimit -n 64 && ulimit -t 7200 || exit 1
exec {program} "$@" 2>/dev/null
"""
"""No core file (it would hold the context), no file written, few files open, no name of our folder; an end even
for a worker that looks at no clock and that nobody watches. And nothing on our standard error: a worker that
meets its memory limit says so there, in the middle of what a terminal shows."""


@cache
def binary() -> Path | None:
    """Where it is. PATH and MONTY_BIN are not looked at."""
    try:
        installed = files("pydantic-monty-runtime") or []
    except PackageNotFoundError:
        return None
    for file in installed:
        path = Path(str(file.locate()))
        if file.stem == "monty" and path.parent.name in {"bin", "Scripts"} and path.is_file():
            return path.resolve()
    return None


def launcher() -> Path | None:
    """What starts it: a script where there is a shell, else the program itself."""
    script = _script()
    if script is not None and not script.exists():  # somebody has tidied up the folder for temporary files
        _script.cache_clear()
        script = _script()
    return script


@cache
def _script() -> Path | None:
    program = binary()
    if program is None or not os.access("/bin/sh", os.X_OK):
        return program
    folder = Path(tempfile.mkdtemp(prefix="rlm-monty-"))
    atexit.register(_remove, folder, os.getpid())
    script = folder / "monty"
    # Written by another process: a thread that forks while this one has it open makes it a "text file busy".
    subprocess.run(  # noqa: S603 - a program of our own
        ["/bin/sh", "-c", 'umask 077 && cat > "$0" && chmod 700 "$0"', script],
        input=LAUNCHER.format(program=shlex.quote(str(program))).encode(),
        check=True,
    )
    return script if os.access(script, os.X_OK) else program


def _remove(folder: Path, maker: int) -> None:
    """At the end of the process that made it, and not of one that was forked from it."""
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)
