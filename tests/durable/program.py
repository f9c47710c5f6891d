"""The program that is killed: one RLM through `ChatOpenAI`, one saver, one thread; its result goes into a file."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from rlm_langchain import (
    Budget,
    InputError,
    RLMError,
    create_rlm,
)
from tests.durable.scripted_run import CONTEXT, query


@dataclass
class Program:
    """What a process is told to do."""

    folder: str
    """Holds everything: `home`, the database, the result."""
    home: str = ""
    """Where contexts and receipts are kept; in the folder unless said."""
    mode: str = "sync"
    thread: str = "t"
    resume: bool = False
    query: str = field(default_factory=query)
    context: Any = CONTEXT
    kill_at: int = 0
    """End the whole process group at this write, from 1; 0: never."""
    kill_what: str = "put"
    """Whether it is the `put` of a checkpoint or the `put_writes` of a task."""
    kill_before: bool = False
    """Before the write instead of after it."""
    budget: dict[str, Any] = field(default_factory=lambda: {"depth": 3})
    postgres: str = ""
    """Where the checkpoints are, if not in SQLite: a connection string."""
    largest: int = 0
    """Bytes of the longest file that it may write; 0: any. A disk that is full, for one process."""

    @property
    def database(self) -> Path:
        """The checkpoints."""
        return Path(self.folder, "threads.sqlite")

    @property
    def keep(self) -> Path:
        """Contexts and receipts."""
        return Path(self.home) if self.home else Path(self.folder, "home")

    @property
    def result(self) -> Path:
        """`{"output": ...}` or `{"error": ...}`, and how many checkpoints were written."""
        return Path(self.folder, "result.json")

    def save(self, path: Path) -> Path:
        """For another process."""
        path.write_text(json.dumps(asdict(self)))
        return path


class Death:
    """Counts what is written, and kills at the write that was chosen."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.counts = {"put": 0, "put_writes": 0}
        self.anew = False
        """Whether there was nothing to resume."""

    def before(self, what: str) -> int:
        """Something is about to be written. Gives its number."""
        self.counts[what] += 1
        if self.program.kill_before:
            self._strike(what, self.counts[what])
        return self.counts[what]

    def after(self, what: str, number: int) -> None:
        """This is written."""
        if not self.program.kill_before:
            self._strike(what, number)

    def _strike(self, what: str, number: int) -> None:
        if (what, number) == (self.program.kill_what, self.program.kill_at):
            os.killpg(0, signal.SIGKILL)


class Deadly(BaseCheckpointSaver[str]):
    """Ends its process at a checkpoint write. Comes before the class of a saver."""

    death: Death

    def put(self, *args: Any) -> Any:
        number = self.death.before("put")
        done = super().put(*args)
        self.death.after("put", number)
        return done

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        number = self.death.before("put_writes")
        super().put_writes(config, writes, task_id, task_path)
        self.death.after("put_writes", number)


class AsyncDeadly(BaseCheckpointSaver[str]):
    """The same, for async savers."""

    death: Death

    async def aput(self, *args: Any) -> Any:
        number = self.death.before("put")
        done = await super().aput(*args)
        self.death.after("put", number)
        return done

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        number = self.death.before("put_writes")
        await super().aput_writes(config, writes, task_id, task_path)
        self.death.after("put_writes", number)


class DeadlySqlite(Deadly, SqliteSaver):
    pass


class DeadlyPostgres(Deadly, PostgresSaver):
    pass


class AsyncDeadlySqlite(AsyncDeadly, AsyncSqliteSaver):
    pass


class AsyncDeadlyPostgres(AsyncDeadly, AsyncPostgresSaver):
    pass


@contextmanager
def saver(program: Program, death: Death) -> Iterator[Deadly]:
    """The saver that a program says: SQLite in its folder, or Postgres."""
    opening = (
        DeadlyPostgres.from_conn_string(program.postgres)
        if program.postgres
        else DeadlySqlite.from_conn_string(str(program.database))
    )
    with opening as opened:
        opened.death = death
        yield opened


@asynccontextmanager
async def asaver(program: Program, death: Death) -> AsyncIterator[AsyncDeadly]:
    opening = (
        AsyncDeadlyPostgres.from_conn_string(program.postgres)
        if program.postgres
        else AsyncDeadlySqlite.from_conn_string(str(program.database))
    )
    async with opening as opened:
        opened.death = death
        yield opened


def rlm(program: Program, checkpointer: Any) -> Any:
    return create_rlm(
        "openai:scripted",
        sandbox="cpython",
        budget=Budget(**program.budget),
        checkpointer=checkpointer,
        home=program.keep,
    )


def question(program: Program) -> dict[str, Any]:
    return {"query": program.query, "context": program.context}


def config(program: Program) -> Any:
    return {"configurable": {"thread_id": program.thread}}


def run(program: Program, death: Death) -> Any:
    with saver(program, death) as checkpointer:
        components = rlm(program, checkpointer)
        if program.resume:
            try:
                return components.invoke(None, config(program))
            except InputError:
                death.anew = True  # nothing was asked yet
        return components.invoke(question(program), config(program))


async def arun(program: Program, death: Death) -> Any:
    async with asaver(program, death) as checkpointer:
        components = rlm(program, checkpointer)
        if program.resume:
            try:
                return await components.ainvoke(None, config(program))
            except InputError:
                death.anew = True  # nothing was asked yet
        return await components.ainvoke(question(program), config(program))


def main(program: Program) -> None:
    """Run, and say how it ended."""
    if program.largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (program.largest, resource.RLIM_INFINITY))
    death = Death(program)
    try:
        output = run(program, death) if program.mode == "sync" else asyncio.run(arun(program, death))
        said: dict[str, Any] = {"output": output}
    except RLMError as error:
        said = {"error": type(error).__name__, "text": str(error)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    program.result.write_text(
        json.dumps({**said, "puts": death.counts["put"], "writes": death.counts["put_writes"], "anew": death.anew})
    )
