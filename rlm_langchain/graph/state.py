"""The state of the graph, its input, and the payload of `subcall` tasks."""

from __future__ import annotations

from operator import add
from typing import Annotated, Any, NamedTuple

from langgraph.channels import DeltaChannel
from typing_extensions import NotRequired, TypedDict

from rlm_langchain.budget.approval_limit import Reach
from rlm_langchain.errors import JournalError
from rlm_langchain.graph.text_channel import TextChannel
from rlm_langchain.records import (
    Checksummed,
    Citation,
    Coverage,
    Record,
    RLMInput,
)
from rlm_langchain.trajectory.journal import DAMAGED
from rlm_langchain.types import (
    ContextRef,
    Shortfall,
    Status,
    StopReason,
    UsageRecord,
)


class Approval(TypedDict):
    """A question to a person about a batch of calls, and the answer. For the values that answer it, see
    `is_approval` in `graph/nodes/approve.py`."""

    first: int
    """The number of the first call of the batch."""
    calls: int
    """How many calls need an approval."""
    about: list[dict[str, str]]
    """The first of the calls, clipped: the `kind` of each, with its `prompt`, or the `name` and `arguments` of a
    function of the REPL."""
    estimated_usd: float | None
    """The most that the batch may cost: each reply as long as it may be. None if a price is unknown."""
    spent_calls: int
    spent_usd: float | None
    until: Reach
    """The spending that the run may reach without asking again, once this is granted."""
    granted: bool | None
    """The answer, or None if there is none yet."""


def append_records(records: list[Record], writes: list[list[Record]]) -> list[Record]:
    """Append new records to the trajectory: its reducer, so that a checkpoint stores only the new ones.

    Raises `JournalError` for a write that is no list, as LangGraph returns for a row that it may not deserialise.
    """
    if not all(type(write) is list for write in writes):
        raise JournalError(DAMAGED)
    return [*records, *(record for write in writes for record in write)]


SNAPSHOT_FREQUENCY = 1_000
"""Steps after which a checkpoint stores the whole trajectory again. Reading so many increments takes 0.1 s."""


class RLMRun(RLMInput):
    """The input of the graph: a question and its context, and for a child run also its place in the run tree.

    Callers may set `query` and `context` only. Our own code sets the other keys, see `boundary.py`.
    """

    run: NotRequired[str]
    path: NotRequired[str]


class RLMState(TypedDict, total=False):
    """The state of a run: only what changes during the run, in plain JSON types."""

    query: Annotated[str | ContextRef, TextChannel]
    """The question. `prepare` replaces a reference by the text; of a long text, by its beginning and end."""
    context: Annotated[ContextRef | Any, TextChannel]
    """A reference to the context. `prepare` stores any other value, and replaces it by a reference."""
    run: str
    """The name of the run tree. Child runs have the name of their top run."""
    path: str
    """The run's place in the tree, as in the records."""
    trajectory: Annotated[list[Record], DeltaChannel(append_records, snapshot_frequency=SNAPSHOT_FREQUENCY)]
    recorded: Annotated[int, add]
    """How many records the trajectory has, to notice a checkpointer that has lost some."""
    approval: Approval | None
    """The last question to a person, and the answer."""
    answer: Annotated[Any, TextChannel]
    """The answer. Of a child run's long answer, the beginning and the end; its record has a reference to all."""
    status: Status
    stop_reason: StopReason
    usage: dict[str, UsageRecord]
    cost_usd: float | None
    iterations: int
    sub_calls: int
    degraded: dict[Shortfall, int]
    found: Annotated[str | None, TextChannel]
    misfit: Annotated[str | None, TextChannel]
    citations: list[Citation]
    dropped_citations: int
    coverage: Coverage


class SubcallTask(Checksummed):
    """The payload of one `Send("subcall")`: the numbers of its calls. Their prompts are in the suspended REPL."""

    run: str
    path: str
    cell: int
    calls: list[int]
    query: NotRequired[str | ContextRef]
    """The question for a child run, which must be able to resume without the cell that asked. A long one is a
    reference."""
    context: NotRequired[ContextRef | None]
    """The context of a child run, or the context that a `search` is about."""
    sha256: NotRequired[str]
    tool: NotRequired[ContextRef]
    """The call of a tool. A tool may interrupt, as a child run may, and resumes without the cell."""
    agreed: NotRequired[Reach | None]
    """The spending that a person has approved for the run tree."""
    tops: NotRequired[list[ContextRef]]
    """The contexts of the top run."""


class TreeInfo(NamedTuple):
    """Values of the run tree that are handed to a child run: the approved spending, the top run's contexts."""

    agreed: Reach | None
    tops: list[ContextRef]
