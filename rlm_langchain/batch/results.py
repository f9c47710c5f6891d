"""The results of a batch: one JSON object per line, written as soon as a row has ended."""

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
"""Statuses of rows that have ended. A batch that is run again does not ask them again."""
ANSWERED: Final = ("complete", "partial")
"""Statuses of rows that have an answer."""


class RowError(TypedDict):
    """The error that stopped a row or kept it from starting."""

    type: str
    """Name of the exception."""
    message: str


class Result(TypedDict):
    """The result of one row."""

    id: str | int
    """Id of the row."""
    status: RowStatus
    """`complete`, `partial` or `failed`, as for every run. `stopped`: started, but not finished; `error` says why.
    `not asked`: not started, so nothing was paid. Rows that are `stopped` or `not asked` are resumed or asked when
    the batch is run again."""
    stop_reason: StopReason | None
    """Why the run ended. If the row did not run for lack of budget: the limit of the batch that was used up."""
    answer: Any
    """The answer: a string, or a value that matches the schema. None if there is no answer."""
    degraded: dict[Shortfall, int]
    """Possible gaps in the answer, counted by kind."""
    usage: dict[Literal["root", "sub"], UsageRecord] | None
    """Usage of the run's own turns (`root`), and of all calls below them (`sub`). None if the run has not ended."""
    cost_usd: float | None
    """Total dollars for the row, over all runs of the batch. None if the price of a call is unknown."""
    thread: str
    """Name of the thread that holds the run, for `rlm show NAME`."""
    seconds: float | None
    """Seconds from the question to the answer, including pauses between processes. None without an answer."""
    error: RowError | None
    """The error that stopped the row."""
    question: str
    """Hash of the question, to detect when it has changed."""
    citations: NotRequired[list[Citation]]
    """Quotes that support the answer, with `citations=True`."""


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
    """Return the result of a row that was stopped or not asked."""
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
    """Return the usage of a row that has ended."""
    return Usage(**result["usage"]["root"]).plus(Usage(**result["usage"]["sub"]))


class ResultFile:
    """The file of results. Results are appended; opening it again drops the rows that had not ended.

    A killed process leaves at most one incomplete last line. It is dropped, and the result is read from the thread.
    """

    _file: BinaryIO

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        if self.path.suffix == ".parquet":
            raise ConfigurationError(
                f"{self.path.name} would be a Parquet file, and results are JSON Lines: give a name that ends in "
                ".jsonl, and convert it with pandas.read_json(..., lines=True).to_parquet(...)"
            )

    def read(self, batch_name: str, entries: Mapping[str, Entry]) -> dict[str, Result]:
        """Return the results of rows that have ended, by thread, without their answers, which may be long.

        `entries` are the rows of the batch, by thread. Raises `InputError` if the file is not one of this batch, or
        if the question of a row was changed. The file is then left as it is.
        """
        found = {}
        for number, line in self._lines():
            row = self._parsed(number, line, batch_name)
            if (entry := entries.get(row["thread"])) and row["question"] != entry.fingerprint:
                raise question_changed_error(entry)
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

    def _parsed(self, number: int, line: bytes, batch_name: str) -> Result:
        try:
            row: Result = json.loads(line)
            is_ours = row["thread"].startswith(f"{batch_name}/") and type(row["question"]) is str
            if is_ours and row["status"] in ENDED:
                is_ours = all(map(_is_possible, (row["usage"] or {}).values())) and usage_of(row).calls >= 0
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            is_ours = False
        if not is_ours:
            raise InputError(
                f"line {number} of {visible(str(self.path))} is not a result of the batch {batch_name!r}: give "
                "another file for the results, or the --name with which this one was made"
            )
        return row

    @contextmanager
    def writing(self, more: Iterable[Result]) -> Iterator[None]:
        """Rewrite the file with the rows that have ended and `more`. Within the block, `add` appends to it."""
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
        """Append a result. Once this returns, the end of the process cannot lose it."""
        line = memoryview(_line(result))
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise self._error(error, "written") from error

    def _error(self, error: OSError, what: str) -> InputError:
        return InputError(
            f"the results {visible(str(self.path))} cannot be {what} ({error.strerror}): give another file, or "
            "free some space. No answer is lost: run the batch again"
        )


def _is_possible(usage: Mapping[str, Any]) -> bool:
    """Return whether a usage can be one: read as it is, a negative or infinite one would fill or end the budget."""
    counts = [usage[name] for name in ("calls", "input", "cached", "output")]
    cost = usage["cost"]
    return all(type(value) is int and 0 <= value <= MAX_WHOLE for value in counts) and (
        cost is None or (type(cost) in (int, float) and 0 <= cost <= MAX_WHOLE)
    )


def question_changed_error(entry: Entry) -> InputError:
    """Return the error for a row whose question was changed."""
    return InputError(
        f"the question of {entry.id!r} (line {entry.number}) differs from the one asked under this id: give it "
        "another id, or give the batch another name and another file for its results"
    )


def _line(result: Result) -> bytes:
    return json.dumps(result, ensure_ascii=True).encode() + b"\n"
