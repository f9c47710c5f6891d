"""The command `rlm`, run in the process of the test."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from rlm_langchain.cli import run


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


class Command:
    """Runs `rlm` in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Done:
        self._capture.readouterr()
        code = run([str(argument) for argument in arguments])
        return Done(code, *self._capture.readouterr())
