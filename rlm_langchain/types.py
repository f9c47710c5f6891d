"""Values that flow through a run: sandbox steps, calls and replies, and usage.

Frozen dataclasses live in memory only. TypedDicts are stored in state and hold plain JSON types.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired

# Python < 3.12: pydantic, behind LangChain's JSON schemas, accepts no other TypedDict.
from typing_extensions import TypedDict

from rlm_langchain.validation import NumberRule, check_keywords, check_numbers


def total_usage(usages: Iterable[Usage]) -> Usage:
    """Return the sum of these usages."""
    total = Usage()
    for usage in usages:
        total = total.plus(usage)
    return total


Plain = str | int | float | bool | None | list[Any] | dict[str, Any]
"""Values that may leave a sandbox: JSON values, 64-bit integers, finite floats, string keys."""

Status = Literal["complete", "partial", "failed"]

StopReason = Literal[
    "answer",
    "prose",
    "iterations",
    "calls",
    "tokens",
    "usd",
    "seconds",
    "tool_calls",
    "no_progress",
    "no_answer",
    "degraded",
    "model",
    "cancelled",
]
"""Why a run ended: an answer (FINAL, or prose taken as one), a limit of the budget, or an event: its turns only
repeated each other (`no_progress`), or FINAL was given nothing (`no_answer`). When a limit refused calls that the
answer needed, that limit is the reason; when something else is missing, the reason is `degraded`."""

Refusal = StopReason | Literal["declined"]
"""Why a call was not made: a limit refused it, a limit is ending the run, or a person declined it."""

Flaw = Literal["empty", "cut", "filtered"]
"""Defect of a reply that arrived: it has no text, it was cut by a length limit or in the middle of its reasoning,
or a provider's content filter removed part of it."""

Shortfall = Literal[
    "refused",
    "declined",
    "failed",
    "cut",
    "filtered",
    "empty",
    "child_partial",
    "child_failed",
    "dropped_citations",
    "no_citations",
    "empty_context",
    "found_nothing",
]
"""Possible gaps in an answer: calls that a limit refused, that a person declined, or that failed after their
retries; replies that were cut, filtered or empty; child runs that ended early or without an answer; quotes that
were dropped; an answer without a quote, where quotes were wanted; a context that was given and held nothing;
searches that found nothing."""


# --- Values that enter and leave a sandbox -------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ContextFile:
    """A context as a file on disk. A sandbox needs nothing else to open it read-only."""

    path: Path
    """The file: UTF-8 text when `kind` is `text`, one JSON list or object when it is `json`."""
    kind: Literal["text", "json"]
    length: int
    """Characters of a text, items of a list or object."""
    size: int
    """Bytes."""
    sha256: str = ""
    """SHA-256 of the bytes. Calls that name a part of the file are identified by it."""
    stamp: tuple[int, ...] | None = None
    """`stat` values of the file while it holds these bytes. None: only hashing can show whether it still does."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A byte range of a context file. It lets a child run work on a part of the text without copying the text."""

    file: ContextFile
    start: int
    """Offset of the first byte."""
    stop: int
    """Offset after the last byte."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources that one cell may use, and the clock and random seed that it sees."""

    seconds: float = 60.0
    """Seconds that a cell may compute. Waiting for replies does not count."""
    memory: int = 1 << 30
    """Bytes of memory of the whole session."""
    output: int = 1 << 20
    """Bytes printed by one cell; a cell that prints more is stopped."""
    value: int = 8 << 20
    """Bytes of one message to the host: a batch of prompts, or an answer."""
    loaded: int = 256 << 20
    """Bytes of context that are loaded as real objects; a longer text is memory-mapped and read lazily."""
    clock: float = 1_700_000_000.0
    """Seconds since the epoch at which `time.time()` starts. Fixed, so that a replayed cell repeats itself."""
    seed: int = 0
    """Seed of `random` in the sandbox."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a limit under which no cell could run."""
        check_numbers(self, LIMITED)


LIMITED = (
    NumberRule("seconds"),
    NumberRule("memory", 1, whole=True),
    NumberRule("output", 1, whole=True),
    NumberRule("value", 1, whole=True),
    NumberRule("loaded", whole=True),
    NumberRule("clock"),
    NumberRule("seed", whole=True),
)
"""Rules that the fields of `Limits` are validated with."""
check_keywords(Limits)


@dataclass(frozen=True, slots=True)
class Call:
    """A request from code in the sandbox to the host."""

    kind: str
    """`llm`: one model call. `vision`: one with pictures. `rlm`: a child run. `budget`: the rest of the budget.
    Plug-ins may add kinds."""
    prompt: str
    context: str | list[Any] | dict[str, Any] | Excerpt | None = None
    """The context of a question. Of `vision`: `{"images": [handles], "context": ...}`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The host's answer to a call: a value, or an error message."""

    value: Plain = None
    error: str | None = None
    """A message written by this library. Quotes of a provider's error contain no keys."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """The cell waits for one reply to each of these calls, in this order."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Completed:
    """The cell ran to its end, or raised an error. The session keeps all its names."""

    stdout: str
    error: str | None = None
    """The traceback, as the program would see it; None when the cell raised nothing."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The cell gave an answer: it called FINAL, which ends it, or it ended with an `answer` marked as ready."""

    value: Plain
    stdout: str
    error: str | None = None
    """A traceback raised after the answer, for instance in a `finally` block. The answer stays valid."""


@dataclass(frozen=True, slots=True)
class Died:
    """The worker process ended and the REPL's names are lost: a limit, a crash, or a broken protocol."""

    reason: Literal["time", "memory", "output", "threads", "protocol", "crash"]
    stdout: str
    error: str
    """One sentence that the root model reads."""


Step = Suspended | Completed | Answered | Died

LARGEST = 2**63 - 1
"""The largest integer that every checkpointer can store."""


class Usage(NamedTuple):
    """Calls, tokens and dollars used by model calls. Usages can be added, so parallel branches need no lock."""

    calls: int = 0
    """Number of model calls."""
    input: int = 0
    """Input tokens, cached ones included."""
    cached: int = 0
    """Input tokens read from the provider's prompt cache."""
    output: int = 0
    """Output tokens, reasoning included."""
    cost: float | None = 0.0
    """Dollars; None when the price of any part is unknown."""
    estimated: bool = False
    """True when counts or the cost are estimates: the provider sent none, impossible ones, or no reply at all."""

    def plus(self, other: Usage) -> Usage:
        """Return the sum. Token counts are capped at the largest integer that a checkpoint can hold."""
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Usage(
            self.calls + other.calls,
            min(self.input + other.input, LARGEST),
            min(self.cached + other.cached, LARGEST),
            min(self.output + other.output, LARGEST),
            cost,
            self.estimated or other.estimated,
        )

    @property
    def tokens(self) -> int:
        """Return input and output tokens together."""
        return self.input + self.output

    def record(self) -> UsageRecord:
        """Return this usage as a dict for the state. `Usage(**record)` turns it back."""
        return {
            "calls": self.calls,
            "input": self.input,
            "cached": self.cached,
            "output": self.output,
            "cost": self.cost,
            "estimated": self.estimated,
        }


class CallResult(NamedTuple):
    """Result of a model, tool or search call: a text, or an error message."""

    text: str | None
    error: str | None = None
    used: Usage = Usage()
    retries: int = 0
    memo: bool = False
    """Whether this is the reply to an equal call made elsewhere in the tree."""
    from_cache: bool = False
    """Whether the reply came from LangChain's cache."""
    flaw: Flaw | None = None
    """Defect of the text."""
    refused: Refusal | None = None
    """Why the call was not made."""
    lost: int = 0
    """Number of requests whose reply never came."""


# --- What state holds: plain JSON only -----------------------------------------------------------
ContextType = Literal["str", "list", "dict", "table"]


class ContextRef(TypedDict):
    """A reference to a context. State, checkpoints, traces and callbacks carry the reference, never the text."""

    sha256: str
    """SHA-256 of the bytes in the context store, or of the file that is referenced in place."""
    kind: Literal["text", "json"]
    type: ContextType
    """Type in the REPL; "table" is a str whose first lines are rows with the same number of cells."""
    length: int
    """Characters of a text, items of a list or dict."""
    size: int
    """Bytes."""
    about: str
    """A description for the model, in one line or a few ("a dict of 799 files: path -> text, 12.6 MB")."""
    preview: str
    """The first characters, with control characters made visible."""
    path: NotRequired[str]
    """Path of a file that is referenced in place. The store then holds no copy."""
    notes: NotRequired[list[str]]
    """What was left out, replaced, guessed or repaired. Absent if nothing was."""
    names: NotRequired[list[str]]
    """Keys of a dict of named contexts, which are variables of the REPL, too."""
    images: NotRequired[int]
    """Number of pictures in it, of each of which the REPL has a handle. Absent if there are none."""
    files: NotRequired[dict[str, str]]
    """Names of the files that it was made of, by key; under "" that of a context that is one file (`./`: a folder).
    Absent for a value that was no file."""
    signature: NotRequired[str]
    """Proof that a context store of this home made the reference (`context/signing.py`). Without a valid one, a
    dict that looks like a reference is treated as data."""


class UsageRecord(TypedDict):
    """`Usage` as a dict: calls, tokens and dollars used by model calls."""

    calls: int
    """Number of model calls."""
    input: int
    """Input tokens, cached ones included."""
    cached: int
    """Input tokens read from the provider's prompt cache."""
    output: int
    """Output tokens, reasoning included."""
    cost: float | None
    """Dollars; None when the price of any part is unknown."""
    estimated: bool
    """True when counts or the cost are estimates: the provider sent none, impossible ones, or no reply at all."""
