"""The default sandbox: all of Python, in a child process that the kernel confines.

Covered: files, network, processes, memory, time, output, inherited secrets, and every byte that comes back. Not
covered: what `policy.py` lists, and what a program sends to the models that it calls.
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
"""How this sandbox differs from ordinary Python. At most 120 tokens."""


@dataclass(frozen=True, slots=True)
class CPythonSandbox:
    """Opens confined CPython workers. Needs Linux 6.12 or newer and no privileges."""

    name: str = "cpython"
    guidance: str = GUIDANCE

    def missing(self) -> str | None:
        """Return None if this machine can confine a worker fully, else one sentence that says what to do."""
        return policy.missing() or _does_not_start()

    def protections(self) -> dict[str, str]:
        """Return the protections of a worker, each with what enforces it."""
        return {"kernel": policy.kernel(), **policy.PROTECTIONS}

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> CPythonSession:
        """Return a fresh REPL. Raises `SandboxError`."""
        why = policy.missing()
        if why:
            raise SandboxError(why)
        try:
            return CPythonSession(context, prelude, limits, more or {})
        except EndedAtStart:  # it may have been killed once from outside, for lack of memory for example
            return CPythonSession(context, prelude, limits, more or {})


@cache
def _does_not_start() -> str | None:
    """Try once to start a worker. Return what goes wrong, or None."""
    try:
        session = CPythonSession(None, "", Limits(), {})
    except SandboxError as error:
        return f"{error}: use sandbox='monty'"
    step = session.run("1 + 1")
    session.close()
    return None if step == Completed("2\n") else f"the cpython sandbox does not work here ({step})"
