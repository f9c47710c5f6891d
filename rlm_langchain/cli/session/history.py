"""The history: the last runs of the command that were not saved under a name, each a trace that can be looked at.

It is bounded in number, age and size. Nothing else needs it, so its files may be deleted at any time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rlm_langchain.cli import streams
from rlm_langchain.context.sanitize import visible
from rlm_langchain.context.store import home
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.records import Record
from rlm_langchain.trajectory.jsonl import Trace, read_trace

SWITCH = "RLM_HISTORY"
"""The environment variable that turns the history off."""
MAX_RUNS, MAX_SECONDS, MAX_BYTES = 100, 30 * 86_400.0, 256 << 20
"""Most runs, age and size of all runs that are kept. The last one is kept whatever its size."""
NOTICE = (
    f"The last {MAX_RUNS} runs are kept in {{folder}}, for {MAX_SECONDS / 86_400:g} days: `rlm show` shows the "
    f"last one, `rlm runs` lists all. {SWITCH}=off keeps none."
)
"""Told after the first run that is kept."""


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run in the history."""

    name: str
    """When it began, as in `20261130-175108`."""
    path: Path

    def records(self) -> list[Record]:
        """Return its records. Raises `InputError` if its file is damaged or gone."""
        return read_trace(self.path)

    def changed(self) -> float:
        """Return when its last record was written, in seconds since the epoch; 0 if it is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0


def is_on() -> bool:
    """Return whether runs are kept. Raises `ConfigurationError` for another value than `on` and `off`."""
    chosen = os.environ.get(SWITCH, "").strip().lower() or "on"
    if chosen not in ("on", "off"):
        raise ConfigurationError(f"{SWITCH} is {visible(chosen)!r}: set it to off, or leave it unset")
    return chosen == "on"


def folder() -> Path:
    """Return the folder of the history."""
    return home() / "history"


def begin() -> tuple[Trace | None, str]:
    """Return the trace of a new run, after removing old ones, and what to tell the person after the first one.

    None if the history is off or cannot be written; the second is told at once.
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
        streams.say(f"rlm: this run is not kept in the history ({visible(str(reason))}); it goes on all the same")
        return None, ""
    return trace, NOTICE.format(folder=visible(str(at))) if is_new else ""


def _new_trace(at: Path) -> Trace:
    """Create the file of a run that begins now. Raises `OSError`."""
    now, number = datetime.now().strftime("%Y%m%d-%H%M%S"), 1
    while True:
        path = at / f"{now}{f'-{number}' if number > 1 else ''}.jsonl"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:  # another run began in this second
            number += 1
        else:
            return Trace(path)


def name_of(path: Path) -> str | None:
    """Return the name of the run in the history whose file this is, or None."""
    return path.stem if path.parent == folder() else None


def runs() -> Iterator[KeptRun]:
    """Yield the runs that have a record, the one that was written last first."""
    kept = [KeptRun(path.stem, path) for path in folder().glob("*.jsonl") if _size(path)]
    yield from sorted(kept, key=lambda run: (run.changed(), run.name), reverse=True)


def find(name: str) -> KeptRun | None:
    """Return the run of this name, or None."""
    return next((run for run in runs() if run.name == name), None)


def prune() -> None:
    """Remove runs beyond the limits, and files of runs that ended before their first record a day ago."""
    size, now = 0, time.time()
    for number, run in enumerate(runs()):
        size += _size(run.path)
        if number and (number >= MAX_RUNS or size > MAX_BYTES or now - run.changed() > MAX_SECONDS):
            _remove(run.path)
    for path in folder().glob("*.jsonl"):
        if not _size(path) and now - KeptRun(path.stem, path).changed() > 86_400:
            _remove(path)


def forget(run: KeptRun) -> None:
    """Remove a run. Raises `InputError` if that fails."""
    try:
        run.path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{run.path} cannot be removed ({error.strerror}): check its permissions") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
