"""What a run leaves in its saver is small, and a turn adds as much as the one before, however long the run is."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from rlm_langchain import Budget, RLMRunnable, create_rlm
from rlm_langchain.testing.models import FunctionModel, script

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


def test_ten_turns_with_nine_child_runs_leave_less_than_200_kilobytes(database: sqlite3.Connection) -> None:
    cells = [f"a = rlm_query('Summarise {turn}', context[{turn * 100}:][:1000])" for turn in range(9)]
    children = {"Summarise": ["FINAL(llm_query(context[:50]))"]}
    rlm = create_rlm(
        script(*cells, "FINAL(a)", children=children),
        checkpointer=SqliteSaver(database),
        budget=Budget(iterations=10, depth=2, concurrency=1),
    )
    output = rlm.invoke({"query": "How long is it?", "context": MEGABYTE}, THREAD)
    assert (output["status"], output["iterations"]) == ("complete", 10)
    print(f"{size(database):,} bytes in rows")
    assert size(database) < 200_000


MEGABYTE = TEXT[:1_000_000]
PIECE = "0005000 once"
"""Of the context, where no preview looks."""
ASKS = (
    "rlm_query(f'Summarise this, {turn}: {context}')",
    "rlm_query_batched([{'query': f'Summarise {context[:300_000]}', 'context': context[turn:]}])",
    "rlm_query_batched([f'Summarise {n}, {turn}: {context[n * 400_000:][:500_000]}' for n in range(2)])",
    *["llm_query_batched([f'{n}, {turn}: {context[:300_000]}' for n in range(2)])", "llm_query(f'{turn}', context)"]
    * 2,
    "rlm_query(f'Summarise {turn}', context)",
    "llm_query(f'{turn}: {context}')",
)


def test_long_questions_to_child_runs_are_in_the_saver_by_reference_only(database: sqlite3.Connection) -> None:
    cells = [f"turn = {turn}\nanswers = {ask}" for turn, ask in enumerate(ASKS)]
    asked: list[str] = []
    plays = script(*cells, "FINAL(len(context))", children={"Summarise": ["FINAL('short')"]}, leaf=lambda _: "leaf")

    def play(messages: list[Any]) -> Any:
        asked.append(str(messages[1 if messages[0].type == "system" else 0].content))
        return plays.function(messages)

    rlm = create_rlm(
        FunctionModel(function=play),
        checkpointer=SqliteSaver(database),
        budget=Budget(iterations=10, calls=None, depth=2, concurrency=1),
        memo=False,
    )
    output = rlm.invoke({"query": "How long is it?", "context": MEGABYTE}, THREAD)
    assert (output["answer"], output["iterations"], output["status"]) == (len(MEGABYTE), 10, "complete")
    assert sum("Summarise" in text and PIECE in text for text in asked) == 3, "word for word, to each child run"
    rows = [bytes(row) for (row,) in database.execute("select checkpoint from checkpoints")]
    rows += [bytes(row) for (row,) in database.execute("select value from writes")]
    assert not any(PIECE.encode() in row for row in rows)
    print(f"{size(database):,} bytes in rows")
    assert size(database) < 200_000
    children = [
        record["child"] for record in output["trajectory"] if record["type"] == "call" and "child" in record
    ]
    *questions, short = [records[0] for records in children]
    assert len(questions) == 4
    for question in questions:
        assert f"of {question['query_ref']['length']:,} characters left out" in question["query"]
        assert question["query"] in question["text"]
        assert question["text_ref"]["length"] > question["query_ref"]["length"]
    assert short["query"] == "Summarise 7"
    assert "query_ref" not in short
    assert output["coverage"]["share"] == 1.0


def test_a_long_question_of_the_caller_is_in_no_checkpoint_and_a_follow_up_finds_it_whole(
    database: sqlite3.Connection,
) -> None:
    rlm = create_rlm(script("1", "FINAL(1)", "FINAL(earlier[0]['question'])"), checkpointer=SqliteSaver(database))
    rlm.invoke(MEGABYTE, THREAD)
    assert size(database) < 40_000
    assert rlm.invoke("What did I ask?", THREAD)["answer"] == MEGABYTE


def fetch() -> str:
    """All of it."""
    return MEGABYTE


def test_long_values_that_code_has_made_are_in_the_saver_by_reference_and_are_there_again_in_another_process(
    database: sqlite3.Connection,
) -> None:
    asked: list[str] = []

    def rlm(*cells: str) -> RLMRunnable:
        plays = script(
            *cells, children={"as it is": ["FINAL(context)"], "in a list": ["FINAL([context[:600_000], 1])"]}
        )

        def play(messages: list[Any]) -> Any:
            asked.append(str(messages[1].content))
            return plays.function(messages)

        model = FunctionModel(function=play)
        return create_rlm(model, checkpointer=SqliteSaver(database), budget=Budget(depth=2), tools=[fetch])

    first = "a, b, c = rlm_query('as it is', context), rlm_query('in a list', context), fetch()\nFINAL(len(a))"
    output = rlm(first).invoke({"query": "q", "context": MEGABYTE}, THREAD)
    assert output["answer"] == len(MEGABYTE)
    rows = [bytes(row) for (row,) in database.execute("select checkpoint from checkpoints")]
    rows += [bytes(row) for (row,) in database.execute("select value from writes")]
    assert not any(PIECE.encode() in row for row in rows)
    assert size(database) < 90_000
    calls = [record for record in output["trajectory"] if record["type"] == "call"]
    assert [len(record["value"]) < 300 for record in calls] == [True] * 3
    assert calls[0]["value_ref"]["length"] == len(MEGABYTE)
    assert f"of {len(MEGABYTE):,} characters left out" in calls[0]["value"]
    asked.clear()
    same = "rlm_query('as it is', context) == a == context == c, json.loads(b) == [context[:600_000], 1]"
    later = rlm("0", f"import json\nFINAL([{same}])")
    assert later.invoke("Are they the same?", THREAD)["answer"] == [True, True]
    assert not any("as it is" in text for text in asked), "the same child run is not asked again"


KILLED = """
import os, sqlite3, sys
from tests.integration import test_durable_size as here

here.waiting(sqlite3.connect(sys.argv[1], check_same_thread=False), [], lambda prompt: os._exit(9)).invoke(
    {"query": "q", "context": here.MEGABYTE[:100_000]}, here.THREAD
)
"""


def waiting(database: sqlite3.Connection, asked: list[str], second: Any) -> RLMRunnable:
    """A run whose child run has a long question, and two sub-calls, the second of which is answered by `second`."""
    child = ["a = llm_query('first')", "b = llm_query('second')", "FINAL(a + b)"]
    plays = script(
        "FINAL(rlm_query(f'Summarise this: {context}'))",
        children={"Summarise": child},
        leaf=lambda prompt: second(prompt) if prompt == "second" else "1",
    )

    def play(messages: list[Any]) -> Any:
        asked.append(str(messages[1 if messages[0].type == "system" else 0].content))
        return plays.function(messages)

    return create_rlm(
        FunctionModel(function=play), checkpointer=SqliteSaver(database), budget=Budget(depth=2, concurrency=1)
    )


def test_a_killed_child_run_with_a_long_question_goes_on_in_another_process(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "threads.sqlite"], check=False, timeout=60)
    assert killed.returncode == 9
    asked: list[str] = []
    rlm = waiting(database, asked, lambda prompt: "2")
    output = rlm.invoke(None, THREAD)
    assert (output["answer"], output["coverage"]["share"]) == ("12", 1.0)
    second, turn = asked
    assert second == "second"
    assert f"Summarise this: {MEGABYTE[:100_000]}" in turn
