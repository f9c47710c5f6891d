"""The records of a trajectory, and the input and output of a run: plain JSON types only.

State, checkpoints and traces hold these records. Any checkpointer can store them, and reading them back does not
require this package.
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
    """Return the depth of the run at this path: 0 for the root run."""
    return path.count("/") + 1 if path else 0


def child_path(path: str, call: int) -> str:
    """Return the path of the child run that answers a call of the run at `path`."""
    return f"{path}/{call}" if path else str(call)


class Checksummed(TypedDict):
    """A record with a checksum, which shows whether it was changed on disk."""

    seal: NotRequired[str]
    """Checksum of the other fields (`trajectory/checksum.py`). Every record that this library writes has one."""


class QuestionRecord(Checksummed):
    """A run receives a question."""

    type: Literal["question"]
    """Always "question"."""
    path: str
    """Path of the run in the tree: "" for the root run, "3" for its call 3's child run, "3/0" one level below."""
    query: str
    """The question as it was asked. Of a very long one, its beginning and its end, with its length between them."""
    text: str
    """The prompt that the root model reads, word for word; with a shortened `query`, that one stands in it."""
    time: float
    """Seconds since the epoch."""
    query_ref: NotRequired[ContextRef]
    """Reference to the whole question, when `query` is shortened."""
    text_ref: NotRequired[ContextRef]
    """Reference to the whole prompt, word for word, when `query` is shortened."""
    context: NotRequired[ContextRef | None]
    """Reference to the context of the question, with its size and a preview. None or absent without a new one."""
    earlier: NotRequired[ContextRef]
    """Reference to the question before this one on the thread, with its answer and status. The REPL holds them."""
    sandbox: NotRequired[str]
    """Name of the sandbox that runs the cells. A lost REPL is rebuilt in the same sandbox."""
    strategies: NotRequired[list[str]]
    """Names of the strategies whose helper functions the cells may use."""
    chosen: NotRequired[bool]
    """True when `strategies="auto"` chose the strategies by the type and size of the context."""
    examples: NotRequired[str]
    """Name of the prompt with the few-shot examples that the conversation begins with."""
    follows: NotRequired[bool]
    """True when the question came without a context and uses those of earlier questions, still in the REPL."""
    empty: NotRequired[bool]
    """True when a context was given that holds nothing: an empty list, or a retriever that found no document."""
    whole: NotRequired[bool]
    """True when the context is short and the root model reads all of it after `text`. No record holds that text."""


class TurnRecord(Checksummed):
    """The root model replied."""

    type: Literal["turn"]
    """Always "turn"."""
    path: str
    """Path of the run in the tree, as in `question`."""
    turn: int
    """Number of the turn, from 0 over the whole run."""
    text: str
    """The reply of the root model."""
    cells: list[str]
    """The code blocks of the reply, in order."""
    flaw: NotRequired[Flaw]
    """Defect of the reply, if it has one: empty, cut or filtered."""
    summary: NotRequired[bool]
    """True when the reply is a summary of the history so far, which replaces that history in later prompts."""
    usage: UsageRecord
    """Tokens and dollars of this call."""
    model: str
    """Name of the model."""
    seconds: float
    """Seconds from the first request to the reply, waits between retries included."""
    retries: int
    """Number of times that the request was sent again."""
    time: float
    """Seconds since the epoch."""
    lost: NotRequired[int]
    """Number of requests whose reply never came. `usage` includes the most that each may have used."""
    from_cache: NotRequired[bool]
    """True when LangChain's cache had the reply. Nothing was sent, so it costs nothing and counts as no call."""


class CellRecord(Checksummed):
    """A cell starts."""

    type: Literal["cell"]
    """Always "cell"."""
    path: str
    """Path of the run in the tree, as in `question`."""
    turn: int
    """Number of the turn that wrote the cell."""
    cell: int
    """Number of the cell, from 0 over the whole run."""
    code: str
    """The Python code."""
    time: float
    """Seconds since the epoch."""


class WaveRecord(Checksummed):
    """A cell makes a batch of calls, numbered `first` to `first + count - 1`."""

    type: Literal["wave"]
    """Always "wave"."""
    path: str
    """Path of the run in the tree, as in `question`."""
    cell: int
    """Number of the cell."""
    first: int
    """Number of the first call of the batch."""
    count: int
    """Number of calls in the batch."""
    time: float
    """Seconds since the epoch."""
    prompts_ref: NotRequired[ContextRef]
    """Reference to a list of the whole prompts of the batch, of a run on a thread: records of calls hold only the
    beginning of a long prompt."""


class CallRecord(Checksummed):
    """A call was answered, or failed after its retries."""

    type: Literal["call"]
    """Always "call"."""
    path: str
    """Path of the run that made the call, as in `question`."""
    cell: int
    """Number of the cell that made the call."""
    call: int
    """Number of the call, from 0 over the whole run. The path of its child run is `path/call`."""
    kind: str
    """Kind of the call: `llm` (a model), `vision` (a model, with pictures), `rlm` (a child run), `tool`, `search`,
    or a kind that a plug-in adds."""
    prompt_sha256: str
    """SHA-256 of everything that decides the answer: kind, prompt and context."""
    prompt_chars: int
    """Characters of prompt and context together."""
    preview: str
    """The first characters of the prompt."""
    images: NotRequired[list[str]]
    """Names of the pictures that were asked about. Their bytes are in no record."""
    value: Plain
    """The answer; None when the call failed. With `value_ref`, in short."""
    error: str | None
    """The error message; None when the call was answered."""
    usage: UsageRecord
    """Tokens and dollars of the call; those of a child run include all its calls."""
    model: str
    """Name of the model; empty when no model was called."""
    seconds: float
    """Seconds from the first request to the reply, waits between retries included."""
    retries: int
    """Number of times that the request was sent again."""
    time: float
    """Seconds since the epoch."""
    lost: NotRequired[int]
    """Number of requests whose reply never came. `usage` includes the most that each may have used."""
    value_ref: NotRequired[ContextRef]
    """Reference to the whole answer, when it is very long and was not written by a model in one call."""
    child: NotRequired[list[Any]]
    """The records of the child run that answered the call."""
    memo: NotRequired[bool]
    """True when an equal call was made elsewhere in the tree and its reply was reused. It cost nothing."""
    from_cache: NotRequired[bool]
    """True when LangChain's cache had the reply. Nothing was sent, so it costs nothing and counts as no call."""
    refused: NotRequired[Refusal]
    """Why the call was not made."""
    flaw: NotRequired[Flaw]
    """Defect of the reply: empty, cut or filtered. Such a reply is not reused: an equal call is made again."""
    read: NotRequired[list[list[int]]]
    """Parts of the root run's contexts in the prompt: number of the context, first byte and byte after the last."""


class OutputRecord(Checksummed):
    """A cell ended."""

    type: Literal["output"]
    """Always "output"."""
    path: str
    """Path of the run in the tree, as in `question`."""
    cell: int
    """Number of the cell."""
    outcome: Literal["completed", "answered", "died"]
    """End of the cell: it ran to its end or raised an error, it gave an answer, or its worker process ended."""
    text: str
    """The observation that the root model reads: printed text and error, shortened and sanitized."""
    chars: int
    """Characters of the printed text before it was shortened."""
    error: bool
    """Whether the cell raised an error or its worker process ended."""
    value: NotRequired[Plain]
    """The answer that the cell gave. With `value_ref`, in short."""
    value_ref: NotRequired[ContextRef]
    """Reference to the whole answer, when it is very long and that of a child run."""
    seconds: float
    """Seconds of computing, without waiting for replies."""
    time: float
    """Seconds since the epoch."""
    blank: NotRequired[bool]
    """True when the answer was sent back because it was None or an empty text."""
    misfit: NotRequired[str]
    """Why the answer was returned to the model: how it differs from the schema."""
    unfound: NotRequired[int]
    """Number of quotes that are not in the context. The answer was sent back because of them; 0: because it had
    none."""
    covered: NotRequired[float]
    """Share of the context in the prompts of this cell, when they asked about pieces that leave out some of it."""


class NoteRecord(Checksummed):
    """A message of this library: a reminder or a limit for the root model, or news for the trajectory's readers."""

    type: Literal["note"]
    """Always "note"."""
    path: str
    """Path of the run in the tree, as in `question`."""
    to: Literal["model", "reader"]
    """Reader of the note: the root model, or only a reader of the trajectory."""
    text: str
    """The message."""
    time: float
    """Seconds since the epoch."""
    strategies: NotRequired[list[str]]
    """Names of strategies added to the run. Their helper functions can be used from here on."""
    usage: NotRequired[UsageRecord]
    """Tokens and dollars of a turn that has no record, because no usable reply to it came."""
    lost: NotRequired[int]
    """Number of requests of that turn whose reply never came. `usage` includes the most that each may have used."""
    unfound: NotRequired[int]
    """Number of quotes that are not in the context. The answer in words was sent back because of them; 0: because
    it had none."""


class Citation(TypedDict):
    """A quote that was found in the context, word for word."""

    quote: str
    """The text as it stands in the context."""
    source: str
    """Key or number of the item that holds the quote; `context` when the context is a text."""
    start: int
    """Offset of the first character in the source."""
    end: int
    """Offset after the last character in the source."""
    place: NotRequired[dict[str, str | int]]
    """Where it stands in what was given, such as `{"file": "a.pdf", "page": 3}`. Absent in older records."""


class Span(TypedDict):
    """A piece of a context."""

    source: str
    """Key or number of the item that holds the piece; `context` when the context is a text."""
    start: int
    """Offset of the first character in the source."""
    end: int
    """Offset after the last character in the source."""


class Coverage(TypedDict):
    """The share of a context that appeared in prompts or outputs that models read, and its pieces."""

    share: float
    """Share of the context's text, from 0 to 1. A lower bound: short pieces and changed words are not counted."""
    where: list[Span]
    """The pieces that were read, in order; of very many, the longest."""
    left_out: int
    """Number of pieces that are not in `where`."""


class AnswerRecord(Checksummed):
    """A run ended."""

    type: Literal["answer"]
    """Always "answer"."""
    path: str
    """Path of the run in the tree, as in `question`."""
    answer: Any
    """The answer: a text, or a value of the schema. None when the run failed. With `answer_ref`, in short."""
    status: Status
    """`complete`, `partial` (ended early, or something is missing) or `failed` (no answer)."""
    stop_reason: StopReason
    """Why the run ended."""
    answer_ref: NotRequired[ContextRef]
    """Reference to the whole answer, when it is very long and that of a child run."""
    time: float
    """Seconds since the epoch."""
    citations: NotRequired[list[Citation]]
    """The quotes of the answer that were found in the context, with `citations=True`."""
    degraded: NotRequired[dict[Shortfall, int]]
    """Possible gaps in the answer, counted by kind. Absent when nothing is known to be missing."""
    read: NotRequired[list[list[int]]]
    """Parts of the root run's contexts that the root model of this run read itself, as in `call`."""
    coverage: NotRequired[Coverage]
    """Coverage of the context by the whole tree. Only in the record of the root run."""


Record = (
    QuestionRecord | TurnRecord | CellRecord | WaveRecord | CallRecord | OutputRecord | NoteRecord | AnswerRecord
)
"""One entry of a trajectory. The trajectory is the journal: everything else about a run is derived from it."""


class RLMInput(TypedDict):
    """Input of a run."""

    query: str
    """The question."""
    context: NotRequired[Any]
    """The context: text, list, dict, path or object. Without one, a conversation keeps its earlier context."""


class ContextReport(TypedDict):
    """A context as it was read."""

    about: str
    """What it is, as the root model was told."""
    notes: list[str]
    """What was left out, replaced, guessed or repaired. Empty if nothing was."""


class RLMOutput(TypedDict):
    """Result of a run, whatever ended it."""

    answer: Any
    """The answer: a text, or a value of the schema. None when the run failed."""
    status: Status
    """`complete`, `partial` (ended early, or something is missing) or `failed` (no answer)."""
    stop_reason: StopReason
    """Why the run ended."""
    usage: dict[Literal["root", "sub"], UsageRecord]
    """Usage of the root run's own turns (`root`), and of all calls below them (`sub`)."""
    cost_usd: float | None
    """Dollars in total; None when the price of any call is unknown."""
    iterations: int
    """Number of turns of the root run."""
    sub_calls: int
    """Number of model calls other than the root run's own turns."""
    trajectory: list[Record]
    """The records of the run, in order."""
    degraded: dict[Shortfall, int]
    """Possible gaps in the answer, counted by kind. Empty when nothing is known to be missing."""
    found: NotRequired[str | None]
    """The last output that the model read, and the last error after it, when the run failed. It is no answer, but
    it may help."""
    misfit: NotRequired[str | None]
    """In a failed run, the reason why the last answer was refused: its difference from the schema."""
    citations: NotRequired[list[Citation]]
    """The quotes of the answer, each found in the context, with `citations=True`."""
    dropped_citations: NotRequired[int]
    """Number of quotes that were dropped from the answer because they are not in the context."""
    coverage: NotRequired[Coverage]
    """Share of the context that models read. Absent without a context, or for one of more than 256 MB."""
    context: NotRequired[list[ContextReport]]
    """What each context of the run was read as, and what was left out, replaced, guessed or repaired. Not in the
    output of the compiled graph, where a parent may have a key of this name."""


def output_of(state: Mapping[str, Any]) -> RLMOutput:
    """Return the output of a run from its final state."""
    output = {key: state.get(key) for key in RLMOutput.__annotations__}
    return with_contexts(cast(RLMOutput, output))


def with_contexts(output: RLMOutput) -> RLMOutput:
    """Return the output with what its contexts were read as, which its records say."""
    questions = (record for record in output.get("trajectory") or () if record["type"] == "question")
    given = (question.get("context") for question in questions if not question["path"])
    reports = [ContextReport(about=ref["about"], notes=ref.get("notes", [])) for ref in given if ref]
    return {**output, "context": reports}
