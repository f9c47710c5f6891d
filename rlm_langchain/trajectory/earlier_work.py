"""What earlier processes have done for a question: what they used, and which of their answers may be reused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rlm_langchain.records import child_path
from rlm_langchain.trajectory.call_kinds import kind_of
from rlm_langchain.trajectory.journal import Journal, turn_path
from rlm_langchain.types import Usage


class Paid(NamedTuple):
    """A turn or a call in a journal, or in that of a child run."""

    call_path: str
    used: Usage
    is_tool: bool = False
    """Whether it is counted as a call of a tool."""


class EarlierWork(NamedTuple):
    """The work that the journal of a run shows."""

    paid: list[Paid]
    """Turns and calls since the question."""
    answers: dict[str, str]
    """Replies to model calls, as `Journal.answers` returns them."""
    runs: dict[str, str]
    """Answers of child runs, as `Journal.runs` returns them."""
    seconds: float
    """Seconds of work since the question."""

    @classmethod
    def of(cls, journal: Journal) -> EarlierWork:
        """Read a journal. Raises `JournalError` if its records are not those that were written."""
        journal.check()
        return cls([*_paid(journal)], journal.answers(), journal.runs(), journal.seconds)


def _paid(journal: Journal) -> Iterator[Paid]:
    for record in journal.account:
        if record["type"] == "call" and "child" in record:
            yield from _paid(Journal(record["child"]))
        elif record["type"] == "call":
            path, is_tool = child_path(record["path"], record["call"]), kind_of(record["kind"]).is_counted
            yield Paid(path, Usage(**record["usage"]), is_tool)
        else:  # the note on a turn without a record follows the last turn
            turn = record["turn"] if record["type"] == "turn" else len(journal.turns)
            yield Paid(turn_path(record["path"], turn), Usage(**record["usage"]))
