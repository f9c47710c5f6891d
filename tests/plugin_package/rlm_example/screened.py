"""A sandbox for those who trust models less: Monty, where a cell may import only what texts need, below a ceiling.

Covered: what Monty covers; a cell that imports anything that is not on the list does not run at all; no option
of a caller raises time, memory or output above the ceilings.
Not covered: what Monty does not cover. The list keeps a cell short of tools, it is no second wall: whoever breaks
Monty's interpreter has broken this one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rlm_langchain.protocols import Sandbox, SandboxSession
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.types import (
    Completed,
    ContextFile,
    Died,
    Limits,
    Reply,
    Step,
)

ALLOWED = frozenset(
    {"bisect", "collections", "csv", "dataclasses", "datetime", "decimal", "difflib", "functools", "heapq", "io"}
    | {"itertools", "json", "math", "operator", "pathlib", "random", "re", "statistics", "string", "textwrap"}
    | {"time", "typing", "unicodedata"}
)
CEILING = Limits(seconds=30, memory=1 << 30, output=1 << 20)


@dataclass(frozen=True, slots=True)
class ScreenedSandbox:
    """Monty, with fewer imports and lower limits."""

    name: str = "screened"
    inner: Sandbox = field(default_factory=MontySandbox)

    @property
    def guidance(self) -> str:
        """What Monty says of itself, and what there is to import."""
        return f"{self.inner.guidance} Only these modules can be imported: {', '.join(sorted(ALLOWED))}."

    def missing(self) -> str | None:
        """What Monty misses."""
        return self.inner.missing()

    def protections(self) -> dict[str, str]:
        """For `rlm doctor`."""
        inner: dict[str, str] = self.inner.protections()  # type: ignore[attr-defined]
        return {**inner, "imports": f"{len(ALLOWED)} modules; a cell with any other one does not run"}

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> ScreenedSession:
        """A fresh REPL. The prelude is the host's own, and is not screened."""
        lower = replace(
            limits,
            seconds=min(limits.seconds, CEILING.seconds),
            memory=min(limits.memory, CEILING.memory),
            output=min(limits.output, CEILING.output),
        )
        return ScreenedSession(self.inner.open(context, prelude, lower, more))


@dataclass(slots=True)
class ScreenedSession:
    """One REPL: each cell is looked at before it runs."""

    inner: SandboxSession
    closed: bool = False

    def run(self, code: str) -> Step:
        """Run a cell, or say what it may not import."""
        if self.closed:
            return Died("crash", "", "The session was closed.")
        if strange := sorted({*imported(code)} - ALLOWED):
            return Completed("", f"ImportError: {', '.join(strange)} cannot be imported here. No code was run.")
        return self.inner.run(code)

    def resume(self, replies: Sequence[Reply]) -> Step:
        """Give the replies that the cell waits for."""
        return self.inner.resume(replies)

    def close(self) -> None:
        """End it. Safe twice, and from any thread."""
        self.closed = True
        self.inner.close()


def imported(code: str) -> Iterator[str]:
    """The modules that a cell imports. One that does not parse imports nothing, and fails by itself."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
