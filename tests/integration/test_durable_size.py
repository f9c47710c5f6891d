"""What a run leaves in its saver is small, and a turn adds as much as the one before, however long the run is."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from rlm_langchain import Budget, create_rlm
from rlm_langchain.testing.models import script

THREAD: Any = {"configurable": {"thread_id": "t"}}
CELL = """
part = context[turn * 1000:][:200]
print(part)
answers = llm_query_batched([part + str(i) for i in range(5)])
"""
TEXT = "".join(f"{n:07} once upon a time there was a line;\n" for n in range(1_000_000))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "threads.sqlite", check_same_thread=False)
    yield connection
    connection.close()


def ran(database: sqlite3.Connection, turns: int, context: str) -> list[int]:
    """A run of so many turns; the bytes that were stored when each of them ended."""
    stored: list[int] = []

    def leaf(prompt: str) -> str:
        if prompt.endswith("0"):
            stored.append(size(database))
        return prompt[:100]

    cells = [f"turn = {turn}{CELL}" for turn in range(1, turns)]
    rlm = create_rlm(
        script(*cells, "FINAL(len(context))", leaf=leaf),
        checkpointer=SqliteSaver(database),
        budget=Budget(iterations=turns, calls=None, concurrency=1),
        memo=False,
    )
    output = rlm.invoke({"query": "How long is it?", "context": context}, THREAD)
    assert (output["answer"], output["iterations"]) == (len(context), turns)
    return stored


def size(database: sqlite3.Connection) -> int:
    """Bytes of all that the saver holds."""
    totals = (
        "select sum(length(checkpoint) + length(metadata)) from checkpoints",
        "select sum(length(value)) from writes",
    )
    return sum(database.execute(total).fetchone()[0] or 0 for total in totals)


def test_ten_turns_over_forty_megabytes_leave_less_than_200_kilobytes(database: sqlite3.Connection) -> None:
    assert len(TEXT) > 40_000_000
    ran(database, 10, TEXT)
    [pages], [page] = (database.execute(f"pragma {name}").fetchone() for name in ("page_count", "page_size"))
    print(f"{size(database):,} bytes in rows, {pages * page:,} in the file")
    assert size(database) < 200_000


def test_the_last_of_many_turns_adds_as_much_as_the_first_ones(database: sqlite3.Connection) -> None:
    stored = ran(database, 60, TEXT[:100_000])
    growth = [after - before for before, after in itertools.pairwise(stored)]
    print(growth)
    early, late = growth[4:14], growth[-10:]
    assert sum(late) < 1.05 * sum(early)
