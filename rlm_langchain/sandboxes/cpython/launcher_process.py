"""The process that starts workers. It runs as a separate program and imports nothing of ours.

The cost of a fork depends on the size of the forking process, and each page that it writes soon afterwards is
copied. A host with LangChain needed 16 ms per worker for that. This process is small, and has no secrets.

sandlock's supervisors run here, and print if a worker does something unusual. Nothing that a worker causes may
reach a terminal of the host or block until somebody reads it, so standard error is discarded once requests are
served. The host reads earlier errors, and errors of a request are sent as its answer (see `launcher.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import sys
from typing import Any

from sandlock import Process, Sandbox, StdioMode

PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24

CAPABILITY_VERSION = 0x20080522
"""Version of the kernel's capability structures: two times three words of 32 bits."""

MAX_CAPABILITIES = 64
"""More than any kernel has."""

DAC_READ_SEARCH = 1 << 2
"""CAP_DAC_READ_SEARCH: it may read Python's own files whoever owns them. Landlock decides which files."""


def main() -> None:
    """Serve the host at the other end of standard input, and end with it."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        return  # the host ended before `prctl` took effect
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each worker takes some
    host = socket.socket(fileno=os.dup(0))
    problem = drop_privileges(libc)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(nowhere, fd)
    os.close(nowhere)
    serve(host, problem)


def drop_privileges(libc: ctypes.CDLL) -> str | None:
    """Drop the privileges of root for this process and all workers. Return what went wrong, or None.

    Without CAP_SYS_ADMIN, Landlock needs `no_new_privs`, with which no program that a worker executes regains
    privileges. A worker first checks that Landlock confines it: `worker/confinement_check.py`. A program that
    might gain privileges all the same would get random addresses; that is why the bounding set is emptied, too.
    """
    header, words = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, words)
    kept = words[1] & DAC_READ_SEARCH
    for capability in range(MAX_CAPABILITIES):
        if not kept & 1 << capability:
            libc.prctl(PR_CAPBSET_DROP, capability)
    libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0))
    libc.capget(header, words)
    return None if list(words) == [kept, kept, 0, 0, 0, 0] else "the privileges of root could not be dropped"


def serve(host: socket.socket, problem: str | None) -> None:
    """Start workers on request until the host is gone, and wait for each to end. With `problem`, refuse with it."""
    with selectors.DefaultSelector() as selector, host, host.makefile("rb") as requests:
        selector.register(host, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    _end_session(key.fd, key.data)
                elif not (request := requests.readline()):
                    return
                elif problem:
                    _refuse(host, problem)
                else:
                    _answer(host, selector, json.loads(request))


def _answer(host: socket.socket, selector: selectors.BaseSelector, request: dict[str, Any]) -> None:
    """Start a worker. Send its process id, its three pipes and a handle, or what went wrong."""
    try:
        process = Sandbox(**request["policy"]).popen(request["command"], *[StdioMode.PIPED] * 3)
    except Exception as error:  # noqa: BLE001 - standard error is discarded, so the host gets the error
        _refuse(host, f"{type(error).__name__}: {error}" if not isinstance(error, RuntimeError) else str(error))
        return
    handle = os.pidfd_open(process.pid)
    selector.register(handle, selectors.EVENT_READ, process)
    limit(process.pid, request["limits"])
    with process.stdin, process.stdout, process.stderr:
        pipes = [stream.fileno() for stream in (process.stdin, process.stdout, process.stderr)]
        socket.send_fds(host, [json.dumps({"pid": process.pid}).encode() + b"\n"], [*pipes, handle])


def _refuse(host: socket.socket, why: str) -> None:
    host.sendall(json.dumps({"error": why}).encode() + b"\n")


def limit(pid: int, limits: dict[str, int]) -> None:
    """Set limits from outside, before any code of the program has arrived."""
    for name, most in limits.items():
        with contextlib.suppress(ProcessLookupError):  # it has ended already, which the host sees by its pipes
            resource.prlimit(pid, getattr(resource, name), (most, most))


def _end_session(handle: int, process: Process) -> None:
    process.wait()
    os.close(handle)


if __name__ == "__main__":
    main()
