"""What the clauses share: opening sessions, and playing the host to them."""
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
"""`open_session(context=None, prelude="", more=None, **limits)`: a session, closed when the test ends."""


def stored(value: str | list[Any] | dict[str, Any], folder: Path, name: str = "context") -> ContextFile:
    """The context as the machine would store it."""
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
    """A host that answers a prompt with itself."""
    return Reply(f"<{call.prompt}>")


def output(session: SandboxSession, code: str, answer: Callable[[Call], Reply] = echo) -> str:
    """What a cell prints. Fails when it does not simply complete."""
    step = finish(session, session.run(code), answer)
    assert isinstance(step, Completed), step
    assert step.error is None, step.error
    return step.stdout


def fault(session: SandboxSession, code: str, answer: Callable[[Call], Reply] = echo) -> str:
    """The error that a cell ends with. Fails when there is none, or the session died."""
    step = finish(session, session.run(code), answer)
    assert isinstance(step, Completed), step
    assert step.error, step
    return step.error


def answered(session: SandboxSession, code: str, answer: Callable[[Call], Reply] = echo) -> Any:
    """The value that a cell answers with."""
    step = finish(session, session.run(code), answer)
    assert isinstance(step, Answered), step
    return step.value


def is_stopped(step: Step, reason: str) -> bool:
    """Whether a limit ended the cell: with an error in a session that lives, or with its death."""
    return (isinstance(step, Completed) and bool(step.error)) or (isinstance(step, Died) and step.reason == reason)


class Clauses:
    """The fixtures of the suite."""

    lambdas: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    cpython: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits(seconds=10, memory=512 << 20)

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        """The sandbox under test."""
        raise NotImplementedError("give the subclass a `sandbox` fixture that returns your sandbox")

    @pytest.fixture
    def open_session(self, sandbox: Sandbox, tmp_path: Path) -> Iterator[Opener]:
        """Opens sessions, and closes them at the end."""
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
        """A session without a context."""
        return open_session()

    def needs(self, feature: str) -> None:
        """Skip the clause when the sandbox says that it does not have a feature."""
        if not getattr(self, feature):
            pytest.skip(f"this sandbox says {feature} = False")
