"""The values of a sandbox and of usage: what flows through a run.

Frozen dataclasses live in memory. TypedDicts are what state holds: plain JSON types only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired

# Python < 3.12: pydantic, behind LangChain's JSON schemas, accepts no other TypedDict.
from typing_extensions import TypedDict

from rlm_langchain.validation import NumberRule, check_numbers


def total_usage(usages: Iterable[Usage]) -> Usage:
    """All of them together."""
    sum_of_all = Usage()
    for usage in usages:
        sum_of_all = sum_of_all.plus(usage)
    return sum_of_all


Plain = str | int | float | bool | None | list[Any] | dict[str, Any]
"""What may cross from a sandbox: JSON values, integers within 64 bits, finite floats, string keys."""

Status = Literal["complete", "partial", "failed"]

StopReason = Literal[
    "answer",
    "prose",
    "iterations",
    "calls",
    "tokens",
    "usd",
    "seconds",
    "no_progress",
    "no_answer",
    "degraded",
    "model",
    "cancelled",
]
"""What ended a run: an answer (FINAL, or prose taken as one), a limit of the budget, or an event: its turns only
repeated each other (`no_progress`), FINAL was given nothing (`no_answer`). An answer for which a limit refused
calls has that limit as its reason; one that lacks something else, `degraded`."""

Refusal = StopReason | Literal["declined"]
"""Why a call was not made: the limit that refused it, or for which the run is ending; or a person declined it."""

Flaw = Literal["empty", "cut", "filtered"]
"""What is wrong with a model's reply that came: it has no words, was cut by a limit of its length or in the middle
of a thought, or a provider's filter took part of it."""

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
]
"""What an answer may lack: calls that a limit refused, that a person declined, or that failed after their retries;
replies that were cut, filtered or empty; child runs that ended early or without an answer; quotes left out."""


# --- What a sandbox is given, and what it gives back -------------------------------------------
@dataclass(frozen=True, slots=True)
class ContextFile:
    """A context as bytes on disk: all that a sandbox needs to open it read-only."""

    path: Path
    """`text`: UTF-8. `json`: one JSON list or object."""
    kind: Literal["text", "json"]
    length: int
    """Characters of a text, items of a list or object."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Of these bytes: what a call that names a part of them is known by."""
    stamp: tuple[int, ...] | None = None
    """What the file system says of the file while it holds these bytes. None: it must be hashed to know."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Part of a text that a sandbox was given, by its place: what a child run is about need not leave the REPL."""

    file: ContextFile
    start: int
    """Bytes, as `stop`: the first that belongs to it, and the first that does not."""
    stop: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one cell may use, and the clock and the seed that it sees."""

    seconds: float = 60.0
    """Of the cell's own time: waiting for replies does not count."""
    memory: int = 1 << 30
    """Bytes, of the whole session."""
    output: int = 1 << 20
    """Bytes printed by one cell; a cell that prints more is stopped."""
    value: int = 8 << 20
    """Bytes of one frame: a batch of prompts, or an answer."""
    loaded: int = 256 << 20
    """Bytes of context held as real objects; a longer text is memory-mapped and read lazily."""
    clock: float = 1_700_000_000.0
    """What `time.time()` starts from: fixed, so that a replayed cell does what it did."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for a limit under which no cell could run."""
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
"""What the limits of a cell must be."""


@dataclass(frozen=True, slots=True)
class Call:
    """Something that code in the sandbox asks of the host."""

    kind: str
    """`llm`: one model call. `rlm`: a child run. `budget`: what is left. More with plug-ins."""
    prompt: str
    context: str | list[Any] | dict[str, Any] | Excerpt | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The host's answer to a call: a value, or the code and the sentence of what went wrong."""

    value: Plain = None
    error: str | None = None
    """A sentence of ours, never a foreign error's text: that could hold a key."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """The cell waits for replies, one for each call, in this order."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Completed:
    """The cell ran to its end, or to an error of its own. The session lives on with all its names."""

    stdout: str
    error: str | None = None
    """The traceback, as the program would see it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The cell called FINAL, whose first call ends it, or it ended with an `answer` that is ready."""

    value: Plain
    stdout: str
    error: str | None = None
    """A traceback after the answer, of a `finally` for instance; the answer stands."""


@dataclass(frozen=True, slots=True)
class Died:
    """The worker is gone, and what the REPL held with it: a limit, a crash, a broken protocol."""

    reason: Literal["time", "memory", "output", "threads", "protocol", "crash"]
    stdout: str
    error: str
    """One sentence for the root model."""


Step = Suspended | Completed | Answered | Died

LARGEST = 2**63 - 1
"""The largest whole number that every saver can keep."""


class Usage(NamedTuple):
    """What model calls have used. Usages add up, so parallel branches need no lock."""

    calls: int = 0
    input: int = 0
    """Input tokens, cached ones included."""
    cached: int = 0
    output: int = 0
    cost: float | None = 0.0
    """Dollars; None when the price of any of it is unknown."""
    estimated: bool = False
    """True when a provider reported no figures, or none that can be, and tokens were counted here."""

    def plus(self, other: Usage) -> Usage:
        """Both together. No count is larger than a checkpoint can hold."""
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
        """Input and output together."""
        return self.input + self.output

    def record(self) -> UsageRecord:
        """As state holds it; `Usage(**record)` leads back."""
        return {
            "calls": self.calls,
            "input": self.input,
            "cached": self.cached,
            "output": self.output,
            "cost": self.cost,
            "estimated": self.estimated,
        }


class CallResult(NamedTuple):
    """What became of a call that is no child run: a text, or the sentence of what went wrong."""

    text: str | None
    error: str | None = None
    used: Usage = Usage()
    retries: int = 0
    memo: bool = False
    """Whether it is the reply to the same call, made elsewhere in the tree."""
    from_cache: bool = False
    """Whether LangChain's cache had it."""
    flaw: Flaw | None = None
    """What is wrong with the text."""
    refused: Refusal | None = None
    """Why the call was not made."""


# --- What state holds: plain JSON only -----------------------------------------------------------
class ContextRef(TypedDict):
    """A context by reference. State, checkpoints, traces and callbacks carry this, never the text."""

    sha256: str
    """Of the bytes in the store, or of the file that is referenced in place."""
    kind: Literal["text", "json"]
    length: int
    size: int
    about: str
    """For the model: what it is, in a line or a few ("a dict of 799 files: path -> text, 12.6 MB")."""
    preview: str
    """The first characters, control characters made visible."""
    path: NotRequired[str]
    """Set for a file that is referenced in place: then the store holds no copy."""
    signature: NotRequired[str]
    """Shows that a store of this home made the reference, see `context/signing.py`. Without it, a dict is data."""


class UsageRecord(TypedDict):
    """`Usage` as state holds it."""

    calls: int
    input: int
    cached: int
    output: int
    cost: float | None
    estimated: bool
