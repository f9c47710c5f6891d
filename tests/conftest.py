"""What every test may use."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A test says nothing of time: the machine may be busy.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Tests send Ctrl-C to programs of theirs. A shell has those that it runs in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let a report with a lone surrogate reach the terminal. xdist sends UTF-8, and would end the whole run."""
    return json.loads(json.dumps((yield), ensure_ascii=False).encode("utf-8", "replace"))


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test keeps its contexts in a folder of its own, and sees no key of the machine."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("RLM_HOME", str(folder))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENROUTER_API_KEY", "RLM_MODEL", "RLM_SUB_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(autouse=True)
def _sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Unit tests use no socket at all; the others reach loopback only."""
    from pytest_socket import disable_socket, enable_socket, socket_allow_hosts

    if "unit" in request.path.parts:
        disable_socket(allow_unix_socket=True)
    else:
        socket_allow_hosts(["127.0.0.1", "localhost", "::1"], allow_unix_socket=True)
    yield
    enable_socket()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of a run what its programs, texts and cells came to, in numbers."""
    from tests.terminal_summary import sections

    for title, lines in sections(terminalreporter.stats):
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
