"""The records of a trajectory, and the input and output of a run: plain JSON types only.

State, checkpoints and trajectories hold these, so that any saver can store them and none needs to import us to
read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, cast

# Python < 3.12: pydantic, behind LangChain's JSON schemas, accepts no other TypedDict.
from typing_extensions import TypedDict

from rlm_langchain.types import (
    ContextRef,
    Flaw,
    Plain,
    Refusal,
    Shortfall,
    Status,
    StopReason,
    UsageRecord,
)


def depth_of(path: str) -> int:
    """How many runs are above the one at this path."""
    return path.count("/") + 1 if path else 0


def child_path(path: str, call: int) -> str:
    """Where the child run of a call stands in the tree."""
    return f"{path}/{call}" if path else str(call)


class Checksummed(TypedDict):
    """What shows that it was changed on disk."""

    seal: NotRequired[str]
    """A hash of the rest, see `seal.py`. Every record that the machine writes has one."""


class QuestionRecord(Checksummed):
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


class TurnRecord(Checksummed):
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


class CellRecord(Checksummed):
    """A cell begins to run."""

    type: Literal["cell"]
    path: str
    turn: int
    cell: int
    """Numbered over the whole run."""
    code: str
    time: float


class WaveRecord(Checksummed):
    """A cell asks: calls `first` to `first + count - 1` are on their way. The total of a progress bar."""

    type: Literal["wave"]
    path: str
    cell: int
    first: int
    count: int
    time: float


class CallRecord(Checksummed):
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


class OutputRecord(Checksummed):
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


class NoteRecord(Checksummed):
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


class AnswerRecord(Checksummed):
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
