"""The history: traces of the latest runs of the command that were not saved on a thread.

It is bounded in number, age and size. Its files can be deleted at any time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path

from rlm_langchain.cli import streams
from rlm_langchain.context.atomic import ABANDONED_AFTER, remove_if_older
from rlm_langchain.context.sanitize import visible
from rlm_langchain.context.store import home
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.records import Record
from rlm_langchain.trajectory.jsonl import Trace, read_trace

SWITCH = "RLM_HISTORY"
"""The environment variable that turns the history off."""
MAX_RUNS, MAX_SECONDS, MAX_BYTES = 100, 30 * 86_400.0, 256 << 20
"""Maximum number, age and total size of the runs. The latest run is always kept."""
NOTICE = (
    f"The last {MAX_RUNS} runs are kept in {{folder}} for {MAX_SECONDS / 86_400:g} days. `rlm show` shows the "
    f"latest, `rlm runs` lists all. {SWITCH}=off turns this off."
)
"""Printed after the first run in the history."""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run in the history."""

    name: str
    """Time of its start, as in `20261130-175108`."""
    path: Path

    def records(self) -> list[Record]:
        """Return its records. Raises `InputError` if its file is damaged or missing."""
        return read_trace(self.path)

    def changed(self) -> float:
        """Return the time of its last record in seconds since the epoch, or 0 if its file is missing."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0


def is_on() -> bool:
    """Return whether runs are kept. Raises `ConfigurationError` if the variable is neither `on` nor `off`."""
    chosen = os.environ.get(SWITCH, "").strip().lower() or "on"
    if chosen not in ("on", "off"):
        raise ConfigurationError(f"{SWITCH} is {visible(chosen)!r}: set it to off, or leave it unset")
    return chosen == "on"


def folder() -> Path:
    """Return the folder of the history."""
    return home() / "history"


def begin() -> tuple[Trace | None, str]:
    """Remove old runs, and return the trace of a new run and a notice to print after it.

    The trace is None if the history is off, or if it cannot be written, which is reported at once. The notice is
    empty except for the first run.
    """
    if not is_on():
        return None, ""
    at = folder()
    try:
        is_new = not at.is_dir()
        at.mkdir(parents=True, exist_ok=True, mode=0o700)
        prune()
        trace = _new_trace(at)
    except (OSError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        streams.say(f"rlm: this run is not kept in the history ({visible(str(reason))}); the run itself continues")
        return None, ""
    return trace, NOTICE.format(folder=visible(str(at))) if is_new else ""


def _new_trace(at: Path) -> Trace:
    """Create the file of a run that starts now. Raises `OSError`."""
    now, number = datetime.now().strftime("%Y%m%d-%H%M%S"), 1
    while True:
        path = at / f"{now}{f'-{number}' if number > 1 else ''}.jsonl"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:  # another run started in this second
            number += 1
        else:
            return Trace(path)


def name_of(path: Path) -> str | None:
    """Return the name of the run in this file, or None if the file is not in the history."""
    return path.stem if path.parent == folder() else None


def runs() -> Iterator[KeptRun]:
    """Yield the runs that have a record, the most recently written first."""
    kept = [KeptRun(path.stem, path) for path in folder().glob("*.jsonl") if _size(path)]
    yield from sorted(kept, key=lambda run: (run.changed(), run.name), reverse=True)


def find(name: str) -> KeptRun | None:
    """Return the run with this name, or None."""
    return next((run for run in runs() if run.name == name), None)


def prune() -> None:
    """Remove runs beyond the limits, and empty files that are older than a day."""
    size, now = 0, time.time()
    for number, run in enumerate(runs()):
        size += _size(run.path)
        if number and (number >= MAX_RUNS or size > MAX_BYTES or now - run.changed() > MAX_SECONDS):
            remove_if_older(run.path, inf)
    for path in folder().glob("*.jsonl"):
        if not _size(path):
            remove_if_older(path, now - ABANDONED_AFTER)


def forget(run: KeptRun) -> None:
    """Delete a run. Raises `InputError` if its file cannot be removed."""
    try:
        run.path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{run.path} cannot be removed ({error.strerror}): check its permissions") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
