"""How a thread stands, at every moment at which a run may have been killed, and after the loss of any row."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from rlm_langchain import Budget, InputError, JournalError, RLMOutput, create_rlm
from rlm_langchain.durability.standing import standing_of
from rlm_langchain.graph.nodes.approve import answered
from rlm_langchain.testing.models import script

THREAD: Any = {"configurable": {"thread_id": "the book"}}
EVERY = int(os.environ.get("RLM_KILLS", "4")) >= 100
"""Whether every row and every moment is tried, and not some of them."""
CELLS = (
    "a = llm_query_batched(['x', 'y'])\nb = rlm_query('child', context)",
    "FINAL([a, b])",
    "c = llm_query('z')",
    "FINAL([a, b, c])",
)


@contextmanager
def opened(folder: Path, kind: type[SqliteSaver] = SqliteSaver) -> Iterator[Any]:
    """The saver of a folder."""
    connection = sqlite3.connect(folder / "threads.sqlite", check_same_thread=False)
    yield kind(connection)
    connection.close()


def rlm(saver: Any, folder: Path, asked: list[str] | None = None, **options: Any) -> Any:
    def leaf(prompt: str) -> str:
        if asked is not None:
            asked.append(prompt)
        return f"<{prompt}>"

    options = {"budget": Budget(depth=2, concurrency=1), **options}
    return create_rlm(
        script(*CELLS, leaf=leaf), checkpointer=saver, home=folder / "home", sandbox="monty", **options
    )


class Filmed(SqliteSaver):
    """Copies its folder after each write: what a process leaves behind that is killed then."""

    images: list[Path]
    filming = threading.Lock()

    def put(self, *args: Any) -> Any:
        with self.filming:
            done = super().put(*args)
            self.film()
            return done

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        with self.filming:
            super().put_writes(config, writes, task_id, task_path)
            self.film()

    def film(self) -> None:
        [(_, _, file)] = self.conn.execute("pragma database_list").fetchall()
        folder = Path(file).parent
        self.images.append(folder.with_name(f"image {len(self.images)}"))
        shutil.copytree(folder, self.images[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def gist(output: RLMOutput) -> list[Any]:
    lost = sum(
        record.get("lost", 0) for record in output["trajectory"] if record["type"] == "call"
    )  # in flight then
    calls = output["sub_calls"] - lost
    return [output["answer"], output["status"], output["stop_reason"], output["iterations"], calls]


def test_killed_after_any_write_a_run_can_be_gone_on_with_and_pays_for_nothing_twice(folder: Path) -> None:
    with opened(folder, Filmed) as saver:
        Filmed.images = []
        whole = rlm(saver, folder).invoke({"query": "q", "context": "text"}, THREAD)
    seen = Counter[str]()
    images = Filmed.images if EVERY else [*Filmed.images[:-6:3], *Filmed.images[-6:]]
    for image in images:
        with opened(image) as saver:
            asked: list[str] = []
            components = rlm(saver, image, asked)
            snapshot = components.graph.get_state(THREAD)
            standing = standing_of(snapshot)
            received = "".join(path.read_text() for path in (image / "home" / "receipts").glob("*"))
            assert standing.state == ("stopped" if snapshot.values.get("status") is None else "complete")
            assert gist(components.invoke(None, THREAD)) == gist(whole)
            assert not [prompt for prompt in asked if f'"<{prompt}>"' in received]
            assert standing_of(components.graph.get_state(THREAD)) == ("complete", True)
            seen[f"{standing.state} {len(snapshot.next)}"] += 1
    assert seen["stopped 0"] > 1, "between the last write of a step and the next checkpoint"
    assert seen["complete 0"] == 2, "before the last checkpoint, and after it"


def test_a_question_that_comes_before_the_last_checkpoint_finds_the_answer_before(folder: Path) -> None:
    with opened(folder) as saver:
        first = rlm(saver, folder).invoke({"query": "q", "context": "text"}, THREAD)
        lose(saver, "checkpoints", "checkpoint_id = (select max(checkpoint_id) from checkpoints)")
        components = rlm(saver, folder)
        assert standing_of(components.graph.get_state(THREAD)) == ("complete", False)
        second = components.invoke("and?", THREAD)
        assert second["answer"] == [*first["answer"], "<z>"]
        assert [record["type"] for record in second["trajectory"]].count("answer") == 2


def test_a_fork_in_the_middle_of_a_step_begins_where_the_step_did(folder: Path) -> None:
    """`next` was empty there, as at an end: the fork took the thread for one that has ended."""
    with opened(folder) as saver:
        whole = rlm(saver, folder).invoke({"query": "q", "context": "text"}, THREAD)
        latest = "checkpoint_ns = '' and checkpoint_id = (select max(checkpoint_id) from checkpoints)"
        for _ in range(3):  # up to the last writes of the second turn
            lose(saver, "checkpoints", latest)
        components = rlm(saver, folder)
        assert standing_of(components.graph.get_state(THREAD)).is_open
        forked = components.fork(THREAD)
        assert standing_of(components.graph.get_state(forked)).state == "stopped"
        assert gist(components.invoke(None, forked)) == gist(whole)


def test_a_thread_that_was_never_asked_is_new_and_one_that_waits_for_a_person_says_so(folder: Path) -> None:
    saver = InMemorySaver()
    components = rlm(saver, folder, budget=Budget(approve_above_calls=1))
    assert standing_of(components.graph.get_state(THREAD)).state == "new"
    with pytest.raises(InputError, match="nothing to resume"):
        components.invoke(None, THREAD)
    output = components.invoke({"query": "q", "context": "text"}, THREAD)
    assert standing_of(components.graph.get_state(THREAD)).state == "waiting"
    while "__interrupt__" in output:
        output = components.invoke(answered(output, lambda _: True), THREAD)
    assert standing_of(components.graph.get_state(THREAD)).state == "complete"


def lose(saver: SqliteSaver, table: str, where: str) -> None:
    assert saver.conn.execute(f"delete from {table} where {where}").rowcount == 1
    saver.conn.commit()


class Failing(SqliteSaver):
    """Cannot write any more from a certain checkpoint on."""

    left = 0

    def put(self, *args: Any) -> Any:
        Failing.left -= 1
        if Failing.left < 0:
            raise OSError("full")
        return super().put(*args)


@pytest.fixture
def stopped(folder: Path) -> tuple[Path, list[Any]]:
    """A conversation that was stopped in its second question, and how its questions are answered."""
    whole = folder.with_name("whole")
    whole.mkdir()
    told = []
    for place, puts in ((whole, 1_000), (folder, 27)):
        Failing.left = puts
        with opened(place, Failing) as saver:
            components = rlm(saver, place)
            told.append(gist(components.invoke({"query": "q", "context": "text"}, THREAD)))
            if place is whole:
                told.append(gist(components.invoke("and?", THREAD)))
            else:
                with pytest.raises(JournalError):
                    components.invoke("and?", THREAD)
    return folder, told[:2]


def test_the_loss_of_any_row_is_an_error_that_names_the_thread_or_does_no_harm(stopped: Any) -> None:
    folder, told = stopped
    with opened(folder) as saver:
        rows = [
            (t, row) for t in ("checkpoints", "writes") for (row,) in saver.conn.execute(f"select rowid from {t}")
        ]
        saver.conn.execute("pragma journal_mode = delete")
        data = saver.conn.serialize()
    refused = list[str]()
    for table, row in rows[:: 1 if EVERY else 4]:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.deserialize(data)
        saver = SqliteSaver(connection)
        lose(saver, table, f"rowid = {row}")
        try:
            output = rlm(saver, folder).invoke(None, THREAD)
        except JournalError as error:
            refused.append(str(error))
        else:
            assert gist(output) in told, (table, row)
        connection.close()
    assert len(refused) > 5
    assert all("'the book'" in text and "`rlm fork`" in text for text in refused), set(refused)


def test_a_thread_with_a_lost_row_can_be_gone_back_in_to_what_is_whole(stopped: Any) -> None:
    folder, told = stopped
    with opened(folder) as saver:
        last = "select max(checkpoint_id) from checkpoints where checkpoint_ns = ''"
        lose(saver, "writes", f"channel = 'recorded' and checkpoint_id = ({last})")
        components = rlm(saver, folder)
        for broken in (lambda: components.invoke("and?", THREAD), lambda: components.fork(THREAD)):
            with pytest.raises(JournalError, match="rows of it are missing"):
                broken()
        forked = components.fork(THREAD, at=3)
        assert gist(components.invoke(None, forked)) == told[1]
