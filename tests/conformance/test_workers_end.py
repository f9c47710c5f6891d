"""No worker outlives its host, whatever ends that, and whatever a cell has done to its own process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("processes are watched through /proc here", allow_module_level=True)

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes import watchdog_process
from rlm_langchain.sandboxes.cpython import policy
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.sandboxes.watchdog import Watchdog, watchdog
from rlm_langchain.types import Completed, Died, Limits
from tests.processes import alive, descendants, gone, is_starter, is_watchdog
from tests.sandbox_host import CELLS, RESTING

ALL = [(sandbox, state) for sandbox, cells in CELLS.items() for state in cells]
WORST = [("cpython", "loop"), ("monty", "loop"), ("monty", "waiting")]
COMPUTED = 2
"""Ticks of the kernel's clock, of 10 ms: a worker that has used them since it was asked is at work."""


class Host:
    """A process with sandboxes in it."""

    def __init__(self, process: subprocess.Popen[str], workers: dict[str, int]) -> None:
        self.process, self.workers = process, workers
        below = descendants(process.pid)
        self.all = {*below, *workers.values()}
        self.watchdogs = [pid for pid in below if is_watchdog(pid)]
        self.starters = [pid for pid in below if is_starter(pid)]

    def survivors(self) -> list[str]:
        """What is left of its workers, once it has had time to go."""
        names = {pid: name for name, pid in self.workers.items()}
        return [names.get(pid, f"process {pid}") for pid in self.all if not gone(pid, 10)]


@contextmanager
def host(wanted: list[tuple[str, str]]) -> Iterator[Host]:
    """A host with workers in these states, which compute when they should."""
    command = [sys.executable, "-m", "tests.sandbox_host", json.dumps(wanted)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        found = Host(process, json.loads(process.stdout.readline()))
        try:
            for name, pid in found.workers.items():
                if name.partition(" ")[2] not in RESTING:
                    await_computing(pid)
            yield found
        finally:
            for pid in {process.pid, *found.all}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def await_computing(pid: int) -> None:
    """Wait until a process has worked for a while. Fails when it ends instead."""
    begun = None
    while begun is None or _worked(pid) < begun + COMPUTED:
        assert alive(pid)
        begun = _worked(pid) if begun is None else begun
        os.sched_yield()


def _worked(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_process_that_nobody_watches_outlives_its_host():
    """The control: what the other tests look for is seen."""
    with host([]) as it:
        it.process.kill()
        it.process.wait()
        assert not gone(it.workers["control"], 0.2)


def test_a_host_that_is_killed_takes_all_its_workers_with_it():
    with host(ALL) as it:
        it.process.kill()
        assert it.survivors() == []


@pytest.mark.parametrize("how", ["exit", "exception", "_exit", "abort", "exec", "fork"])
def test_a_host_that_ends_takes_its_workers_with_it(how: str):
    with host(WORST) as it:
        print(how, file=it.process.stdin, flush=True)
        assert it.survivors() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_host_that_a_signal_ends_takes_its_workers_with_it(number: signal.Signals):
    with host(WORST) as it:
        it.process.send_signal(number)
        assert it.survivors() == []


def test_the_workers_of_a_starter_that_is_killed_end_while_their_host_lives():
    with host([("cpython", "loop"), ("cpython", "signals"), ("cpython", "idle")]) as it:
        [starter] = it.starters
        os.kill(starter, signal.SIGKILL)
        assert [name for name, pid in it.workers.items() if not gone(pid, 10)] == []
        assert it.process.poll() is None


def test_a_starter_that_is_killed_and_then_its_host():
    with host(WORST) as it:
        for pid in (*it.starters, it.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert it.survivors() == []


def test_a_starter_that_is_stopped_and_then_its_host_is_killed():
    with host(WORST) as it:
        os.kill(it.starters[0], signal.SIGSTOP)
        for pid in it.workers.values():
            os.kill(pid, signal.SIGSTOP)
        it.process.kill()
        assert it.survivors() == []


def test_workers_that_are_not_watched_any_more_do_not_go_on():
    with host(WORST) as it:
        [watching] = it.watchdogs
        os.kill(watching, signal.SIGKILL)
        assert [name for name, pid in it.workers.items() if not gone(pid, 10)] == []
        assert it.process.poll() is None


@pytest.mark.parametrize("sandbox", [CPythonSandbox, MontySandbox])
def test_a_session_whose_watchdog_is_killed_is_dead_and_the_next_is_watched(sandbox):
    session = sandbox().open(None, "", Limits())
    worker = next(pid for pid in descendants() if pid == _pid(session))
    os.kill(watchdog(os.getpid()).pid, signal.SIGKILL)
    assert gone(worker)
    assert isinstance(session.run("print(1)"), Died)
    session.close()
    session = sandbox().open(None, "", Limits())
    assert session.run("print(2)") == Completed("2\n")
    assert alive(watchdog(os.getpid()).pid)
    session.close()


@pytest.mark.parametrize("sandbox", [CPythonSandbox, MontySandbox])
def test_a_worker_that_cannot_be_watched_is_not_used(sandbox, monkeypatch):
    sandbox().open(None, "", Limits()).close()
    before = set(descendants())
    monkeypatch.setattr(policy, "python", lambda: "/nowhere/python")
    monkeypatch.setattr("rlm_langchain.sandboxes.watchdog.watchdog", lambda _: Watchdog())
    with pytest.raises(SandboxError, match="the process that watches over sandboxes does not work"):
        sandbox().open(None, "", Limits())
    assert set(descendants()) <= before


def test_its_loop_kills_what_it_was_given_last_and_forgets_what_has_ended():
    """In this process: a worker that ends, one that is there, one that is told of when the host is gone."""
    ours, other = socket.socketpair()
    host = subprocess.Popen(["/bin/sh", "-c", "read x"], stdin=subprocess.PIPE)
    workers = [subprocess.Popen(["/bin/sh", "-c", "read x"], stdin=subprocess.PIPE) for _ in range(3)]
    handles = [os.pidfd_open(process.pid) for process in (host, *workers)]
    thread = threading.Thread(target=watchdog_process.watch, args=(other, handles[0]))
    for handle in handles[1:3]:
        socket.send_fds(ours, [b"\n"], [handle])
    thread.start()
    workers[0].communicate(b"go on\n")
    assert workers[1].poll() is None
    host.kill()
    socket.send_fds(ours, [b"\n"], [handles[3]])
    thread.join(10)
    assert workers[1].wait(10) == -signal.SIGKILL
    ours.close()
    other.close()
    workers[2].communicate(b"go on\n")
    host.communicate()
    workers[1].communicate()
    for handle in handles:
        os.close(handle)


def _pid(session) -> int:
    return getattr(session, "worker_pid", None) or session._worker.pid
