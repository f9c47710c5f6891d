"""Traces: trajectories as JSON Lines files, one record a line, child runs included."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated

from pydantic import Field, TypeAdapter, ValidationError

from rlm_langchain.errors import InputError
from rlm_langchain.records import Record
from rlm_langchain.trajectory.tree import flatten, without_child

_PATH = re.compile(r"(\d{1,9}(/\d{1,9}){0,200})?", re.ASCII)
"""The place of a run in its tree: the numbers of the calls that lead to it."""
MAX_FIRST_LINE = 64 << 20
"""Most bytes of the first line that are read to see whether a file is a trace."""


class Trace:
    """A trace file that is written while the run works, so that an interrupted run leaves one too.

    An earlier trace is replaced by the first write; any other file is never replaced. The constructor raises
    `InputError` for a file that cannot be written or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        try:
            path.open("ab").close()
            first_line = _first_line(path) if path.is_file() else b""
        except OSError as error:
            raise InputError(f"cannot write {path} ({error.strerror}): give another file") from error
        try:
            _ = _record(first_line.decode("utf-8", "replace"), path, 1) if first_line else None
        except InputError as error:
            raise InputError(
                f"{path} is not replaced, because it is not a trace: {error}. Give another file"
            ) from error

    def write(self, record: Record) -> None:
        """Write one record of a stream. Raises `InputError` if that fails; the file then ends there."""
        try:
            if self._file is None:
                # A lone surrogate becomes `\\udc80`, which is how JSON writes it too.
                self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
            self._file.write(f"{json.dumps(without_child(record), ensure_ascii=False)}\n")
            self._file.flush()
        except OSError as error:
            self.close()
            raise InputError(f"cannot write {self.path} ({error.strerror}): the trace ends there") from error

    def close(self) -> None:
        """Close the file. The rest of a record that could not be written is abandoned."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(MAX_FIRST_LINE)


def write_trace(path: Path, trajectory: Iterable[Record]) -> None:
    """Write the trajectory of a result to a file. Raises `InputError` for a file that cannot be written."""
    with Trace(path) as trace:
        for record in flatten(trajectory):
            trace.write(record)


def read_trace(path: Path) -> list[Record]:
    """Return the records of a trace. An incomplete last line is left out.

    Raises `InputError` for a file that cannot be read, or that holds anything else.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): check its name") from error
    *lines, _ = text.split("\n")
    if not lines:
        raise InputError(f"{path} is not a trace: `rlm ask --trace FILE` writes one")
    return [_record(line, path, number) for number, line in enumerate(lines, 1)]


def _record(line: str, path: Path, number: int) -> Record:
    try:
        whole = json.dumps(json.loads(line), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        record = _records().validate_json(whole)
        if not _PATH.fullmatch(record["path"]):
            raise ValueError("path: no path of a run")
        return record
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"line {number} of {path} is not a record of a trajectory{_validation_error(error)}"
        ) from error


def _validation_error(error: Exception) -> str:
    """Return the field that is wrong and why, in parentheses; empty if the line is no JSON."""
    if not isinstance(error, ValidationError):
        return ""
    first = error.errors(include_url=False)[0]
    return f" ({': '.join([*map(str, first['loc']), first['msg']])})"


@cache
def _records() -> TypeAdapter[Record]:
    return TypeAdapter(Annotated[Record, Field(discriminator="type")])
