"""The saved runs of the command, each a named thread in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import RunnableConfig

from rlm_langchain.cli.options import Setup, read_setup, write_setup
from rlm_langchain.context.store import home
from rlm_langchain.durability.checkpointer import as_journal_error, checked_saver
from rlm_langchain.durability.standing import Standing, standing_of
from rlm_langchain.durability.thread_lock import is_held, thread_lock
from rlm_langchain.durability.thread_name import check_name
from rlm_langchain.errors import InputError, JournalError
from rlm_langchain.records import Record, RLMOutput, output_of
from rlm_langchain.runnable.fork import Graph, reading_graph
from rlm_langchain.trajectory.journal import DAMAGED

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

SETUP = "rlm_setup"
"""Key in the metadata of each checkpoint: the options of the RLM that wrote it."""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A thread, as its last checkpoint describes it."""

    name: str
    setup: Setup
    values: dict[str, Any]
    at: str
    """When its last checkpoint was written, in ISO 8601."""
    standing: Standing
    damage: JournalError | None = None
    """What is wrong with a broken thread."""

    @property
    def records(self) -> list[Record]:
        """Return the records of all its questions."""
        return list(self.values.get("trajectory", ()))

    @property
    def last(self) -> list[Record]:
        """Return the records since its last question."""
        return since_question(self.records)

    def check_intact(self) -> SavedRun:
        """Return this thread if it is intact. Raises `JournalError` if it is broken."""
        if self.damage is not None:
            raise self.damage
        return self

    @property
    def output(self) -> RLMOutput:
        """Return the output of its last question."""
        return output_of(self.values)


class Threads:
    """All threads in one file. The file is created with the first thread."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or home() / "threads.sqlite"

    def all(self) -> list[SavedRun]:
        """Return every thread, the one that was written last first."""
        if not self.path.exists():
            return []
        with self.opened() as saver:
            graph = reading_graph(saver)
            runs = [saved for name in names(saver) if (saved := _read(graph, saver, name))]
        return sorted(runs, key=lambda saved: saved.at, reverse=True)

    def find(self, name: str) -> SavedRun | None:
        """Return the thread of this name, or None. Raises `InputError` for a name that no thread may have."""
        check_name(name)
        if not self.path.exists():
            return None
        with self.opened() as saver:
            return _read(reading_graph(saver), saver, name)

    def need(self, name: str) -> SavedRun:
        """Return a thread. Raises `InputError` if there is none of that name."""
        if (saved := self.find(name)) is None:
            raise InputError(f"no run is saved as {name!r}: `rlm runs` lists the saved runs")
        return saved

    def free_name(self, name: str) -> str:
        """Return the first of `name-2`, `name-3`, ... that no thread has."""
        number = 2
        while self.find(f"{name}-{number}"):
            number += 1
        return f"{name}-{number}"

    def forget(self, name: str) -> None:
        """Remove a thread with all its checkpoints. Raises `InputError`, and `ThreadBusy` if it is running."""
        self.need(name)
        with thread_lock(self.path.parent, name), self.opened() as saver, as_journal_error("written"):
            saver.delete_thread(name)

    def is_running(self, name: str) -> bool:
        """Return whether a process works on a thread now."""
        return is_held(self.path.parent, name)

    @contextmanager
    def opened(self) -> Iterator[SqliteSaver]:
        """Yield the saver, for commands that call no model."""
        from langgraph.checkpoint.sqlite import SqliteSaver

        self._prepare()
        with self._naming_file(), closing(sqlite3.connect(self.path, check_same_thread=False)) as connection:
            yield checked_saver(SqliteSaver(connection))

    @asynccontextmanager
    async def opened_async(self) -> AsyncIterator[AsyncSqliteSaver]:
        """Yield the saver, for a run."""
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        self._prepare()
        with self._naming_file():
            async with AsyncSqliteSaver.from_conn_string(str(self.path)) as saver:
                yield saver

    @contextmanager
    def _naming_file(self) -> Iterator[None]:
        """Add the path of the file to errors of the database."""
        try:
            yield
        except JournalError as error:
            if isinstance(error.__cause__, sqlite3.Error):
                way_out = (
                    ""
                    if "make room" in str(error)
                    else ": put it back as it was, or set RLM_HOME to another folder"
                )
                error.add_note(f"That is in {self.path}{way_out}.")
            raise

    def _prepare(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600)
        except OSError as error:
            raise JournalError(
                f"runs cannot be saved in {self.path} ({error.strerror}): set RLM_HOME to another folder"
            ) from error


def names(saver: SqliteSaver) -> list[str]:
    """Return the names of all threads in a file."""
    with as_journal_error("read"), saver.cursor(transaction=False) as cursor:
        return [name for (name,) in cursor.execute("select distinct thread_id from checkpoints")]


def config(name: str, setup: Setup | None = None) -> RunnableConfig:
    """Return the config of a thread. Checkpoints that are written with it hold the options."""
    base: RunnableConfig = {"configurable": {"thread_id": name}}
    return {**base, "metadata": {SETUP: write_setup(setup)}} if setup else base


def since_question(records: list[Record]) -> list[Record]:
    """Return the records from the last question of the root run on."""
    questions = [i for i, record in enumerate(records) if record["type"] == "question"]
    return records[questions[-1] :] if questions else []


def _read(graph: Graph, saver: Any, name: str) -> SavedRun | None:
    try:
        state = graph.get_state(config(name))
        standing = standing_of(state)
        if standing.state == "broken":
            raise JournalError(f"{DAMAGED} (on the thread {name!r})")
    except JournalError as error:
        last = next(saver.list_intact({"configurable": {"thread_id": name, "checkpoint_ns": ""}}), None)
        metadata, at = (last.metadata, last.checkpoint["ts"]) if last else ({}, "")
        return SavedRun(name, read_setup(metadata.get(SETUP)), {}, at, Standing("broken"), error)
    if standing.state == "new":
        return None
    setup = read_setup(cast("dict[str, str]", state.metadata or {}).get(SETUP))
    return SavedRun(name, setup, state.values, state.created_at or "", standing)
