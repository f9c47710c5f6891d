"""A process that is simulated: an event loop, a clock, threads and a disk that one seed decides on, and its death.

Everything that runs in it is real. What is taken from it is chance: its loop chooses at random which task goes on,
its time is put on as soon as nobody can go on, what it does in threads is done on the loop, some time later. An
effect is what others can see: a line or a row that is written, a request that is sent, a file that is removed. It
can be killed before and after each of them, and in the middle of a line. What it does after its death is undone.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from psycopg.rows import dict_row

LONGEST_REAL_WAIT = 20.0
"""Seconds after which a loop that nobody wakes has deadlocked."""
TORN = 0.15
"""How often a death comes in the middle of a line that is written, or after it was written twice."""


class Killed(Exception):
    """The process was killed."""


@dataclass
class Fate:
    """What happens to one process, drawn from one source."""

    chance: random.Random
    kill_at: int = 0
    """The effect with which it ends, from 1. 0: it lives."""
    wall: float = 1.7e9
    """Its clock on the wall at its beginning, in Unix time."""
    effects: int = 0
    log: list[str] = field(default_factory=list)
    watch: Callable[[str], None] = lambda _: None
    """Looks at the world after each effect."""
    dies: Callable[[], None] = lambda: None
    """Keeps what is there at the moment of its death."""
    loop: Loop | None = None
    dead: bool = False

    def effect(self, what: str) -> None:
        """Something is about to happen, or has happened, that others can see: a moment to die at."""
        if self.dead:
            return
        self.effects += 1
        self.log.append(what)
        if self.effects == self.kill_at:
            self.die()
        else:
            self.watch(what)

    def die(self) -> None:
        """End here."""
        self.log.append("killed")
        self.dead = True
        self.dies()
        assert self.loop is not None
        self.loop.stop()

    def tears(self) -> float | None:
        """How much of a line is written, or 2 for twice, if it ends in this write."""
        if self.dead or self.effects + 1 != self.kill_at or self.chance.random() > TORN * 2:
            return None
        return self.chance.choice([0.0, 0.5, 0.99, 2.0])


class _Selector(selectors.SelectSelector):
    """Never waits for a timer: it puts the clock on."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            ready = super().select(LONGEST_REAL_WAIT)
            assert ready, "nothing goes on any more: a deadlock"
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            self.now += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    """Runs the tasks that are ready in any order, and what threads would do in between."""

    def __init__(self, fate: Fate) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)
        self._fate, fate.loop = fate, self

    def time(self) -> float:
        return self._clock.now

    def put_on(self, seconds: float) -> None:
        """Let time pass."""
        self._clock.now += seconds

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        if len(ready) > 1:  # callbacks keep their order, since asyncio promises it; tasks have none
            tasks = [place for place, handle in enumerate(ready) if _is_task(handle)]
            moved = [ready[place] for place in tasks]
            self._fate.chance.shuffle(moved)
            for place, handle in zip(tasks, moved, strict=True):
                ready[place] = handle
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, function: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()

        def run() -> None:
            if future.done():
                return
            try:
                future.set_result(function(*args))
            except StopIteration as error:
                future.set_exception(RuntimeError(str(error)))
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                future.set_exception(error)

        self.call_later(self._fate.chance.choice([0, 0, 0.001, 0.3]), run)
        return future


def _is_task(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]


def run(fate: Fate, work: Coroutine[Any, Any, Any]) -> Any:
    """Run to its end. Raises `Killed`."""
    with _simulated(fate) as loop:
        try:
            return loop.run_until_complete(work)
        except Exception as error:
            if not fate.dead:
                raise
            raise Killed from error
        finally:
            _take_down(loop)


def _take_down(loop: Loop) -> None:
    """End all that works. What it does meanwhile is seen by nobody."""
    for _ in range(10):
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks, timeout=100))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class _ClosingThread(threading.Thread):
    """A thread that closes something does so at once."""

    def start(self) -> None:
        if self.name == "rlm-closing":
            self.run()
        else:
            super().start()


@contextmanager
def _simulated(fate: Fate) -> Iterator[Loop]:
    """Have time, threads, chance and the disk be those of this process."""
    loop, begun = Loop(fate), _Selector.now
    wall = fate.wall
    write, remove, urandom = os.pwrite, os.unlink, fate.chance.randbytes

    def pwrite(file: int, data: Any, offset: int) -> int:
        part = fate.tears()
        if part is not None:
            whole = bytes(data)
            write(file, (whole * 2)[: int(len(whole) * part)], offset)
            fate.effects += 1
            fate.log.append(f"{part:.0%} of a line")
            fate.die()
            return len(whole)
        fate.effect("a line")
        written = write(file, data, offset)
        fate.effect("a line was written")
        return written

    def unlink(path: Any, *args: Any, **kwargs: Any) -> None:
        fate.effect("a file is removed")
        remove(path, *args, **kwargs)
        fate.effect("a file was removed")

    fakes = {
        "time.time": lambda: wall + loop.time() - begun,
        "time.time_ns": lambda: int((wall + loop.time() - begun) * 1e9),
        "time.monotonic": loop.time,
        "time.perf_counter": loop.time,
        "time.sleep": loop.put_on,
        "threading.Thread": _ClosingThread,
        "os.pwrite": pwrite,
        "os.unlink": unlink,
        "os.urandom": urandom,
    }
    before = random.getstate()
    random.seed(fate.chance.random())
    patches = [mock.patch(name, fake) for name, fake in fakes.items()]
    for patch in patches:
        patch.start()
    try:
        yield loop
    finally:
        for patch in reversed(patches):
            patch.stop()
        random.setstate(before)


# ---- what outlives a process


class Disk:
    """A folder, and the checkpoints in a database: as files, or in memory, which is quicker."""

    def __init__(self, folder: Path, in_memory: bool = True) -> None:
        self.folder, self.home = folder, folder / "home"
        shutil.rmtree(folder, ignore_errors=True)
        self.home.mkdir(parents=True)
        self._in_memory = in_memory
        self._kept: tuple[dict[str, bytes], bytes | None] | None = None
        self.connection: Any = None

    def attach(self, saver: Any) -> None:
        """Give a new process its connection."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._restore(kept[0])
        self.connection = self.connect()
        if kept is not None and kept[1] is not None:
            self.connection.deserialize(kept[1])
        saver.conn, saver.is_setup = self.connection, False

    def connect(self) -> Any:
        """Open the database."""
        database = ":memory:" if self._in_memory else str(self.folder / "threads.sqlite")
        connection = sqlite3.connect(database, check_same_thread=False)
        connection.execute("pragma synchronous = off")  # a kill is no loss of power
        return connection

    def keep(self) -> None:
        """Keep everything as it is now."""
        files = {path: Path(path).read_bytes() for path in self._paths(self.folder)}
        database = self.connection.serialize() if self._in_memory and self.connection is not None else None
        self._kept = files, database

    def detach(self) -> None:
        """The process is gone. A database in memory outlives it."""
        if self._kept is None:
            self.keep()
        self.connection.close()

    def _paths(self, folder: Path) -> list[str]:
        return [os.path.join(under, name) for under, _, names in os.walk(folder) for name in names]

    def _restore(self, files: dict[str, bytes]) -> None:
        for path in self._paths(self.folder):
            if path not in files:
                os.unlink(path)
        for path, held in files.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(held)

    def receipts(self) -> list[bytes]:
        """The contents of all receipts, as they were when the last process ended, or are now."""
        if self._kept is not None:
            return [held for path, held in self._kept[0].items() if path.endswith(".jsonl")]
        return [path.read_bytes() for path in (self.home / "receipts").glob("*.jsonl")]


class PostgresDisk(Disk):
    """The checkpoints are in Postgres: what a process has written there by its death stays."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(folder, in_memory=False)
        self._address = address

    def connect(self) -> Any:
        return psycopg.connect(self._address, autocommit=True, prepare_threshold=0, row_factory=dict_row)

    def keep(self) -> None:
        super().keep()
        self.connection.close()


class _Effects:
    """Makes the writes of a saver effects. Comes before the class of a saver, and gives it async methods."""

    fate: Fate

    def put(self, *args: Any) -> Any:
        self.fate.effect("a checkpoint")
        done = super().put(*args)  # type: ignore[misc]
        self.fate.effect("a checkpoint was written")
        return done

    def put_writes(self, *args: Any) -> None:
        self.fate.effect("a task's writes")
        super().put_writes(*args)  # type: ignore[misc]
        self.fate.effect("a task's writes were written")

    async def aget_tuple(self, config: Any) -> Any:
        return self.get_tuple(config)  # type: ignore[attr-defined]

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for found in self.list(*args, **kwargs):  # type: ignore[attr-defined]
            yield found

    async def aput(self, *args: Any) -> Any:
        return self.put(*args)

    async def aput_writes(self, *args: Any) -> None:
        self.put_writes(*args)

    async def aget_delta_channel_history(self, **kwargs: Any) -> Any:
        return self.get_delta_channel_history(**kwargs)  # type: ignore[attr-defined]


class Sqlite(_Effects, SqliteSaver):
    pass


class Postgres(_Effects, PostgresSaver):
    pass
