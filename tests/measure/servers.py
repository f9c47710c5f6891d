"""The scripted server of the tests in a process of its own: what is measured then is the client alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen


@contextmanager
def scripted(code: str, then: str = "FINAL('no more')", latency: float = 0.0) -> Iterator[str]:
    """The URL of a server whose root model writes `code`, then `then`; it echoes sub-calls."""
    command = [sys.executable, "-m", "tests.servers.scripted", "--script", "rlm", "--latency", str(latency)]
    with subprocess.Popen([*command, "--code", code, "--then", then], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def told(url: str, what: str) -> Any:
    """`stats`: the server's counters. `requests`: the body and state of every request."""
    with urlopen(f"{url.removesuffix('/v1')}/{what}") as reply:
        return json.load(reply)
