"""Runs programs, kills them, resumes them, and compares the replies that they had with the requests that they
send."""

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
from tests.durable.program import Program
from tests.durable.scripted_run import mark, marks, scripted_reply
from tests.servers.scripted import serve
from tests.servers.server import Rule, Server

PATIENCE = 120
"""Seconds after which a program is taken to hang."""


@dataclass
class ForkServer:
    """The process of `tests/durable/fork_server.py`, which forks for each program."""

    process: subprocess.Popen[str]

    def start(self, program: Program) -> RunProcess:
        """Start a process that runs a program."""
        program.result.unlink(missing_ok=True)
        assert self.process.stdin
        assert self.process.stdout
        path = program.save(Path(program.folder, f"program-{time.monotonic_ns()}.json"))
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return RunProcess(program, int(self.process.stdout.readline()), path)


@contextmanager
def fork_server(url: str) -> Iterator[ForkServer]:
    """Yield a fork server whose children call the models at `url`."""
    environment = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "tests.durable.fork_server"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    with process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield ForkServer(process)
        finally:
            process.stdin.close()


@dataclass
class RunProcess:
    """A process that runs a program."""

    program: Program
    pid: int
    path: Path
    started: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Return whether the process has ended within so many seconds."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], max(0.0, seconds))[0])
        finally:
            os.close(handle)

    def kill(self) -> None:
        """Send SIGKILL to the process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        assert self.wait()

    @property
    def log(self) -> str:
        """The output of the process."""
        return Path(f"{self.path}.log").read_text()

    def end(self) -> dict[str, Any]:
        """Wait, and return the result. Fails if the process hangs, or has no result."""
        if not self.wait():
            self.kill()
        assert self.program.result.exists(), self.log
        return dict(json.loads(self.program.result.read_text()))


def received(program: Program) -> set[str]:
    """Return the marks of all replies on disk, in complete receipts and in committed checkpoints."""
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
    """The process is killed when the server has received so many of its requests."""

    number: int


KillTime = int | float | AtRequest
"""When a process is killed: at the checkpoint write of this number, after so many seconds, or at a request."""


@dataclass
class CrashResult:
    """The result of a program that was killed and resumed, and the requests that it paid for twice."""

    result: dict[str, Any] = field(default_factory=dict)
    asked: list[set[str]] = field(default_factory=list)
    """The marks of the requests of each process."""
    paid_twice: set[str] = field(default_factory=set)
    """Marks of requests that were sent although the reply was on disk, or twice by one process."""
    states: list[str] = field(default_factory=list)
    """The state of the thread after each kill, as in `rlm runs`. "none" for an unknown thread."""
    in_flight: list[int] = field(default_factory=list)
    """For each process, the number of its requests that an earlier process had sent without receiving the reply."""

    def add_process(self, known: set[str], asked: list[str]) -> None:
        """Add a process that has ended, with the marks of the replies on disk when it started and of its
        requests."""
        twice = {mark for mark in asked if asked.count(mark) > 1}
        self.paid_twice |= twice | (known & set(asked))
        self.in_flight.append(len(set(asked).intersection(*[set().union(*self.asked)])))
        self.asked.append(set(asked))


@dataclass
class CrashHarness:
    """A model server, and a fork server whose children call it."""

    server: Server
    fork_server: ForkServer
    folder: Path
    runs: int = 0

    def program(self, **options: Any) -> Program:
        """Return a program with a folder of its own."""
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        return Program(str(folder), **options)

    def run_undisturbed(self, program: Program) -> dict[str, Any]:
        """Run a program without a kill, and return its result with the `seconds` that it took."""
        process = self.fork_server.start(program)
        return {**process.end(), "seconds": time.monotonic() - process.started}

    def asked(self, since: int = 0) -> list[str]:
        """Return the marks of all requests, in order, including those of killed processes."""
        self.server.wait(lambda server: not server.connections)
        return [mark(request.messages) for request in self.server.requests[since:]]

    def run_with_kills(self, program: Program, *deaths: KillTime) -> CrashResult:
        """Run a program, kill it at each of `deaths`, resume it after each, and record which requests are
        repeated."""
        done, resume = CrashResult(), program.resume
        for death in (*deaths, None):
            known, since = received(program), len(self.asked())
            kill_at = death if isinstance(death, int) else 0
            process = self.fork_server.start(replace(program, resume=resume, kill_at=kill_at))
            if isinstance(death, AtRequest):
                while self.server.calls < since + death.number and not process.wait(0.002):
                    pass
                process.kill()
            elif death is not None:
                process.wait(PATIENCE if kill_at else death)
                assert not kill_at or not program.result.exists(), "nobody killed it"
                process.kill()
                done.states.append(state(program))
            elif not process.wait():
                process.kill()
            done.add_process(known, self.asked(since))
            resume = True
        done.result = process.end()
        return done


def state(program: Program) -> str:
    """Return the state of a program's thread, as in `rlm runs`. With Postgres it is always "stopped"."""
    if program.postgres:
        return "stopped"
    threads = {kept.name: kept.standing.state for kept in Threads(program.database).all()}
    return threads.get(program.thread, "none")


@contextmanager
def crash_harness(folder: Path, latency: float = 0.004, rule: Rule = lambda _: None) -> Iterator[CrashHarness]:
    """Yield a harness with a new model server and a new fork server."""
    with serve(scripted_reply, latency=latency, rule=rule) as server, fork_server(server.url) as started:
        yield CrashHarness(server, started, folder)


def story(output: dict[str, Any]) -> list[Any]:
    """Return the events of a run without times, and without the notes of a resumed run."""
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
    """Return the events of a child run."""
    return story({"trajectory": call["child"]})
