"""The results of a batch: one JSON object a line, written as soon as a row has ended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NotRequired

# Python < 3.12: pydantic, behind LangChain's JSON schemas, accepts no other TypedDict.
from typing_extensions import TypedDict

from rlm_langchain.batch.questions import Entry, check_is_file
from rlm_langchain.context.sanitize import visible
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.records import Citation, RLMOutput
from rlm_langchain.types import Shortfall, Status, StopReason, Usage, UsageRecord
from rlm_langchain.validation import MAX_WHOLE

RowStatus = Status | Literal["stopped", "not asked"]
ENDED: Final = ("complete", "partial", "failed")
"""The statuses of rows that have ended. They are found, and not asked again, when the batch goes on."""
RIGHT: Final = ("complete", "partial")
"""The statuses of rows that have an answer."""


class RowError(TypedDict):
    """Why a row has no result yet."""

    type: str
    """Name of the exception."""
    message: str


class Result(TypedDict):
    """The result of one row."""

    id: str | int
    """The id of the row."""
    status: RowStatus
    """`complete`, `partial` or `failed`, as of any run. `stopped`: begun, and without an answer so far; `error`
    says why. `not asked`: never begun, so nothing was paid. Rows that are stopped or not asked go on when the batch
    is run again."""
    stop_reason: StopReason | None
    """Why the run ended; of a row that is not asked, the limit of the purse that is used up."""
    answer: Any
    """The answer: a text, or a value of the schema. None without one."""
    degraded: dict[Shortfall, int]
    """Possible gaps in the answer, counted by kind."""
    usage: dict[Literal["root", "sub"], UsageRecord] | None
    """Usage of the run's own turns (`root`), and of all calls below them (`sub`). None for a row without an end."""
    cost_usd: float | None
    """Dollars in total, over all times that the row was worked on; None when the price of any call is unknown."""
    thread: str
    """Name of the thread that keeps the run: `rlm show NAME`."""
    seconds: float | None
    """Seconds from the question to the answer, with the time during which nobody worked on it. None without one."""
    error: RowError | None
    """The error that stopped the row."""
    question: str
    """Hash of the question, by which it is noticed that it was changed."""
    citations: NotRequired[list[Citation]]
    """The quotes of the answer, with `citations=True`."""


def ended(entry: Entry, output: RLMOutput) -> Result:
    """Return the result of a run that has ended."""
    records = output["trajectory"]
    asked = [record["time"] for record in records if record["type"] == "question" and not record["path"]]
    answer = next(record for record in reversed(records) if record["type"] == "answer" and not record["path"])
    result = Result(
        id=entry.id,
        status=output["status"],
        stop_reason=output["stop_reason"],
        answer=answer["answer"],  # not that of the output, which may be an object of the schema's class
        degraded=output.get("degraded") or {},
        usage=output["usage"],
        cost_usd=output["cost_usd"],
        thread=entry.thread,
        seconds=round(max(0.0, answer["time"] - asked[-1]), 3),
        error=None,
        question=entry.fingerprint,
    )
    if output.get("citations") is not None:
        result["citations"] = output["citations"]
    return result


def unfinished(
    entry: Entry,
    status: Literal["stopped", "not asked"],
    *,
    reason: StopReason | None = None,
    error: RowError | None = None,
    cost: float | None = 0.0,
) -> Result:
    """Return the result of a row that has not ended, or was not begun."""
    return Result(
        id=entry.id,
        status=status,
        stop_reason=reason,
        answer=None,
        degraded={},
        usage=None,
        cost_usd=cost,
        thread=entry.thread,
        seconds=None,
        error=error,
        question=entry.fingerprint,
    )


def usage_of(result: Mapping[str, Any]) -> Usage:
    """Return what a row that has ended has used."""
    return Usage(**result["usage"]["root"]).plus(Usage(**result["usage"]["sub"]))


class ResultFile:
    """The file of results. Rows are only ever added; those that have not ended are left out when it is opened
    again.

    A process that is killed leaves at most an incomplete last line. It is removed, and the row is found on its
    thread.
    """

    _file: BinaryIO

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        if self.path.suffix == ".parquet":
            raise ConfigurationError(
                f"{self.path.name} would be a Parquet file, and results are JSON Lines: give a name that ends in "
                ".jsonl, and convert it with pandas.read_json(..., lines=True).to_parquet(...)"
            )

    def read(self, campaign: str, entries: Mapping[str, Entry]) -> dict[str, Result]:
        """Return the results of rows that have ended, by thread, without their answers, which may be long.

        `entries` are the rows of the batch by thread. Raises `InputError` for a file that is none of this campaign,
        which is left as it is, and for a row whose question was changed.
        """
        found = {}
        for number, line in self._lines():
            row = self._parsed(number, line, campaign)
            if (entry := entries.get(row["thread"])) and row["question"] != entry.fingerprint:
                raise changed(entry)
            if row["status"] in ENDED:
                found[row["thread"]] = Result(**{**row, "answer": None})
        return found

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the complete lines of the file with their numbers."""
        try:
            if self.path.exists():
                check_is_file(self.path)
                with open(self.path, "rb") as file:
                    yield from ((number, line) for number, line in enumerate(file, 1) if line.endswith(b"\n"))
        except OSError as error:
            raise self._error(error, "read") from error

    def _parsed(self, number: int, line: bytes, campaign: str) -> Result:
        try:
            row: Result = json.loads(line)
            is_ours = row["thread"].startswith(f"{campaign}/") and type(row["question"]) is str
            if is_ours and row["status"] in ENDED:
                is_ours = all(map(_is_possible, (row["usage"] or {}).values())) and usage_of(row).calls >= 0
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            is_ours = False
        if not is_ours:
            raise InputError(
                f"line {number} of {visible(str(self.path))} is not a result of the batch {campaign!r}: give "
                "another file for the results, or the name that this one was made with"
            )
        return row

    @contextmanager
    def writing(self, more: Iterable[Result]) -> Iterator[None]:
        """Replace the file by one with the rows that have ended and `more`, and let `add` append to it within the
        block."""
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            with open(part, "wb") as file:
                file.writelines(line for _, line in self._lines() if json.loads(line)["status"] in ENDED)
                file.writelines(map(_line, more))
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed below
        except OSError as error:
            raise self._error(error, "written") from error
        try:
            yield
        finally:
            os.fsync(self._file.fileno())
            self._file.close()

    def add(self, result: Result) -> None:
        """Append a result. It is in the file, whatever happens to this process, when this returns."""
        line = memoryview(_line(result))
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise self._error(error, "written") from error

    def _error(self, error: OSError, what: str) -> InputError:
        return InputError(
            f"the results {visible(str(self.path))} cannot be {what} ({error.strerror}): give another file, or "
            "make room. No answer is lost: run the batch again"
        )


def _is_possible(usage: Mapping[str, Any]) -> bool:
    """Return whether a usage can be one: read as it is, a negative or infinite one would fill or end the purse."""
    counts = [usage[name] for name in ("calls", "input", "cached", "output")]
    cost = usage["cost"]
    return all(type(value) is int and 0 <= value <= MAX_WHOLE for value in counts) and (
        cost is None or (type(cost) in (int, float) and 0 <= cost <= MAX_WHOLE)
    )


def changed(entry: Entry) -> InputError:
    """Return the error for a row that asks something else than before."""
    return InputError(
        f"the question of {entry.id!r} (line {entry.number}) is not the one that was asked under this id: give it "
        "another id, or give the batch another name and another file for its results"
    )


def _line(result: Result) -> bytes:
    return json.dumps(result, ensure_ascii=True).encode() + b"\n"
