"""The local server of this process: started on demand, ended with the process, restarted if it dies."""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rlm_langchain.errors import ModelError
from rlm_langchain.models.local.server_process import READY, ServerSettings


def _reserve_port() -> socket.socket:
    """Return a socket bound to a loopback port, which stays reserved while it is open. It never listens itself."""
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


@dataclass(slots=True, eq=False)
class LocalServer:
    """A child process that serves the model on a loopback port. The port stays reserved while it is not running."""

    weights: Path
    name: str
    window: int
    opening: tuple[tuple[str, str], ...]
    state_file: Path
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _port: socket.socket = field(default_factory=_reserve_port, repr=False)
    _child: _Child | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def url(self) -> str:
        """Return the address for requests. It is known before the server runs."""
        return f"http://127.0.0.1:{self._port.getsockname()[1]}/v1"

    def ready(self) -> Future[None]:
        """Return a future that is done when the server answers, and holds a `ModelError` if it cannot start.
        Starts the server if it is not running."""
        with self._lock:
            if self._child is None or self._child.ended():
                self._end()
                self._child = _Child.begin(self._settings())
            return self._child.ready

    def close(self) -> None:
        """Stop the server. Safe at any time, and twice; the next request starts it again."""
        with self._lock:
            self._end()

    def release(self) -> None:
        """Stop the server for good and release its port."""
        self.close()
        self._port.close()

    def forget(self) -> None:
        """Forget the server in a forked process, because it belongs to the parent."""
        self._lock = threading.Lock()
        if self._child is not None:
            self._child.stdin.close()
        self._child = None

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None

    def _settings(self) -> ServerSettings:
        self.state_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return ServerSettings(
            weights=str(self.weights),
            name=self.name,
            port=self._port.getsockname()[1],
            key=self.key,
            window=self.window,
            threads=_thread_count(),
            opening=[list(turn) for turn in self.opening],
            state_file=str(self.state_file),
        )


@dataclass(slots=True, eq=False)
class _Child:
    """One process of the server."""

    process: subprocess.Popen[str]
    stdin: IO[str]
    log: IO[bytes]
    ready: Future[None] = field(default_factory=Future)

    @classmethod
    def begin(cls, settings: ServerSettings) -> _Child:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child is ready or has failed
        process = subprocess.Popen(
            [sys.executable, "-m", "rlm_langchain.models.local.server_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            start_new_session=True,
        )
        if process.stdin is None:
            raise ModelError("the local model's process has no standard input")
        process.stdin.write(settings.line())
        process.stdin.flush()
        child = cls(process, process.stdin, log)
        # A daemon thread, so that neither a caller that gives up nor the end of this process waits for the model.
        threading.Thread(target=child._listen, name="rlm-local", daemon=True).start()
        return child

    def ended(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()

    def _listen(self) -> None:
        if self.process.stdout is None:
            return
        with self.process.stdout as said:
            line = said.readline().strip()
        if line == READY:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(ModelError(f"the local model does not start: {self._error_line()}"))
        self.log.close()

    def _error_line(self) -> str:
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()
        errors = [line.strip() for line in lines if " E " in line or "Error" in line]
        return errors[-1][:300] if errors else "it left no message"


def _thread_count() -> int:
    """Return `RLM_LOCAL_THREADS`, or the number of available processors up to 8. Beyond that, memory is the
    limit."""
    wanted = os.environ.get("RLM_LOCAL_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_servers: dict[Path, LocalServer] = {}
_lock = threading.Lock()


def shared_server(
    weights: Path, name: str, window: int, opening: tuple[tuple[str, str], ...], state_file: Path
) -> LocalServer:
    """Return the server of these weights in this process."""
    with _lock:
        if weights not in _servers:
            _servers[weights] = LocalServer(weights, name, window, opening, state_file)
        return _servers[weights]


@atexit.register
def close_all() -> None:
    """Stop every server of this process."""
    for server in _servers.values():
        server.release()


def _forget_all() -> None:
    for server in _servers.values():
        server.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
