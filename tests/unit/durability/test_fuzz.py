"""What is kept of a run, changed at random: refused with our error, or read as what it was; never anything else.

Frames of workers have their own fuzz, in `test_frames.py`. `RLM_FUZZ` is how many of each kind are tried;
`RLM_SEED` repeats what a failed test has drawn.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import (
    Budget,
    JournalError,
    ModelError,
    RLMError,
    RLMRunnable,
    create_rlm,
)
from rlm_langchain.durability.receipts import Receipts
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.trajectory.journal import Journal, check_state
from rlm_langchain.trajectory.messages import conversation, transcript

FUZZ = int(os.environ.get("RLM_FUZZ", "4000"))

CELLS = (
    "x = llm_query_batched(['a', 'b'])\nprint(x, budget())",
    "1 / 0",
    "y = rlm_query('CHILD', 'piece')\nprint(y)",
    "FINAL([x, y])",
)
CONFIG: Any = {"configurable": {"thread_id": "t"}}


def ran(saver: InMemorySaver, home: Path, turns: int) -> RLMRunnable:
    """An RLM whose run on thread `t` has ended, or stopped because the provider was gone after so many turns."""
    plays = script(*CELLS, children={"CHILD": ("print(context)", "FINAL(llm_query('c'))")})
    heard: list[int] = []

    def reply(messages: Any) -> Any:
        heard.append(1)
        if len(heard) > turns:
            raise ValueError("gone")
        return plays.function(messages)

    model = FunctionModel(function=reply)
    rlm = create_rlm(model, sandbox="monty", budget=Budget(depth=2), checkpointer=saver, home=home)
    with contextlib.suppress(ModelError):
        rlm.invoke({"query": "How many?", "context": "some text"}, CONFIG)
    return rlm


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[RLMRunnable, InMemorySaver]]:
    savers = [InMemorySaver() for _ in range(3)]
    return [
        (ran(saver, tmp_path_factory.mktemp("home"), turns), saver)
        for saver, turns in zip(savers, (1, 5, 100), strict=True)
    ]


@pytest.fixture(scope="module")
def journals(runs: Any) -> list[list[Any]]:
    """The records of each run."""
    return [rlm.graph.get_state(CONFIG).values["trajectory"] for rlm, _ in runs]


@pytest.fixture
def chance() -> random.Random:
    seed = os.environ.get("RLM_SEED") or str(random.randrange(10**6))
    print(f"RLM_SEED={seed}")
    return random.Random(seed)


def test_what_is_fuzzed_is_rich(journals: list[list[Any]]) -> None:
    kinds = {record["type"] for record in journals[-1]}
    assert kinds == {"question", "turn", "cell", "wave", "call", "output", "answer"}
    assert any("child" in record for record in journals[-1])
    assert 0 < len(journals[0]) < len(journals[1]) < len(journals[2])


# --- Journals ------------------------------------------------------------------------------------

JUNK: tuple[Any, ...] = (
    None,
    0,
    -1,
    2**63,
    1.5,
    float("nan"),
    True,
    "",
    "x",
    "\ud800",
    b"\xff",
    [],
    [None],
    {},
    {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}},
    {1: 2, "a": 3},
    (),
    {1},
    object(),
)


def mutated(records: list[Any], chance: random.Random) -> list[Any]:
    """The journal after an accident."""
    records = [*records]
    at = chance.randrange(len(records))
    records[at] = copy.deepcopy(records[at])
    match chance.randrange(10):
        case 0:
            del records[at]
        case 1:
            records.insert(at, chance.choice([*JUNK, records[chance.randrange(len(records))]]))
        case 2:
            records[at] = chance.choice(JUNK)
        case 3:
            other = chance.randrange(len(records))
            records[at], records[other] = records[other], records[at]
        case _:
            inside(records[at], chance)
    return records


def inside(value: Any, chance: random.Random) -> None:
    """Change one thing somewhere in a value."""
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    key = chance.choice(keys)
    deeper = value[key]
    if isinstance(deeper, dict | list) and deeper and chance.random() < 0.7:
        inside(deeper, chance)
    elif chance.random() < 0.2:
        del value[key]
    elif isinstance(value, dict) and chance.random() < 0.1:
        value[chance.choice(["x", 1, "", "child", "summary"])] = chance.choice(JUNK)
    else:
        value[key] = chance.choice(JUNK)


def test_mutated_journals_are_refused_or_hold_only_what_was_written(
    journals: list[list[Any]], chance: random.Random
) -> None:
    for _ in range(FUZZ):
        whole = chance.choice(journals)
        records = mutated(whole, chance)
        try:
            check_state({"trajectory": records})
            journal = RunTree(Budget()).journal("", records)
        except JournalError:
            continue
        written = {json.dumps(record) for record in whole}
        changed = [record for record in map(json.dumps, records) if record not in written]
        assert not changed, "a record was changed, and nobody noticed"
        used(journal, records)


def used(journal: Journal, records: list[Any]) -> None:
    """All that is read out of a journal that was not refused: records were dropped, repeated or moved."""
    conversation(records, "default")
    transcript(records)
    _ = (
        journal.next_code(),
        journal.next_name,
        journal.answers(),
        journal.runs(),
        journal.unfinished_cell,
        journal.last_outputs,
    )
    _ = (
        journal.iterations,
        journal.usage,
        journal.history(),
        journal.confirms_answer("x"),
        journal.steps_since_summary,
    )


# --- Checkpoints ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(runs: Any) -> list[tuple[RLMRunnable, InMemorySaver, Any, list[Any]]]:
    """Each run, the state that it has, and the places where its saver keeps bytes."""
    return [(rlm, saver, state_of(rlm), places(saver)) for rlm, saver in runs]


def state_of(rlm: RLMRunnable) -> Any:
    """What a run would be resumed from, as `RLMRunnable` reads it."""
    snapshot = rlm.graph.get_state(CONFIG)
    if not snapshot.values.get("trajectory"):
        return None  # refused: there is nothing to resume
    check_state(snapshot.values)
    return snapshot.values, snapshot.next, [task.name for task in snapshot.tasks]


def places(saver: InMemorySaver) -> list[Any]:
    """Dicts and keys under which the saver keeps `(type, bytes)`, or tuples that hold some."""
    steps = [(step, key) for names in saver.storage.values() for step in names.values() for key in step]
    blobs = [(saver.blobs, key) for key, (_, data) in saver.blobs.items() if data]
    writes = [(waiting, key) for waiting in saver.writes.values() for key in waiting]
    last = max(key for _, key in steps)
    return [*steps, *[place for place in steps if place[1] == last] * 20, *blobs, *writes]


def harmed(stored: Any, chance: random.Random) -> Any:
    """What is stored, with some bytes of it changed."""
    spots = [i for i, part in enumerate(stored) if isinstance(part, tuple) and part[1]]
    if spots:
        spot = chance.choice(spots)
        return (*stored[:spot], harmed(stored[spot], chance), *stored[spot + 1 :])
    if len(stored) != 2 or not stored[1]:
        return stored
    kind, data = stored
    at, length = chance.randrange(len(data)), chance.choice([0, 1, 1, 1, 2, 8])
    junk = chance.choice([b"", chance.randbytes(1), chance.randbytes(length), data[at : at + 9], b"\xc9", b"\xdf"])
    return kind, data[:at] + junk + (b"" if chance.random() < 0.1 else data[at + length :])


def test_mutated_checkpoints_are_refused_or_are_what_was_written(kept: Any, chance: random.Random) -> None:
    for _ in range(FUZZ):
        rlm, _, whole, spots = chance.choice(kept)
        holder, key = chance.choice(spots)
        stored = holder[key]
        holder[key] = harmed(stored, chance)
        try:
            same = state_of(rlm) in (whole, None)
            assert same, f"read as another state: {stored} -> {holder[key]}"
        except RLMError:
            pass
        finally:
            holder[key] = stored


# --- Receipts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, dict[str, Any]]:
    path = tmp_path_factory.mktemp("receipts") / "run.jsonl"
    written = Receipts(path)
    for n in range(4):
        written.reserve_space()
        written.write(f"key {n}", {"text": f"a reply, {n}", "place": "", "usage": {"calls": 1, "input": n}})
    written.close()
    data = path.read_bytes()
    return path, data, {receipt["key"]: receipt for receipt in map(json.loads, data.splitlines())}


def test_mutated_receipts_are_refused_or_are_what_was_written(receipts: Any, chance: random.Random) -> None:
    path, data, whole = receipts
    for _ in range(FUZZ):
        path.write_bytes(harmed(("", data), chance)[1])
        read = Receipts(path)
        try:
            found = {key: read.find(key) for key in whole}
            read.requests()
        except JournalError:
            continue
        assert all(found[key] in (None, whole[key]) for key in whole)


def test_a_receipt_under_the_key_of_another_is_refused(receipts: Any) -> None:
    path, data, _ = receipts
    path.write_bytes(data.replace(b'"key 3"', b'"key 2"'))
    with pytest.raises(JournalError, match="damaged"):
        Receipts(path).find("key 2")
