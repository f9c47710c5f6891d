"""The values that flow through the machine.

Frozen dataclasses live in memory. TypedDicts are what state, checkpoints and trajectories hold: plain
JSON types only, so that any saver can store them and none needs to import us to read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, cast

# Python < 3.12: pydantic, behind LangChain's JSON schemas, accepts no other TypedDict.
from typing_extensions import TypedDict

from rlm_langchain.demands import Demand, check

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
        check(self, LIMITED)


LIMITED = (
    Demand("seconds"),
    Demand("memory", 1, whole=True),
    Demand("output", 1, whole=True),
    Demand("value", 1, whole=True),
    Demand("loaded", whole=True),
    Demand("clock"),
    Demand("seed", whole=True),
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

    reason: Literal["time", "memory", "output", "protocol", "crash"]
    stdout: str
    error: str
    """One sentence for the root model."""


Step = Suspended | Completed | Answered | Died


# --- What a run may spend, and what it has spent -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Budget:
    """What a whole tree of runs may spend. `None` means no limit of that kind, but for `iterations`."""

    usd: float | None = None
    calls: int | None = 1000
    """Model calls of all kinds, root turns included."""
    tokens: int | None = None
    """Input and output tokens, cached ones included."""
    seconds: float | None = None
    """Of work on the run, over all resumes: not while no process works on it, whatever the time of day does."""
    iterations: int | None = None
    """Root turns of each run. None: 30, or 4 for a small model, one that is given the compact prompts."""
    depth: int = 1
    """How many levels of runs may lie below the root's sub-calls: 1 makes `rlm_query` a leaf call."""
    concurrency: int = 32
    """Model calls in flight at once, for the whole tree; twice as many child runs are at work, on each level."""
    output_tokens: int | None = None
    """A cap on the output of each call."""
    tool_calls: int = 1000
    """Calls of custom tools, of the whole tree, over all resumes."""
    requests_per_minute: int | None = None
    """Model calls that may begin in any minute, retries included, for the whole tree."""
    approve_above: float | int | None = None
    """Ask a person before a fan-out that would take the run past this: a float is dollars, an int is calls."""

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for a limit that no run could keep."""
        check(self, BUDGETED)


BUDGETED = (
    Demand("usd"),
    Demand("calls", 1, whole=True),
    Demand("tokens", 1, whole=True),
    Demand("seconds"),
    Demand("iterations", 1, whole=True),
    Demand("depth", 1, whole=True),
    Demand("concurrency", 1, whole=True),
    Demand("output_tokens", 1, whole=True),
    Demand("tool_calls", whole=True),
    Demand("requests_per_minute", 1, whole=True),
    Demand("approve_above"),
)
"""What the limits of a budget must be."""


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


class LeafReply(NamedTuple):
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


class Sealed(TypedDict):
    """What shows that it was changed on disk."""

    seal: NotRequired[str]
    """A hash of the rest, see `seal.py`. Every record that the machine writes has one."""


class QuestionRecord(Sealed):
    """A question is put to a run."""

    type: Literal["question"]
    path: str
    """The place in the tree: "" for the root run, "3" for the child run of its call 3, "3/0" below it."""
    query: str
    text: str
    """What the root model reads, word for word."""
    time: float
    """Seconds since the epoch, as in every record."""
    context: NotRequired[ContextRef | None]
    """What the question is about, by reference: a reader wants to know how much there was."""
    sandbox: NotRequired[str]
    """In which its cells run. A REPL that is gone is rebuilt in the same."""
    strategies: NotRequired[list[str]]
    """Whose helpers its cells may use."""
    chosen: NotRequired[bool]
    """True: by the shape and the size of the context, `strategies="auto"`."""
    examples: NotRequired[str]
    """The prompt whose examples the conversation begins with, when they suit the context."""
    follows: NotRequired[bool]
    """True: it brings no context of its own, and those of the questions before it are still in the REPL."""
    whole: NotRequired[bool]
    """True: the context is short, and the root model is given all of it after `text`. It stands in no record."""


class TurnRecord(Sealed):
    """The root model wrote something."""

    type: Literal["turn"]
    path: str
    turn: int
    text: str
    cells: list[str]
    """The code in it, in order."""
    flaw: NotRequired[Flaw]
    """What is wrong with the reply."""
    summary: NotRequired[bool]
    """True: not a step, but the history so far in short, which takes its place from here on."""
    usage: UsageRecord
    model: str
    seconds: float
    retries: int
    time: float
    from_cache: NotRequired[bool]
    """True: LangChain's cache had the reply. Nothing was sent, so it cost nothing and counts as no call."""


class CellRecord(Sealed):
    """A cell begins to run."""

    type: Literal["cell"]
    path: str
    turn: int
    cell: int
    """Numbered over the whole run."""
    code: str
    time: float


class WaveRecord(Sealed):
    """A cell asks: calls `first` to `first + count - 1` are on their way. The total of a progress bar."""

    type: Literal["wave"]
    path: str
    cell: int
    first: int
    count: int
    time: float


class CallRecord(Sealed):
    """A call was answered, or failed after its retries."""

    type: Literal["call"]
    path: str
    cell: int
    call: int
    """Numbered over the whole run: `path/call` is the path of a child run."""
    kind: str
    prompt_sha256: str
    """Of everything that decides the answer: kind, prompt, context."""
    prompt_chars: int
    """Prompt and context together."""
    preview: str
    """The first characters of the prompt."""
    value: Plain
    error: str | None
    usage: UsageRecord
    model: str
    seconds: float
    retries: int
    time: float
    child: NotRequired[list[Any]]
    """The records of a child run."""
    memo: NotRequired[bool]
    """True: the same was asked elsewhere in the tree, and this is that reply. It cost nothing."""
    from_cache: NotRequired[bool]
    """As in the record of a turn."""
    refused: NotRequired[Refusal]
    """Why it was not made."""
    flaw: NotRequired[Flaw]
    """What is wrong with the reply. It answers no other call: the same prompt is asked again."""
    read: NotRequired[list[list[int]]]
    """What of the top run's contexts stood in the prompt: number of the context, begin and end in its bytes."""


class OutputRecord(Sealed):
    """A cell has ended."""

    type: Literal["output"]
    path: str
    cell: int
    outcome: Literal["completed", "answered", "died"]
    text: str
    """What the root model is shown of it: printed text and error, cut and made safe."""
    chars: int
    """How long the printed text was before it was cut."""
    error: bool
    value: NotRequired[Plain]
    """The answer, of a cell that gave one."""
    seconds: float
    """Computing, without the waiting."""
    time: float
    blank: NotRequired[bool]
    """True: its answer was None or an empty text, for which it was sent back."""
    unfound: NotRequired[int]
    """Quotes of its answer that are not in the context, for which it was sent back."""


class NoteRecord(Sealed):
    """The machine says something: a nudge or a limit to the root model, or news to who reads the trajectory."""

    type: Literal["note"]
    path: str
    to: Literal["model", "reader"]
    text: str
    time: float
    strategies: NotRequired[list[str]]
    """Whose helpers there are from here on, beside those before."""


class Citation(TypedDict):
    """A quote that stands in the context, word for word."""

    quote: str
    """As the context has it."""
    source: str
    """The key or number of the item that it is in, `context` for a text."""
    start: int
    end: int
    """In characters of the source."""


class Span(TypedDict):
    """A piece of a context."""

    source: str
    """The key or number of the item that it is in, `context` for a text."""
    start: int
    end: int
    """In characters of the source."""


class Coverage(TypedDict):
    """How much of a context stood in what models were asked or shown, and where."""

    share: float
    """Of its text, from 0 to 1. At least so much: short stretches and changed words do not count."""
    where: list[Span]
    """In order; when there are very many, the longest."""
    left_out: int
    """How many pieces are not in `where`."""


class AnswerRecord(Sealed):
    """A run has ended."""

    type: Literal["answer"]
    path: str
    answer: Any
    status: Status
    stop_reason: StopReason
    time: float
    citations: NotRequired[list[Citation]]
    degraded: NotRequired[dict[Shortfall, int]]
    """What the answer may lack, when there is anything."""
    read: NotRequired[list[list[int]]]
    """As in the record of a call: what the root model of this run was shown itself."""
    coverage: NotRequired[Coverage]
    """Of the whole tree, in the top run's record."""


Record = (
    QuestionRecord | TurnRecord | CellRecord | WaveRecord | CallRecord | OutputRecord | NoteRecord | AnswerRecord
)
"""One line of a trajectory. The trajectory is the journal: everything else is derived from it."""


class RLMInput(TypedDict):
    """What a run is asked."""

    query: str
    context: NotRequired[Any]


class RLMOutput(TypedDict):
    """What a run gives back, whatever ended it."""

    answer: Any
    """None when it failed."""
    status: Status
    stop_reason: StopReason
    usage: dict[Literal["root", "sub"], UsageRecord]
    """Root turns of the top run, and everything below them."""
    cost_usd: float | None
    """None when the price of any call is unknown."""
    iterations: int
    sub_calls: int
    """Model calls other than the top run's root turns."""
    trajectory: list[Record]
    degraded: dict[Shortfall, int]
    """How much of what the answer was to be made of is missing, by kind. Empty: nothing is known to be."""
    found: NotRequired[str | None]
    """What the model was shown last, of a run that failed: no answer, but it may help."""
    citations: NotRequired[list[Citation]]
    """With `citations=True`: the quotes of the answer, each found in the context."""
    dropped_citations: NotRequired[int]
    """How many quotes of the answer are not in the context, and were left out."""
    coverage: NotRequired[Coverage]
    """How much of the context models have read; not there without a context, or for one of more than 256 MB."""


def output_of(state: Mapping[str, Any]) -> RLMOutput:
    """The state of a run that has ended, as a caller is given it."""
    return cast(RLMOutput, {key: state.get(key) for key in RLMOutput.__annotations__})
