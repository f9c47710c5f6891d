"""Reads the questions of a batch: one JSON object a line. All of them are checked before anything is paid."""

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
"""The keys that a row may have."""
ROW_LIMITS: Final = tuple(limit.field for limit in LIMITS if limit.of_row)
"""The fields of `Budget` that a row may set for itself."""
MAX_LINE: Final = 256 << 20
"""Most bytes of a line."""
MOST_PROBLEMS: Final = 10
"""Problems that an error lists."""


class Question(NamedTuple):
    """What a row asks."""

    query: str
    context: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as it is remembered while the batch works: everything but its question."""

    number: int
    """Line in the file, or position in the list, from 1."""
    id: str | int
    """As it was given."""
    thread: str
    """Name of the thread that keeps the run."""
    fingerprint: str
    """Hash of the question, its context and its path."""
    at: int
    """Offset of the line in the file, or index in the list."""
    model: str | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)
    """The row's own limits, by field of `Budget`."""


class Questions:
    """The rows of a batch: a path to a file of JSON lines, or a list of dicts.

    A file is read twice, line by line: once to check it, and again when its rows are asked, so that the contexts
    that it holds need not fit into memory together.
    """

    def __init__(self, given: str | os.PathLike[str] | Iterable[Mapping[str, Any]], campaign: str | None) -> None:
        self.path = Path(given).absolute() if isinstance(given, str | os.PathLike) else None
        self._rows = list(given) if not isinstance(given, str | os.PathLike) else []
        self._folder = self.path.parent if self.path else Path.cwd()
        self._place = "line" if self.path else "row"
        self.campaign = campaign or self._default_campaign()

    def _default_campaign(self) -> str:
        """Return a name that is the same whenever the same file is asked."""
        if self.path is None:
            raise ConfigurationError("name=None: a batch of questions from a list needs a name, to be found again")
        return f"{self.path.stem}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]}"

    def check(self, budget: Budget) -> list[Entry]:
        """Return all rows. Raises `InputError` that lists the first problems, by line."""
        check_name(self.campaign)
        entries: dict[str, Entry] = {}
        problems: list[str] = []
        for number, at, raw in self._raw():
            try:
                entry = self._entry(number, at, _parsed(raw), budget)
                if (first := entries.get(entry.thread)) is not None:
                    raise InputError(f"the id {entry.id!r} is that of {self._place} {first.number}")
                entries[entry.thread] = entry
            except (InputError, ConfigurationError) as error:
                problems.append(f"{self._place} {number}: {error}")
        if problems:
            raise InputError(self._refusal(problems))
        if not entries:
            raise InputError(f"there is no question in {self._where()}: write one JSON object a line")
        return list(entries.values())

    def load(self, entry: Entry) -> Question:
        """Return the question of a row. Raises `InputError` if its file was changed meanwhile."""
        try:
            row = _parsed(self._read_at(entry.at))
            unchanged = _fingerprint(row) == entry.fingerprint
        except InputError:
            unchanged = False
        if not unchanged:
            raise InputError(f"line {entry.number} of {self._where()} was changed while the batch was working")
        if (path := row.get("path")) is not None:
            return Question(row["query"], self._folder / path)
        return Question(row["query"], row.get("context"))

    def _raw(self) -> Iterator[tuple[int, int, bytes | Mapping[str, Any]]]:
        """Yield the number, the place and the content of each row. Blank lines are skipped."""
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
            raise InputError(f"the id is {_shown(given)}: give a text or a whole number, another one to each row")
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"the query is {_shown(query)}: ask a question, as text")
        if context is not None and not isinstance(context, str | list | dict):
            raise InputError(f"the context is {_shown(context)}: give a text, a list or an object")
        if path is not None:
            self._check_path(path, context)
        if (model := row.get("model")) is not None and not isinstance(model, str):
            raise InputError(f"the model is {_shown(model)}: give its name")
        limits = {} if (budgeted := row.get("budget")) is None else budgeted
        _check_limits(limits, budget)
        thread = check_name(f"{self.campaign}/{given}")
        return Entry(number, given, thread, _fingerprint(row), at, model, limits)

    def _check_path(self, path: object, context: object) -> None:
        if context is not None:
            raise InputError("there are both a context and a path: give one of them")
        if not isinstance(path, str) or not path:
            raise InputError(f"the path is {_shown(path)}: give the path of a file or folder")
        if "://" in path:
            raise InputError(f"the path {path} is an address, which is not fetched: save it as a file first")
        with as_input_error(visible(str(self._folder / path))):
            os.stat(self._folder / path)

    def _refusal(self, problems: list[str]) -> str:
        shown = "\n".join(f"  {problem}" for problem in problems[:MOST_PROBLEMS])
        more = len(problems) - MOST_PROBLEMS
        rest = f"\n  and {more:,} more" if more > 0 else ""
        return f"nothing was asked or paid for, because {self._where()} has mistakes:\n{shown}{rest}"

    def _where(self) -> str:
        return visible(str(self.path)) if self.path else "the list of questions"


def _parsed(raw: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row as a dict. Raises `InputError` for a line that is not a JSON object."""
    if not isinstance(raw, bytes):
        if not isinstance(raw, Mapping):
            raise InputError(f"this is {_shown(raw)}, not a dict")
        return raw
    try:
        row = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise InputError(f"this is not UTF-8 ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise InputError("this is JSON that is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InputError(f"this is not JSON ({error.msg} at character {error.pos + 1})") from error
    except ValueError as error:  # of Python's limit for the digits of a number
        raise InputError("this has a number of more digits than Python reads: give it as text") from error
    if not isinstance(row, dict):
        raise InputError(f"this is {_shown(row)}, not a JSON object")
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(name == key for name, _ in pairs) > 1)
        raise InputError(f"there are two keys {twice!r}")
    return found


def _no_number(name: str) -> None:
    raise InputError(f"this is not JSON ({name} is no number of JSON)")


def _check_keys(row: Mapping[str, Any]) -> None:
    """Raise `InputError` for a key that a row does not have."""
    for key in row:
        if key == "url":
            raise InputError("there is a url, which is not fetched: save the text as a file, and give its path")
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, 1)
            meant = f": did you mean {near[0]!r}?" if near else f": a row has {', '.join(KEYS)}"
            raise InputError(f"there is an unknown key {key!r}{meant}")


def _check_limits(limits: object, budget: Budget) -> None:
    """Raise `InputError` or `ConfigurationError` for limits that a row cannot have."""
    if not isinstance(limits, Mapping):
        raise InputError(f'the budget is {_shown(limits)}: give an object, such as {{"calls": 50}}')
    for name in limits:
        if name not in ROW_LIMITS:
            raise InputError(f"the budget has {name!r}: a row may set {', '.join(ROW_LIMITS)}")
    replace(budget, **limits)


def _fingerprint(row: Mapping[str, Any]) -> str:
    """Return the hash of what a row asks. Raises `InputError` for a context that JSON cannot express."""
    try:
        asked = json.dumps([row.get("query"), row.get("context"), row.get("path")], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the context is not JSON ({error}): give texts, numbers, lists and dicts") from error
    return hashlib.sha256(asked.encode()).hexdigest()


def _shown(value: object) -> str:
    """Return a value for a message, shortened."""
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
