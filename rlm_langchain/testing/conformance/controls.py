"""Harmless programs without any sandbox, one for each check: proof that the check can fail."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlm_langchain.types import Completed, ContextFile, Limits, Reply, Step


@dataclass
class Unconfined:
    """No sandbox: it runs code in this very process. For the controls of this suite, and nothing else."""

    name: str = "unconfined"
    guidance: str = ""
    broken: list[bool] = field(default_factory=list)

    def missing(self) -> str | None:
        """It confines nothing."""
        return "this is no sandbox"

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> UnconfinedSession:
        """A namespace."""
        return UnconfinedSession({"llm_query": print, "broken": self.broken})


@dataclass
class UnconfinedSession:
    """A namespace in this process."""

    names: dict[str, object]

    def run(self, code: str) -> Step:
        """Run it here and now."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code if not self.names["broken"] else "", self.names)  # noqa: S102 - that is the point
        return Completed(output.getvalue())

    def resume(self, replies: Sequence[Reply]) -> Step:
        """It never waits."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to close."""


class Control(NamedTuple):
    """A harmless program, and what the judge must say about it."""

    code: str
    problem: str
    limits: Limits = Limits()


CONTROLS = {
    "a secret file": Control("print(open('{CANARY}/secret.txt').read())", "canary-file"),
    "a secret variable": Control("import os\nprint(os.environ['RLM_CANARY_KEY'])", "canary-key"),
    "a global of the host": Control(
        "import sys\nprint(sys.modules['rlm_langchain.testing.conformance.judge'].CANARY_HOST)", "canary-host"
    ),
    "an effect": Control("open('{CANARY}/PWNED', 'w').close()", "files were made"),
    "a connection": Control(
        "import socket\nsocket.create_connection(('127.0.0.1', 47811), 2).close()", "something connected"
    ),
    "overtime": Control(
        "import time\nend = time.monotonic() + 1.6\nwhile time.monotonic() < end:\n    pass",
        "a step took",
        Limits(seconds=0),
    ),
    "memory": Control("import sys\nsys.kept = bytearray(b'x' * (40 << 20))", "the host grew"),
    "a process": Control("import subprocess\nsubprocess.Popen(['sleep', '2'])", "processes were left"),
    "the next session": Control("broken.append(True)", "the next session"),
}
