"""What starts the workers: one process for each host, which may end at any time, and holds nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the cpython sandbox needs Linux", allow_module_level=True)

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.cpython import launcher, launcher_process, policy
from rlm_langchain.sandboxes.cpython.launcher import Launcher, start_worker
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.types import Completed, Died, Limits
from tests.processes import alive, descendants, gone

REQUEST = {
    "policy": policy.policy([]),
    "command": [policy.python(), "-S", "-c", "print(input())"],
    "limits": policy.limits(100 << 20),
}

NONSENSE = {**policy.policy([]), "extra_deny_syscalls": ["no such call"]}


@pytest.fixture
def starter():
    starter = Launcher()
    yield starter
    starter.close()


def said(worker) -> bytes:
    os.write(worker.stdin, b"hello\n")
    return os.read(worker.stdout, 100)


def test_a_worker_is_started_and_ends(starter):
    worker = starter.start(REQUEST)
    assert said(worker) == b"hello\n"
    assert alive(starter._process.pid)
    worker.close(10)
    worker.close(10)
    worker.kill()
    assert not alive(worker.pid)


def test_when_it_is_killed_its_workers_die_and_another_takes_its_place(starter):
    worker = starter.start(REQUEST)
    first = starter._process.pid
    os.kill(first, signal.SIGKILL)
    assert gone(worker.pid)
    another = starter.start(REQUEST)
    assert said(another) == b"hello\n"
    assert starter._process.pid != first
    worker.close(10)
    another.close(10)


def test_a_session_whose_starter_is_killed_is_dead_and_the_next_is_fine():
    sandbox = CPythonSandbox()
    session = sandbox.open(None, "", Limits())
    assert session.run("print(1)") == Completed("1\n")
    [host] = [pid for pid in descendants() if session._worker.pid in descendants(pid)]
    os.kill(host, signal.SIGKILL)
    assert gone(session._worker.pid)
    assert isinstance(session.run("print(2)"), Died)
    session.close()
    session = sandbox.open(None, "", Limits())
    assert session.run("print(3)") == Completed("3\n")
    session.close()


def test_closing_ends_it_and_its_workers(starter):
    worker = starter.start(REQUEST)
    process = starter._process.pid
    starter.close()
    assert gone(process)
    assert gone(worker.pid)
    worker.close(10)


def test_the_dead_are_buried(starter):
    for _ in range(5):
        starter.start(REQUEST).close(10)
    starter.start(REQUEST).close(10)
    below = Path(f"/proc/{starter._process.pid}/task")
    while any(task.read_text() for task in below.glob(f"{starter._process.pid}/children")):
        os.sched_yield()


def links(descriptors: Path) -> Iterator[str]:
    """What the descriptors of a process are open on. It may close some of them meanwhile."""
    for descriptor in descriptors.iterdir():
        with suppress(FileNotFoundError):
            yield os.readlink(descriptor)


def test_it_holds_no_secret_and_no_descriptor_of_its_host(starter, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        worker = starter.start(REQUEST)
        process = Path(f"/proc/{starter._process.pid}")
        assert (process / "environ").read_bytes() == b""
        assert str(tmp_path / "secret") not in set(links(process / "fd"))
    worker.close(10)


def test_many_threads_may_start_workers_at_once(starter):
    with ThreadPoolExecutor(16) as pool:
        workers = list(pool.map(lambda _: starter.start(REQUEST), range(16)))
        assert list(pool.map(said, workers)) == [b"hello\n"] * 16
        list(pool.map(lambda worker: worker.close(10), workers))


def test_a_host_that_was_forked_starts_its_own():
    code = """
import os
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.types import Limits
sandbox = CPythonSandbox()
session = sandbox.open(None, "", Limits())
if os.fork() == 0:
    session = sandbox.open(None, "", Limits())
    print(session.run("print('child')").stdout, flush=True)
    session.close()
    os._exit(0)
os.wait()
print(session.run("print('parent')").stdout)
session.close()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["child", "parent"], "")


def test_it_lives_as_long_as_its_host_not_as_the_thread_that_used_it_first(starter):
    workers = []
    thread = threading.Thread(target=lambda: workers.append(starter.start(REQUEST)))
    thread.start()
    thread.join()
    assert said(workers[0]) == b"hello\n"
    workers[0].close(10)


def test_what_cannot_be_started_is_said(starter):
    with pytest.raises(SandboxError, match=r"no sandbox could be started: .+ may this user start processes"):
        starter.start({**REQUEST, "policy": NONSENSE})
    starter.start(REQUEST).close(10)


def test_what_cannot_even_start_the_starter_is_said(starter, monkeypatch):
    monkeypatch.setattr(policy, "python", lambda: "/nowhere/python")
    with pytest.raises(SandboxError, match=r"/nowhere/python"):
        starter.start(REQUEST)


def test_it_serves_until_its_host_is_gone():
    """The loop itself, in this process: requests, answers, burials and the end."""
    host, other = socket.socketpair()
    thread = threading.Thread(target=launcher_process.serve, args=(other, None))
    thread.start()
    host.sendall(json.dumps(REQUEST).encode() + b"\n")
    line, fds, _, _ = socket.recv_fds(host, 65536, 4)
    pid = json.loads(line)["pid"]
    os.write(fds[0], b"hello\n")
    assert os.read(fds[1], 100) == b"hello\n"
    assert gone(pid)
    host.sendall(json.dumps({**REQUEST, "policy": NONSENSE}).encode() + b"\n")
    assert "error" in json.loads(host.recv(65536))
    host.close()
    thread.join(10)
    assert not thread.is_alive()
    for fd in fds:
        os.close(fd)


# --- Standard error -----------------------------------------------------------------------------------

NOISE = """
import socket, struct
question = struct.pack("=IHHII", 36, 18, 0x301, 1, 0) + bytes(20)
for _ in range(500):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as asked:
        asked.send(question)
print("done")
"""
"""Asks what sandlock's supervisor answers, and is gone before the answer: the supervisor prints that it failed."""

NOISY = {**REQUEST, "command": [policy.python(), "-I", "-S", "-c", NOISE]}

HOST = """
import json, os, sys
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.sandboxes.cpython.launcher import Launcher
from rlm_langchain.types import Limits
noise, request = json.load(sys.stdin)
starter = Launcher()
for _ in range(2):
    worker = starter.start(request)
    print(os.read(worker.stdout, 10))
    worker.close(10)
starter.close()
for cell in (noise, "print(6 * 7)"):
    session = CPythonSandbox().open(None, "", Limits(seconds=5))
    print(session.run(cell))
    session.close()
"""


def test_the_supervisor_prints_when_it_may():
    """That the attempt of the next test is one."""
    code = (
        "import json, sys\nfrom sandlock import Sandbox, StdioMode\nrequest = json.load(sys.stdin)\n"
        "with Sandbox(**request['policy']).popen(request['command'], StdioMode.NULL) as process: process.wait()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(NOISY).encode(), capture_output=True, check=True
    )
    assert b"sandlock netlink responder error" in done.stderr


def test_no_worker_makes_anything_print_or_wait_for_a_standard_error_that_nobody_reads():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    full = 0
    try:
        while True:
            full += os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)  # the description is shared: for the host it blocks, as pipes do
    given = json.dumps([NOISE, NOISY]).encode()
    done = subprocess.run(
        [sys.executable, "-c", HOST], input=given, stdout=subprocess.PIPE, stderr=writer, timeout=60, check=True
    )
    os.close(writer)
    lines = done.stdout.decode().splitlines()
    assert lines[:2] == [repr(b"done\n")] * 2, "under sandlock alone: the supervisor had something to print"
    assert "PermissionError" in lines[2], "with the allow list as well: it is not even asked"
    assert lines[3] == repr(Completed("42\n"))
    with open(reader, "rb") as pipe:
        assert len(pipe.read()) == full


def test_a_starter_that_cannot_begin_is_said_with_its_own_words_and_not_on_standard_error(
    starter, monkeypatch, capfd
):
    monkeypatch.setattr(launcher, "PROGRAM", "import sys; raise ImportError('no such library here')")
    with pytest.raises(SandboxError, match="no such library here"):
        starter.start(REQUEST)
    assert capfd.readouterr().err == ""


def test_a_starter_that_hangs_is_killed(starter, monkeypatch):
    starter.start(REQUEST).close(10)
    process = starter._process.pid
    os.kill(process, signal.SIGSTOP)
    monkeypatch.setattr(launcher, "END_SECONDS", 0.1)
    starter._host.settimeout(0.1)
    with pytest.raises(SandboxError, match="no sandbox could be started: timed out"):
        starter.start(REQUEST)
    assert gone(process)
    starter.start(REQUEST).close(10)


@pytest.mark.parametrize("change", [{"no_such_field": 1}, {"env": 1}, {"max_processes": "many"}])
def test_whatever_goes_wrong_in_a_request_is_said(starter, change):
    with pytest.raises(SandboxError, match=r"no sandbox could be started: .*Error"):
        starter.start({**REQUEST, "policy": {**REQUEST["policy"], **change}})
    starter.start(REQUEST).close(10)


class Stubborn:
    """A C library on a kernel that lets nobody give up a power."""

    def capget(self, header, words):
        words[:] = [0xFFFFFFFF] * 6

    def capset(self, header, words):
        return -1

    def prctl(self, option, power):
        return -1


def test_a_starter_that_keeps_the_powers_of_root_starts_nothing():
    problem = launcher_process.drop_privileges(Stubborn())
    assert problem == "the privileges of root could not be dropped"
    host, other = socket.socketpair()
    thread = threading.Thread(target=launcher_process.serve, args=(other, problem))
    thread.start()
    with host:
        host.sendall(json.dumps(REQUEST).encode() + b"\n")
        assert json.loads(host.recv(65536)) == {"error": problem}
    thread.join(10)
    assert not thread.is_alive()


def test_a_request_of_any_size_is_taken(tmp_path):
    paths = []
    for n in range(2000):
        path = tmp_path / f"{'x' * 100}{n}"
        path.touch()
        paths.append(path)
    worker = start_worker(paths, Limits().memory)
    worker.close(10)
