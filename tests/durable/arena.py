"""Runs programs, kills them, resumes them, and compares what they had with what they ask."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from rlm_langchain.cli.session.threads import Threads
from tests.durable.play import mark, marks, play
from tests.durable.program import Program
from tests.servers.scripted import serve
from tests.servers.server import Rule, Server

PATIENCE = 120
"""Seconds after which a program hangs, for certain."""


@dataclass
class Nursery:
    """The process that forks."""

    process: subprocess.Popen[str]

    def bear(self, program: Program) -> Life:
        """A new process that runs a program."""
        program.result.unlink(missing_ok=True)
        assert self.process.stdin
        assert self.process.stdout
        path = program.save(Path(program.folder, f"program-{time.monotonic_ns()}.json"))
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return Life(program, int(self.process.stdout.readline()), path)


@contextmanager
def nursery(url: str) -> Iterator[Nursery]:
    """A nursery whose children ask the models at `url`."""
    environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "tests.durable.nursery"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    with process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield Nursery(process)
        finally:
            process.stdin.close()


@dataclass
class Life:
    """A process from its birth to its end."""

    program: Program
    pid: int
    path: Path
    born: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Whether it has ended within so many seconds."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], max(0.0, seconds))[0])
        finally:
            os.close(handle)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        assert self.wait()

    @property
    def log(self) -> str:
        """What it said."""
        return Path(f"{self.path}.log").read_text()

    def end(self) -> dict[str, Any]:
        """Its result. Fails when it hangs, or ended without one."""
        if not self.wait():
            self.kill()
        assert self.program.result.exists(), self.log
        return dict(json.loads(self.program.result.read_text()))


def received(program: Program) -> set[str]:
    """The marks of all replies that are on disk: in whole receipts, and in committed checkpoints."""
    found: set[str] = set()
    for path in (program.keep / "receipts").glob("*.jsonl"):
        found |= marks(path.read_bytes().rpartition(b"\n")[0])
    if program.postgres:
        found |= _in_postgres(program)
    elif program.database.exists():
        with tempfile.TemporaryDirectory() as copy:
            for path in program.database.parent.glob(f"{program.database.name}*"):
                shutil.copy(path, copy)
            found |= _committed(Path(copy, program.database.name))
    return found


def _committed(database: Path) -> set[str]:
    found: set[str] = set()
    connection = sqlite3.connect(database)
    with suppress(sqlite3.OperationalError):  # no tables yet
        for table, column in (("checkpoints", "checkpoint"), ("writes", "value")):
            for (blob,) in connection.execute(f"select {column} from {table}"):
                found |= marks(blob)
    connection.close()
    return found


def _in_postgres(program: Program) -> set[str]:
    found: set[str] = set()
    with psycopg.connect(program.postgres) as connection:
        for table, column in (
            ("checkpoints", "checkpoint::text"),
            ("checkpoint_blobs", "blob"),
            ("checkpoint_writes", "blob"),
        ):
            query = f"select {column} from {table} where thread_id = %s"
            for (value,) in connection.execute(query, (program.thread,)):
                found |= marks(value or b"")
    return found


@dataclass(frozen=True)
class AtRequest:
    """A process is killed when the server has received so many of its requests."""

    number: int


Death = int | float | AtRequest
"""When a process is killed: at this checkpoint write, after so many seconds, or at a request."""


@dataclass
class Survived:
    """How a program came through, and what it paid twice."""

    result: dict[str, Any] = field(default_factory=dict)
    asked: list[set[str]] = field(default_factory=list)
    """By process."""
    paid_twice: set[str] = field(default_factory=set)
    """Asked although the reply was on disk, or twice by one process."""
    states: list[str] = field(default_factory=list)
    """After each death: how the thread stands, as `rlm runs` says; "none" when it does not know the thread."""
    in_flight: list[int] = field(default_factory=list)
    """By process that was resumed: what an earlier one had asked, and not received."""

    def lived(self, had: set[str], asked: list[str]) -> None:
        """A process has ended: it had these replies when it began, and asked these."""
        twice = {mark for mark in asked if asked.count(mark) > 1}
        self.paid_twice |= twice | (had & set(asked))
        self.in_flight.append(len(set(asked).intersection(*[set().union(*self.asked)])))
        self.asked.append(set(asked))


@dataclass
class Arena:
    """A server, and a nursery whose children ask it."""

    server: Server
    nursery: Nursery
    folder: Path
    runs: int = 0

    def program(self, **options: Any) -> Program:
        """A program in a folder of its own."""
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        return Program(str(folder), **options)

    def whole(self, program: Program) -> dict[str, Any]:
        """Its result when nobody kills it, and the `seconds` it took."""
        life = self.nursery.bear(program)
        return {**life.end(), "seconds": time.monotonic() - life.born}

    def asked(self, since: int = 0) -> list[str]:
        """The marks of what was asked, in order, also by processes that are dead."""
        self.server.wait(lambda server: not server.connections)
        return [mark(request.messages) for request in self.server.requests[since:]]

    def survive(self, program: Program, *deaths: Death) -> Survived:
        """Run it, let each of `deaths` end it once, resume it after each, and watch what it asks again."""
        done, resume = Survived(), program.resume
        for death in (*deaths, None):
            had, since = received(program), len(self.asked())
            kill_at = death if isinstance(death, int) else 0
            life = self.nursery.bear(replace(program, resume=resume, kill_at=kill_at))
            if isinstance(death, AtRequest):
                while self.server.calls < since + death.number and not life.wait(0.002):
                    pass
                life.kill()
            elif death is not None:
                life.wait(PATIENCE if kill_at else death)
                assert not kill_at or not program.result.exists(), "nobody killed it"
                life.kill()
                done.states.append(state(program))
            elif not life.wait():
                life.kill()
            done.lived(had, self.asked(since))
            resume = True
        done.result = life.end()
        return done


def state(program: Program) -> str:
    """How the thread of a program stands, as `rlm runs` says. With Postgres it is not looked at."""
    if program.postgres:
        return "stopped"
    threads = {kept.name: kept.standing.state for kept in Threads(program.database).all()}
    return threads.get(program.thread, "none")


@contextmanager
def arena(folder: Path, latency: float = 0.004, rule: Rule = lambda _: None) -> Iterator[Arena]:
    """Where programs live and die."""
    with serve(play, latency=latency, rule=rule) as server, nursery(server.url) as born:
        yield Arena(server, born, folder)


def story(output: dict[str, Any]) -> list[Any]:
    """What happened in a run, without the times, and without what only a resumed run notes."""
    parts: list[Any] = []
    calls: dict[int, Any] = {}
    for record in output["trajectory"]:
        match record:
            case {"type": "call", "call": number}:
                # How much of the budget is left depends on what was in flight when a process was killed.
                value = None if record["kind"] == "budget" else record["value"]
                calls[number] = [value, record["error"], record.get("child") and story_of(record)]
            case {"type": "turn" | "output" | "question", "text": text} | {"type": "cell", "code": text}:
                parts.append(text)
    return [*parts, *(calls[number] for number in sorted(calls))]


def story_of(call: dict[str, Any]) -> list[Any]:
    """The story of a child run."""
    return story({"trajectory": call["child"]})
