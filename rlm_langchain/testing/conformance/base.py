"""Helpers of the suite: they open sessions, and answer calls in place of the host."""
# ruff: noqa: S101 - pytest

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rlm_langchain.protocols import Sandbox, SandboxSession
from rlm_langchain.types import (
    Answered,
    Call,
    Completed,
    ContextFile,
    Died,
    Limits,
    Reply,
    Step,
    Suspended,
)

Opener = Callable[..., SandboxSession]
"""`open_session(context=None, prelude="", more=None, **limits)`: opens a session that is closed when the test
ends."""


def stored(value: str | list[Any] | dict[str, Any], folder: Path, name: str = "context") -> ContextFile:
    """Store a context as the library would store it."""
    kind = "text" if isinstance(value, str) else "json"
    path = folder / f"{name}.{kind}"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8", newline="")
    return ContextFile(path, kind, len(value), path.stat().st_size)  # type: ignore[arg-type]


def finish(session: SandboxSession, step: Step, answer: Callable[[Call], Reply]) -> Step:
    """Answer every call of a cell until it ends."""
    while isinstance(step, Suspended):
        step = session.resume([answer(call) for call in step.calls])
    return step


def echo(call: Call) -> Reply:
    """Reply to a prompt with the prompt in angle brackets."""
    return Reply(f"<{call.prompt}>")


def output(session: SandboxSession, code: str, answer: Callable[[Call], Reply] = echo) -> str:
    """Return what a cell prints. Fails unless the cell simply completes."""
    step = finish(session, session.run(code), answer)
    assert isinstance(step, Completed), step
    assert step.error is None, step.error
    return step.stdout


def fault(session: SandboxSession, code: str, answer: Callable[[Call], Reply] = echo) -> str:
    """Return the error that a cell ends with. Fails if there is none, or if the session died."""
    step = finish(session, session.run(code), answer)
    assert isinstance(step, Completed), step
    assert step.error, step
    return step.error


def answered(session: SandboxSession, code: str, answer: Callable[[Call], Reply] = echo) -> Any:
    """Return the value that a cell answers with."""
    step = finish(session, session.run(code), answer)
    assert isinstance(step, Answered), step
    return step.value


def is_stopped(step: Step, reason: str) -> bool:
    """Return whether a limit ended the cell, with an error in a live session or with the death of the session."""
    return (isinstance(step, Completed) and bool(step.error)) or (isinstance(step, Died) and step.reason == reason)


class Clauses:
    """The fixtures of the suite."""

    lambdas: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    cpython: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits(seconds=10, memory=512 << 20)

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        """Return the sandbox under test."""
        raise NotImplementedError("give the subclass a `sandbox` fixture that returns your sandbox")

    @pytest.fixture
    def open_session(self, sandbox: Sandbox, tmp_path: Path) -> Iterator[Opener]:
        """Yield a function that opens sessions. They are closed at the end."""
        sessions: list[SandboxSession] = []

        def opener(context: Any = None, prelude: str = "", more: Any = None, **limits: Any) -> SandboxSession:
            file = None if context is None else stored(context, tmp_path)
            files = more and {name: stored(value, tmp_path, name) for name, value in more.items()}
            sessions.append(
                sandbox.open(file, prelude, replace(self.limits, **limits), *([files] if files else []))
            )
            return sessions[-1]

        yield opener
        for session in sessions:
            session.close()

    @pytest.fixture
    def session(self, open_session: Opener) -> SandboxSession:
        """Return a session without a context."""
        return open_session()

    def needs(self, feature: str) -> None:
        """Skip the test if the sandbox says that it lacks this feature."""
        if not getattr(self, feature):
            pytest.skip(f"this sandbox says {feature} = False")
