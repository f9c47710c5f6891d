"""Reads the questions of a batch: one JSON object per line. All are checked before the first model call."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

from rlm_langchain.budget.budget import Budget
from rlm_langchain.budget.limits import LIMITS
from rlm_langchain.context.sanitize import visible
from rlm_langchain.context.sources.streams import as_input_error
from rlm_langchain.durability.thread_name import check_name
from rlm_langchain.errors import ConfigurationError, InputError
from rlm_langchain.validation import MAX_WHOLE

KEYS: Final = ("id", "query", "context", "path", "model", "budget")
"""Allowed keys of a row."""
ROW_LIMITS: Final = tuple(limit.field for limit in LIMITS if limit.of_row)
"""Fields of `Budget` that a row can set."""
MAX_LINE: Final = 256 << 20
"""Maximum bytes of a line."""
MAX_PROBLEMS_SHOWN: Final = 10
"""Maximum number of problems that an error lists."""


class Question(NamedTuple):
    """The query and the context of a row."""

    query: str
    context: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as it is held in memory: everything but its query and context."""

    number: int
    """Line in the file, or position in the list, from 1."""
    id: str | int
    """The id as it was given."""
    thread: str
    """Name of the thread that keeps the run."""
    fingerprint: str
    """Hash of the query, the context and the path."""
    at: int
    """Offset of the line in the file, or index in the list."""
    model: str | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)
    """Limits of this row, by field of `Budget`."""


class Questions:
    """The rows of a batch, from a JSON Lines file or a list of dicts.

    A file is read twice, line by line: first to check it, then again as its rows are asked. So the contexts in it
    need not fit into memory together.
    """

    def __init__(self, given: str | os.PathLike[str] | Iterable[Mapping[str, Any]], batch_name: str | None) -> None:
        self.path = Path(given).absolute() if isinstance(given, str | os.PathLike) else None
        self._rows = list(given) if not isinstance(given, str | os.PathLike) else []
        self._folder = self.path.parent if self.path else Path.cwd()
        self._place = "line" if self.path else "row"
        self.batch_name = batch_name or self._default_name()

    def _default_name(self) -> str:
        """Return a name derived from the path of the file."""
        if self.path is None:
            raise ConfigurationError(
                "name=None: a batch of questions from a list needs a name, so that it can be run again"
            )
        return f"{self.path.stem}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]}"

    def check(self, budget: Budget) -> list[Entry]:
        """Return all rows. Raises an `InputError` that lists the first problems, by line."""
        check_name(self.batch_name)
        entries: dict[str, Entry] = {}
        problems: list[str] = []
        for number, at, raw in self._raw():
            try:
                entry = self._entry(number, at, _parsed(raw), budget)
                if (first := entries.get(entry.thread)) is not None:
                    raise InputError(f"the id {entry.id!r} is already used in {self._place} {first.number}")
                entries[entry.thread] = entry
            except (InputError, ConfigurationError) as error:
                problems.append(f"{self._place} {number}: {error}")
        if problems:
            raise InputError(self._refusal(problems))
        if not entries:
            raise InputError(f"there is no question in {self._where()}: write one JSON object per line")
        return list(entries.values())

    def load(self, entry: Entry) -> Question:
        """Return the question of a row. Raises `InputError` if the file has changed since it was checked."""
        try:
            row = _parsed(self._read_at(entry.at))
            unchanged = _fingerprint(row) == entry.fingerprint
        except InputError:
            unchanged = False
        if not unchanged:
            raise InputError(f"line {entry.number} of {self._where()} was changed while the batch was running")
        if (path := row.get("path")) is not None:
            return Question(row["query"], self._folder / path)
        return Question(row["query"], row.get("context"))

    def _raw(self) -> Iterator[tuple[int, int, bytes | Mapping[str, Any]]]:
        """Yield the number, the offset and the content of each row. Blank lines are skipped."""
        if self.path is None:
            yield from ((at + 1, at, row) for at, row in enumerate(self._rows))
            return
        at = 0
        with as_input_error(visible(str(self.path))):
            check_is_file(self.path)
            with open(self.path, "rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                    if len(line) > MAX_LINE:
                        raise InputError(
                            f"line {number} of {self._where()} has more than {MAX_LINE >> 20} MB: save its context "
                            "as a file, and give its path"
                        )
                    if line.strip():
                        yield number, at, line
                    at += len(line)

    def _read_at(self, at: int) -> bytes | Mapping[str, Any]:
        if self.path is None:
            return self._rows[at]
        with as_input_error(visible(str(self.path))), open(self.path, "rb") as file:
            file.seek(at)
            return file.readline()

    def _entry(self, number: int, at: int, row: Mapping[str, Any], budget: Budget) -> Entry:
        _check_keys(row)
        given, query, context, path = row.get("id"), row.get("query"), row.get("context"), row.get("path")
        if isinstance(given, bool) or not isinstance(given, str | int) or _is_too_large(given):
            raise InputError(f"the id is {_shown(given)}: give a string or an integer, different for each row")
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"the query is {_shown(query)}: give a question, as a string")
        if context is not None and not isinstance(context, str | list | dict):
            raise InputError(f"the context is {_shown(context)}: give a string, a list or an object")
        if path is not None:
            self._check_path(path, context)
        if (model := row.get("model")) is not None and not isinstance(model, str):
            raise InputError(f"the model is {_shown(model)}: give its name")
        limits = {} if (budgeted := row.get("budget")) is None else budgeted
        _check_limits(limits, budget)
        thread = check_name(f"{self.batch_name}/{given}")
        return Entry(number, given, thread, _fingerprint(row), at, model, limits)

    def _check_path(self, path: object, context: object) -> None:
        if context is not None:
            raise InputError("the row has both a context and a path: give one of them")
        if not isinstance(path, str) or not path:
            raise InputError(f"the path is {_shown(path)}: give the path of a file or folder")
        if "://" in path:
            raise InputError(f"the path {path} is a URL, which is not fetched: save it as a file first")
        with as_input_error(visible(str(self._folder / path))):
            os.stat(self._folder / path)

    def _refusal(self, problems: list[str]) -> str:
        shown = "\n".join(f"  {problem}" for problem in problems[:MAX_PROBLEMS_SHOWN])
        more = len(problems) - MAX_PROBLEMS_SHOWN
        rest = f"\n  and {more:,} more" if more > 0 else ""
        return f"nothing was asked or paid for, because {self._where()} has errors:\n{shown}{rest}"

    def _where(self) -> str:
        return visible(str(self.path)) if self.path else "the list of questions"


def _parsed(raw: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row as a dict. Raises `InputError` if the line is not a JSON object."""
    if not isinstance(raw, bytes):
        if not isinstance(raw, Mapping):
            raise InputError(f"{_shown(raw)} is not a dict")
        return raw
    try:
        row = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise InputError("the JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg} at character {error.pos + 1})") from error
    except ValueError as error:  # of Python's limit for the digits of a number
        raise InputError("a number has more digits than Python reads: give it as a string") from error
    if not isinstance(row, dict):
        raise InputError(f"{_shown(row)} is not a JSON object")
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(name == key for name, _ in pairs) > 1)
        raise InputError(f"the key {twice!r} occurs twice")
    return found


def _no_number(name: str) -> None:
    raise InputError(f"not JSON ({name} is not a JSON number)")


def _check_keys(row: Mapping[str, Any]) -> None:
    """Raise `InputError` for an unknown key."""
    for key in row:
        if key == "url":
            raise InputError("a url is not fetched: save the text as a file and give its path")
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, 1)
            meant = f": did you mean {near[0]!r}?" if near else f": the keys are {', '.join(KEYS)}"
            raise InputError(f"unknown key {key!r}{meant}")


def _check_limits(limits: object, budget: Budget) -> None:
    """Raise `InputError` or `ConfigurationError` for limits that a row cannot set."""
    if not isinstance(limits, Mapping):
        raise InputError(f'the budget is {_shown(limits)}: give an object, such as {{"calls": 50}}')
    for name in limits:
        if name not in ROW_LIMITS:
            raise InputError(f"the budget has {name!r}: a row can set {', '.join(ROW_LIMITS)}")
    replace(budget, **limits)


def _fingerprint(row: Mapping[str, Any]) -> str:
    """Return the hash of a row's question. Raises `InputError` if the context cannot be written as JSON."""
    try:
        asked = json.dumps([row.get("query"), row.get("context"), row.get("path")], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the context is not JSON ({error}): use strings, numbers, lists and dicts") from error
    return hashlib.sha256(asked.encode()).hexdigest()


def _shown(value: object) -> str:
    """Return a value for an error message, shortened."""
    if value is None:
        return "missing"
    try:
        text = visible(repr(value))
    except Exception:  # noqa: BLE001 - whatever the `__repr__` of another's object raises
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:60]}…"


def _is_too_large(given: str | int) -> bool:
    return isinstance(given, int) and abs(given) > MAX_WHOLE


def check_is_file(path: Path) -> None:
    """Raise `InputError` for a device, a pipe or a folder, of which reading may wait or never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(f"{visible(str(path))} is no file: give a file of JSON lines")
