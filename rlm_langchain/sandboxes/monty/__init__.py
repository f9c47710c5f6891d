"""The `monty` sandbox: runs cells in Monty, an interpreter of a subset of Python without access to anything
outside.

Covered: files, network, processes and the environment do not exist for a cell; clock and randomness are fixed;
time, memory and output are limited, and a worker that exceeds a limit is killed; no worker serves two sessions.

Not covered: Monty's interpreter is the only barrier, so a fault in its native code would be a hole (on Linux,
`cpython` has the kernel's rules instead). A cell that calls an unknown function with a huge value, or raises an
error with a huge text, makes the host hold a copy or two for a moment, of at most what `Limits.memory` allows
the cell. If the host and its watchdog (`watchdog.py`) are killed together, a worker that is computing ends
within the time limit of its cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlm_langchain.context.opening import read_context
from rlm_langchain.errors import SandboxError
from rlm_langchain.sandboxes.monty.prelude_loader import session_prelude
from rlm_langchain.sandboxes.monty.process import Worker, binary
from rlm_langchain.sandboxes.monty.session import MontySession
from rlm_langchain.types import ContextFile, Limits

__all__ = ["MontySandbox"]

GUIDANCE = (
    "This REPL runs a subset of Python. Not there: class inheritance (raise ValueError, no exception class of "
    "your own), @property, __len__ and `<` of your own classes, `yield`, "
    "threads, files, packages; of the standard library only re, json, csv, math, datetime, collections, "
    "itertools, functools, statistics, heapq, string, textwrap, random and a few more. Ask models in "
    "loops, comprehensions or with llm_query_batched. Generator expressions and map run to their end at once."
)
"""How this sandbox differs from ordinary Python. At most 120 tokens."""


PROTECTIONS = {
    "files": "there are none for a cell; the worker may write no file and open few (rlimits)",
    "network": "there is none for a cell",
    "processes": "there are none for a cell; each session has a worker of its own, which ends with it or the host",
    "memory": "counted by the interpreter, which ends the session",
    "time": "two limits of the interpreter, and the host's wall clock",
    "output": "counted by the host as it comes",
    "secrets": "an empty environment",
    "not covered": "the interpreter is the one wall: no rules of the kernel stand behind it",
}
"""The protections of a cell, each with what enforces it, for `rlm doctor`."""

_JSON = "_rlm_json_"
"""Name of a context's JSON before it is parsed."""


@dataclass(frozen=True, slots=True)
class MontySandbox:
    """The `monty` sandbox: every platform, a subset of Python, 4 ms to start."""

    name: str = "monty"
    guidance: str = GUIDANCE

    def missing(self) -> str | None:
        """Return None if Monty is installed, else what to install."""
        if binary() is None:
            return "the monty program is not installed: pip install 'pydantic-monty>=1.4,<1.5'"
        return None

    def protections(self) -> dict[str, str]:
        """Return the protections of a cell, each with what enforces it."""
        return PROTECTIONS

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> MontySession:
        """Return a fresh REPL with `context` and `more` loaded, and `prelude` run. Raises `SandboxError`."""
        if (missing := self.missing()) is not None:
            raise SandboxError(missing)
        contexts = {**({"context": context} if context else {}), **(more or {})}
        inputs = _inputs(contexts, limits)
        started = Worker(limits)
        session = MontySession(started, limits)
        try:
            _set_up(started, inputs)
            session.prepare(prelude, [*contexts] or ["context"])
        except BaseException:
            session.close()
            raise
        return session


def _inputs(contexts: Mapping[str, ContextFile], limits: Limits) -> dict[str, Any]:
    """Return the texts of the contexts for the REPL. JSON is parsed in the sandbox, not in the host."""
    size = sum(file.size for file in contexts.values())
    if size > limits.loaded:
        raise SandboxError(
            f"the context has {size:,} bytes, and the monty sandbox holds at most {limits.loaded:,} in "
            "memory; use sandbox='cpython', which reads longer ones from disk, or raise Limits.loaded and .memory"
        )
    texts = {
        name if file.kind == "text" else f"{_JSON}{name}": read_context(file).decode("utf-8", "replace")
        for name, file in contexts.items()
    }
    return {"context": None, **texts, "__rlm_most__": limits.value}


def _set_up(started: Worker, inputs: dict[str, Any]) -> None:
    """Load the context and the vocabulary."""
    from pydantic_monty import MontyError

    unread = [name for name in inputs if name.startswith(_JSON)]
    parse = [f"{name.removeprefix(_JSON)}, {name} = json.loads({name}), None" for name in unread]
    lines = ["import json", *parse, "json = None", ""] if parse else []
    try:
        started.start("\n".join(lines) + session_prelude(), _ignored, **inputs)
    except MontyError as error:
        raise SandboxError(f"the monty sandbox cannot hold this context: {str(error)[:200]}") from error


def _ignored(stream: str, text: str) -> None:
    """Discard output of the library itself."""
