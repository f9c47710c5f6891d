"""The default sandbox: all of Python, in a child process that the kernel confines.

Covered: files, network, processes, memory, time, output, inherited secrets, and every byte that comes back.
Not covered: what `policy.py` names, and what a program tells the models that it may ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.cpython import policy
from rlm_langchain.sandboxes.cpython.session import CPythonSession, EndedAtStart
from rlm_langchain.types import Completed, ContextFile, Limits

GUIDANCE = "Threads stand still while no cell runs and while models are asked: wait for them in the cell."
"""What is not as in every Python. At most 120 tokens."""


@dataclass(frozen=True, slots=True)
class CPythonSandbox:
    """Opens confined CPython workers. Needs Linux 6.12 or newer and no privileges."""

    name: str = "cpython"
    guidance: str = GUIDANCE

    def missing(self) -> str | None:
        """None when this machine can confine a worker fully, else one sentence with the way out."""
        return policy.missing() or _does_not_start()

    def protections(self) -> dict[str, str]:
        """What confines a worker, each with what enforces it."""
        return {"kernel": policy.kernel(), **policy.PROTECTIONS}

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> CPythonSession:
        """A fresh REPL. Raises `SandboxError`."""
        why = policy.missing()
        if why:
            raise SandboxError(why)
        try:
            return CPythonSession(context, prelude, limits, more or {})
        except EndedAtStart:  # who killed it once, for lack of memory say, need not do so again
            return CPythonSession(context, prelude, limits, more or {})


@cache
def _does_not_start() -> str | None:
    """What goes wrong when a worker is started, tried once."""
    try:
        session = CPythonSession(None, "", Limits(), {})
    except SandboxError as error:
        return f"{error}: use sandbox='monty'"
    step = session.run("1 + 1")
    session.close()
    return None if step == Completed("2\n") else f"the cpython sandbox does not work here ({step})"
