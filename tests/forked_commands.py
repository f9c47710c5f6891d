"""Starts the command `rlm` in processes of its own, by a process that has imported everything and forks.

To import takes seconds, and a command takes one.

    python -m tests.forked_commands

reads a JSON list a line (environment, file for the output, arguments) and says the number of the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import gone

PATIENCE = 60
"""Seconds after which a command hangs, for certain."""
ENVIRONMENT = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "RLM_HOME")
"""What each command gets from the test that starts it."""


@dataclass
class RunningCommand:
    """A command at work."""

    pid: int
    log: Path
    """What it printed, and at the end its exit code."""

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to the command, and SIGKILL to all its processes."""
        (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)

    def code(self) -> int | None:
        """Wait for its end, and return the exit code. None: it was killed."""
        assert gone(self.pid, PATIENCE), self.log.read_text()
        last = self.log.with_suffix(".code")
        return int(last.read_text()) if last.exists() else None


@dataclass
class CommandServer:
    """The process that forks commands."""

    process: subprocess.Popen[str]
    folder: Path
    started: int = 0

    def rlm(self, *arguments: str | Path) -> RunningCommand:
        """Start a command."""
        self.started += 1
        log = self.folder / f"command-{self.started}.log"
        assert self.process.stdin
        assert self.process.stdout
        environment = {name: os.environ[name] for name in ENVIRONMENT}
        self.process.stdin.write(json.dumps([environment, str(log), *map(str, arguments)]) + "\n")
        self.process.stdin.flush()
        return RunningCommand(int(self.process.stdout.readline()), log)


@contextmanager
def command_server(folder: Path) -> Iterator[CommandServer]:
    """Start a process that forks commands, which write what they print into `folder`."""
    command = [sys.executable, "-m", "tests.forked_commands"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield CommandServer(process, folder)
        finally:
            process.stdin.close()


def serve() -> None:
    """Fork for every line, until there are no more."""
    import rlm_langchain.cli.app
    import rlm_langchain.cli.commands.batch  # noqa: F401
    from tests.durable.fork_server import warm

    warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    print("ready", flush=True)
    for line in sys.stdin:
        environment, log, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.update(environment)
            run_command(Path(log), arguments)
        print(child, flush=True)


def run_command(log: Path, arguments: list[str]) -> None:
    """Run a command in a forked process, and end the process."""
    from rlm_langchain.cli import run

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), out, out)):
        os.dup2(file, stream)
    code = 1
    try:
        asyncio.set_event_loop(None)
        code = run(arguments)
    except BaseException:  # noqa: BLE001 - the log says what
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        log.with_suffix(".code").write_text(str(code))
        os._exit(code)


if __name__ == "__main__":
    serve()
