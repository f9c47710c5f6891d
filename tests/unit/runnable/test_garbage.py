"""What is on disk and needed by no run goes, when it is old; everything else stays."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from rlm_langchain import (
    Budget,
    InputError,
    JournalError,
    create_rlm,
)
from rlm_langchain.cli.commands import gc
from rlm_langchain.cli.session.threads import Threads
from rlm_langchain.context.store import ContextStore
from rlm_langchain.durability.thread_lock import thread_lock
from rlm_langchain.runnable.garbage import (
    GarbageReport,
    Reachable,
    areferences,
    collect,
    references,
)
from rlm_langchain.testing.models import FunctionModel, script

DAY = 86_400.0
THREAD: Any = {"configurable": {"thread_id": "t"}}


def age(home: Path, days: float = 40) -> None:
    """Nothing in the home was used for so long."""
    for path in [*home.rglob("*")]:
        os.utime(path, (time.time() - days * DAY,) * 2)


def blobs(home: Path) -> set[str]:
    return {path.name for path in (home / "contexts").glob("*/*")}


def stored(text: str) -> str:
    ref = ContextStore().reference(text)
    assert ref
    return ref["sha256"]


def test_whole_prompts_of_a_thread_are_kept_and_stay(home: Path) -> None:
    code = "llm_query_batched(['long ' * 100 + str(i) for i in range(3)])\nllm_query('short')\nFINAL(1)"
    saver = InMemorySaver()
    output = create_rlm(script(code), checkpointer=saver).invoke({"query": "q"}, THREAD)
    waves = [record for record in output["trajectory"] if record["type"] == "wave"]
    assert ["prompts_ref" in wave for wave in waves] == [True, False]
    age(home)
    collect(home, references(saver), older_than=30 * DAY)
    assert ContextStore().load(waves[0]["prompts_ref"]) == ["long " * 100 + str(i) for i in range(3)]
    unsaved = create_rlm(script(code)).completion("q")
    assert not any("prompts_ref" in record for record in unsaved["trajectory"])


def test_prompts_that_cannot_be_kept_do_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise JournalError("the disk is full")

    monkeypatch.setattr("rlm_langchain.graph.nodes.execute.store_texts", full)
    rlm = create_rlm(script("FINAL(llm_query('long ' * 100)[:5])"), checkpointer=InMemorySaver())
    output = rlm.invoke({"query": "q"}, THREAD)
    assert (output["answer"], output["status"]) == ("<long", "complete")
    notes = [record["text"] for record in output["trajectory"] if record["type"] == "note"]
    assert notes == ["the whole prompts of this batch could not be kept: the disk is full"]


def test_what_a_thread_refers_to_stays_and_what_is_old_and_nobodys_goes(home: Path) -> None:
    saver = InMemorySaver()
    rlm = create_rlm(script("FINAL(len(context))"), checkpointer=saver)
    rlm.invoke({"query": "q", "context": "kept"}, THREAD)
    old = stored("nobody's")
    age(home)
    fresh = stored("also nobody's")
    kept = references(saver)
    assert old not in kept.contexts
    would = collect(home, kept, older_than=30 * DAY, dry_run=True)
    assert would == GarbageReport(1, 0, 0, len("nobody's"))
    assert old in blobs(home)
    assert collect(home, kept, older_than=30 * DAY) == would
    assert blobs(home) == {fresh, *kept.contexts}
    assert asyncio.run(areferences(saver)) == kept
    assert rlm.invoke("again", THREAD)["answer"] == 4


def test_pieces_of_child_runs_that_are_not_done_stay(home: Path) -> None:
    """Only a task that waits in a checkpoint names them."""

    def plays(messages: list[Any]) -> str:
        if messages[0].type != "system":
            return str(messages[0].content)
        if "child" in messages[1].content:
            return "```repl\nFINAL('+'.join(llm_query_batched([context, '2', '3'])))\n```"
        return "```repl\nFINAL(rlm_query('child', context[:5]))\n```"

    rlm = create_rlm(
        FunctionModel(function=plays),
        budget=Budget(depth=2, approve_above_calls=2),
        checkpointer=(saver := InMemorySaver()),
    )
    assert "__interrupt__" in rlm.invoke({"query": "q", "context": "piece by piece"}, THREAD)
    age(home)
    freed = collect(home, references(saver), older_than=30 * DAY)
    assert freed == GarbageReport(0, 0, 0, 0)
    assert rlm.invoke(Command(resume=True), THREAD)["answer"] == "piece+2+3"


def test_long_questions_stay_as_long_as_a_checkpoint_refers_to_them(home: Path) -> None:
    """Those of a child run that has not begun, of one that waits, and of the caller."""
    long = "word for word " * 2_000
    rlm = create_rlm(
        script(
            "FINAL(rlm_query(f'child {context}'))", children={"child": ["FINAL(llm_query_batched(['a', 'b']))"]}
        ),
        budget=Budget(depth=2, approve_above_calls=1),
        checkpointer=(saver := InMemorySaver()),
    )
    paused = rlm.invoke({"query": f"A question: {long}", "context": long}, THREAD)
    while "__interrupt__" in paused:
        stored("nobody's")
        age(home)
        assert collect(home, references(saver), older_than=30 * DAY).contexts == 1
        paused = rlm.invoke(Command(resume=True), THREAD)
    assert paused["answer"] == '["<a>", "<b>"]'
    moments = [*rlm.graph.get_state_history(THREAD)]
    age(home)
    assert collect(home, references(saver), older_than=30 * DAY).contexts == 0
    first = next(moment for moment in moments if moment.next == ("prepare",))
    assert "__interrupt__" in rlm.invoke(None, first.config), "the question is asked again"


def test_receipts_stay_while_their_run_may_be_resumed(home: Path) -> None:
    rlm = create_rlm(
        script("FINAL(llm_query_batched(['a', 'b']))"),
        budget=Budget(approve_above_calls=1),
        checkpointer=InMemorySaver(),
    )
    assert "__interrupt__" in rlm.invoke("q", THREAD)
    [receipts] = (home / "receipts").iterdir()
    age(home)
    assert collect(home, references(rlm.checkpointer), older_than=30 * DAY).receipts == 0
    assert receipts.exists()
    assert collect(home, Reachable(), older_than=50 * DAY).receipts == 0
    assert collect(home, Reachable(), older_than=30 * DAY).receipts == 1
    assert not receipts.exists()


def test_nothing_goes_that_was_used_since_a_run_at_work_began(home: Path) -> None:
    old = stored("in use, says nobody")
    age(home)
    with thread_lock(home, "somebody's"):
        [note] = (home / "leases").glob("*.json")
        note.write_text(json.dumps({"since": time.time() - 60 * DAY}))
        assert collect(home, Reachable(), older_than=30 * DAY).contexts == 0
        note.write_text("torn")
        assert collect(home, Reachable(), older_than=30 * DAY).contexts == 0
        note.write_text(json.dumps({"since": time.time()}))
        assert collect(home, Reachable(), older_than=30 * DAY, dry_run=True).contexts == 1
    note.write_text(json.dumps({"since": time.time() - 60 * DAY}))
    assert collect(home, Reachable(), older_than=30 * DAY).contexts == 1, "its run is over"
    assert old not in blobs(home)


def test_indexes_go_with_their_contexts(home: Path) -> None:
    saver = InMemorySaver()
    search = "FINAL(search('word')[0]['text'])"
    rlm = create_rlm(script(search), retriever="bm25", checkpointer=saver)
    rlm.invoke({"query": "q", "context": "a word of mine"}, THREAD)
    create_rlm(script(search), retriever="bm25").completion("q", "a word of nobody's")
    age(home)
    freed = collect(home, references(saver), older_than=30 * DAY)
    assert (freed.contexts, freed.indexes) == (1, 1)
    assert len([*(home / "indexes").glob("??/" + "?" * 64)]) == 1


def test_what_was_used_within_the_last_hours_always_stays(home: Path) -> None:
    stored("new")
    assert collect(home, Reachable(), older_than=0) == GarbageReport(0, 0, 0, 0)
    age(home, days=0.2)
    assert collect(home, Reachable(), older_than=0).contexts == 1


def test_a_damaged_checkpoint_stops_the_collection(home: Path) -> None:
    with Threads().opened() as saver:
        create_rlm(script("FINAL(1)"), checkpointer=saver).invoke({"query": "q", "context": "c"}, THREAD)
        saver.conn.execute("update checkpoints set checkpoint = x'c1' where rowid = 1")
        saver.conn.commit()
    age(home)
    with pytest.raises(JournalError):
        gc.collect("30d", dry_run=False)
    assert len(blobs(home)) == 1


def test_the_command_keeps_what_its_threads_refer_to_and_says_what_went(home: Path) -> None:
    assert gc.collect("30d", dry_run=False) == "nothing to remove"
    with Threads().opened() as saver:
        create_rlm(script("FINAL(1)"), checkpointer=saver).invoke({"query": "q", "context": "c" * 99}, THREAD)
    stored("x" * 2_000_000)
    age(home)
    assert gc.collect("5w", dry_run=True) == "would free 2.0 MB: 1 context"
    assert gc.collect("5w", dry_run=False) == "freed 2.0 MB: 1 context"
    assert len(blobs(home)) == 1
    Threads().forget("t")
    age(home)
    assert gc.collect("720h", dry_run=False).endswith(": 1 context")


@pytest.mark.parametrize("said", ["30", "d", "-1d", "a month", "1y"])
def test_an_age_needs_a_unit(said: str) -> None:
    with pytest.raises(InputError, match="is not an age"):
        gc.seconds(said)
