"""The state of the graph, its input, and the payload of its tasks."""

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
    """A question to a person, and the answer. `graph/nodes/approve.py` says what a run may be resumed with."""

    first: int
    """The number of the first call of the fan-out."""
    calls: int
    about: list[dict[str, str]]
    """The first of the calls: `kind`, and `prompt`, or `name` and `arguments` of a function of the REPL. Cut."""
    estimated_usd: float | None
    """For this fan-out, if each reply is as long as may be; None when the price is unknown."""
    spent_calls: int
    spent_usd: float | None
    until: Reach
    """What the run may reach without asking again, once this is granted."""
    granted: bool | None
    """None: not answered yet."""


def append(records: list[Record], writes: list[list[Record]]) -> list[Record]:
    """The reducer of the trajectory: records are only ever added, and a checkpoint stores only the new ones.

    Raises `JournalError` for a write that is none: what LangGraph makes of a row whose class it does not allow.
    """
    if not all(type(write) is list for write in writes):
        raise JournalError(DAMAGED)
    return [*records, *(record for write in writes for record in write)]


SNAPSHOT = 1_000
"""Steps after which a checkpoint holds the whole trajectory again. Until then reading it is to walk back: 0.1 s."""


class RLMRun(RLMInput):
    """What the graph is given: a question and its context, and for a child run its place in the tree.

    All but the first two come from our own code only, see `boundary.py`.
    """

    run: NotRequired[str]
    path: NotRequired[str]
    agreed: NotRequired[Reach | None]
    tops: NotRequired[list[ContextRef]]


class RLMState(TypedDict, total=False):
    """What changes during a run, and nothing else. Plain JSON types."""

    query: Annotated[str | ContextRef, TextChannel]
    """The question. A reference is for `prepare`, which leaves the text, or of a long one its beginning and end."""
    context: Annotated[ContextRef | Any, TextChannel]
    """A reference. Only `prepare` may find something else here, and stores it."""
    run: str
    """Names the tree of runs in this process; children carry their root's."""
    path: str
    """The place in the tree, as in the records."""
    trajectory: Annotated[list[Record], DeltaChannel(append, snapshot_frequency=SNAPSHOT)]
    recorded: Annotated[int, add]
    """How many records the trajectory has: by this a saver is found out that has lost some of them."""
    approval: Approval | None
    """What a person was asked last, and said."""
    agreed: Reach | None
    """How far a person lets the tree go without being asked: what a child run is told when it begins."""
    tops: list[ContextRef] | None
    """The contexts of the top run, in a child run."""
    answer: Annotated[Any, TextChannel]
    """The answer. Of a long one of a child run, the beginning and the end: its record has a reference."""
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
    """What one `subcall` task is sent: the numbers of its calls. Their text is where the cell waits."""

    run: str
    path: str
    cell: int
    calls: list[int]
    query: NotRequired[str | ContextRef]
    """For a child run, which must be able to resume without the cell that asked. A long one by reference."""
    context: NotRequired[ContextRef | None]
    """That of a child run, or what its parent searches."""
    sha256: NotRequired[str]
    tool: NotRequired[ContextRef]
    """The call of a tool, which may pause as a child run may: it goes on without the cell too."""
    agreed: NotRequired[Reach | None]
    """How far a person lets the tree go without being asked."""
    tops: NotRequired[list[ContextRef]]
    """The contexts of the top run."""


class TreeInfo(NamedTuple):
    """What a child run has to know of the tree that it is in."""

    agreed: Reach | None
    tops: list[ContextRef]
