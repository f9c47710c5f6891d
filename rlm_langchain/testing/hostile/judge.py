"""Runs one hostile program in a sandbox and reports everything that got out.

Secrets are placed where a program without a sandbox would find them: in a file, in the environment, in a global of
this module, behind a port, and in the objects of `belongings.py`. Call `judged` in a separate process that does
nothing else, because it inspects all children, all memory and the standard error of the process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypedDict

from rlm_langchain.protocols import Sandbox, SandboxSession
from rlm_langchain.testing.hostile.belongings import (
    PLACES,
    ErrorStream,
    belongings,
    changes,
    state,
)
from rlm_langchain.types import (
    Completed,
    Died,
    Limits,
    Reply,
    Step,
    Suspended,
)

CANARY_HOST = "no trap is set"

PORT = "47811"
"""The port in the network snippets of the corpus. It is replaced by a port of the trial."""

CALLS = 50
"""Number of calls that are answered; then the host stops."""

OVERTIME = 1.5
"""Seconds that a step may take beyond its limit."""

GROWTH = 32 << 20
"""Bytes by which the host's memory may grow in a step."""


class Snippet(TypedDict):
    """A program of the corpus. `{CANARY}` in its code is replaced by the folder with the secret file."""

    id: str
    category: str
    code: str


@dataclass(frozen=True, slots=True)
class Trap:
    """The secrets of one trial."""

    folder: Path
    words: tuple[str, ...]
    listener: socket.socket
    """A port that records connections."""

    def code(self, snippet: Snippet) -> str:
        """Return the program with its placeholders replaced by these secrets."""
        port = str(self.listener.getsockname()[1])
        return snippet["code"].replace("{CANARY}", str(self.folder)).replace(PORT, port)


@dataclass(frozen=True, slots=True)
class Trial:
    """Observations of one run of a snippet."""

    said: str
    """All text that the sandbox returned."""
    seconds: float
    """Duration of the longest step."""
    growth: int
    left: set[str]
    """Processes that did not exist before."""
    next_works: bool
    changed: tuple[str, ...]
    """Changes on the host, as sentences."""
    printed: bytes
    """Output on the standard error of the host."""


@contextlib.contextmanager
def trap() -> Iterator[Trap]:
    """Place all secrets for the duration of the block."""
    global CANARY_HOST  # noqa: PLW0603 - a global is what programs look for
    places = ("file", "key", "host", *PLACES)
    words = {place: f"canary-{place}-{secrets.token_hex(8)}" for place in places}
    with tempfile.TemporaryDirectory(prefix="canary") as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        Path(folder, "secret.txt").write_text(words["file"])
        os.environ["RLM_CANARY_KEY"] = words["key"]
        CANARY_HOST = words["host"]
        with belongings(Path(folder), words):
            yield Trap(Path(folder), tuple(words.values()), listener)


def judged(sandbox: Sandbox, snippet: Snippet, limits: Limits) -> tuple[str, ...]:
    """Return the problems with how a sandbox handles a snippet, as sentences. Empty if there is none."""
    with trap() as laid, _error_stream().taken():
        trial = _tried(sandbox, laid, snippet, limits)
        return tuple(_problems(trial, laid, limits))


def _problems(trial: Trial, laid: Trap, limits: Limits) -> Iterator[str]:
    for word in laid.words:
        if word in trial.said:
            yield f"the secret {word} got out"
    if effects := [path.name for path in laid.folder.glob("**/PWNED*")]:
        yield f"files were made on the host: {effects}"
    if _called(laid.listener):
        yield "something connected to a port of the host"
    if trial.seconds > limits.seconds + OVERTIME:
        yield f"a step took {trial.seconds:.2f} s with a limit of {limits.seconds:g} s"
    if trial.growth > GROWTH:
        yield f"the host grew by {trial.growth >> 20} MB in a step"
    if trial.left:
        yield f"processes were left behind: {sorted(trial.left)}"
    if not trial.next_works:
        yield "the next session does not work"
    yield from trial.changed
    if trial.printed:
        yield f"{len(trial.printed)} bytes were written to the standard error of the host: {trial.printed[-100:]!r}"


@cache
def _error_stream() -> ErrorStream:
    """Return the error stream of this process. Processes of earlier trials write to it as well."""
    return ErrorStream()


def _called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _tried(sandbox: Sandbox, laid: Trap, snippet: Snippet, limits: Limits) -> Trial:
    _warm(sandbox)
    code, before, host = laid.code(snippet), children(), state(laid.folder)
    session = sandbox.open(None, "", limits)
    size = _resident()
    said, seconds = _run_program(session, code)
    growth = _resident() - size
    session.close()
    left, changed = children() - before, tuple(changes(host, state(laid.folder)))
    works = _works(sandbox)
    return Trial(said, seconds, growth, left, works, changed, _error_stream().new())


def _warm(sandbox: Sandbox) -> None:
    """Start everything that a sandbox starts once and keeps, so that it does not count as left behind."""
    key = os.getpid(), sandbox.name
    if key not in _warmed or not children():
        sandbox.open(None, "", Limits()).close()
        _warmed.add(key)


_warmed: set[tuple[int, str]] = set()
"""The (process id, sandbox) pairs that are already started."""


def _run_program(session: SandboxSession, code: str) -> tuple[str, float]:
    """Run a program, answer its calls, and run another cell. Return all text, and the duration of the longest
    step."""
    step, longest = _timed(lambda: session.run(code))
    said = [*_texts(step)]
    for _ in range(CALLS):
        if not isinstance(step, Suspended):
            break
        replies = [Reply("ok")] * len(step.calls)
        step, seconds = _timed(partial(session.resume, replies))
        longest = max(longest, seconds)
        said += _texts(step)
    if not isinstance(step, Suspended):  # the next cell must end, whatever this one did to its REPL
        step, seconds = _timed(lambda: session.run("print('the next cell')"))
        longest = max(longest, seconds)
        said += _texts(step)
    return "\n".join(said), longest


def _timed(go_on: Callable[[], Step]) -> tuple[Step, float]:
    start = time.monotonic()
    return go_on(), time.monotonic() - start


def _texts(step: Any) -> Iterator[str]:
    """Yield all text in a step. It does not use `repr`, which a value from the worker could make fail."""
    match step:
        case str():
            yield step
        case list() | tuple():
            for item in step:
                yield from _texts(item)
        case dict():
            yield from _texts([*step.keys(), *step.values()])
        case Suspended(calls):
            for call in calls:
                yield from _texts([call.prompt, call.context])
        case Completed(stdout, error) | Died(_, stdout, error):
            yield from _texts([stdout, error])
        case _ if hasattr(step, "value"):
            yield from _texts([step.value, step.stdout, step.error])


def _works(sandbox: Sandbox) -> bool:
    session = sandbox.open(None, "", Limits())
    step = session.run("print(6 * 7)")
    session.close()
    return step == Completed("42\n")


def _resident() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def children(parent: str = "self") -> set[str]:
    """Return the running processes below this one, without those that have ended but are not reaped."""
    found: set[str] = set()
    with contextlib.suppress(OSError):  # of a process, or below of a thread, that has just ended
        for task in os.listdir(f"/proc/{parent}/task"):
            with contextlib.suppress(OSError):
                found.update(Path(f"/proc/{parent}/task/{task}/children").read_text().split())
    return {pid for pid in found if _runs(pid)}.union(*map(children, found))


def _runs(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
