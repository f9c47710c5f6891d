"""The whole plug-in contract. Implement one of these and publish it as an entry point; there is nothing to inherit.

Groups: `rlm_langchain.sandboxes`, `rlm_langchain.strategies`, `rlm_langchain.contexts`, `rlm_langchain.calls`; and
`rlm_langchain.providers`, whose plug-ins are values of `rlm_langchain.models.providers.Provider`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlm_langchain.types import ContextFile, Limits, Plain, Reply, Step
from rlm_langchain.validation import checked_arguments


class Sandbox(Protocol):
    """Opens confined REPLs. Their code computes and calls the host; it has no other access to the host."""

    name: str
    guidance: str
    """Instructions for the root model about this sandbox's Python; empty when all of Python is available."""

    def missing(self) -> str | None:
        """Return None when this computer can confine the sandbox fully, else what is missing and what to do."""

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> SandboxSession:
        """Open a fresh REPL: load `context` and the named ones in `more`, run `prelude`. Raises `SandboxError`."""


class SandboxSession(Protocol):
    """One REPL. `run` and `resume` block, and never raise for an error of the program."""

    def run(self, code: str) -> Step:
        """Run a cell until it ends or makes its first call."""

    def resume(self, replies: Sequence[Reply]) -> Step:
        """Continue a `Suspended` cell with its replies, one per call, in order."""

    def close(self) -> None:
        """Kill the worker. May be called twice, and from another thread: a blocked `run` then returns `Died`."""


@checked_arguments
@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to work on a context: instructions for the root model, and helper functions for its REPL."""

    name: str
    description: str
    """One line: when to use it."""
    guidance: str = field(repr=False)
    """Instructions for the root model: a few lines with a code example."""
    prelude: str = field(default="", repr=False)
    """Python that runs in the sandbox before the first cell and defines helpers."""
    whole: float = 0.0
    """Share of the root model's window (0 to 1). A context up to that size is put into the first prompt, and prose
    counts as an answer; for a longer context the strategy is left out. 0: never."""


class ContextSource(Protocol):
    """Makes a context from another kind of value: a path, a URL, an object."""

    def accepts(self, value: Any) -> bool:
        """Return whether `read` supports this value. Must be quick and never raise."""

    def read(self, value: Any) -> str | list[Any] | dict[str, Any]:
        """Return the context. Raises `InputError` that says what is wrong and what to do."""


@checked_arguments
@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function of the REPL that runs in the host: journaled, stored on disk, counted by `Budget.tool_calls`."""

    name: str
    signature: str
    """The parameters, written as between the parentheses of a `def`. The model reads them unchanged."""
    guidance: str = field(repr=False)
    """Instructions for the root model: what the function is for, what it returns, when it fails."""
    function: Callable[..., Plain | Awaitable[Plain]]
    """Takes and returns JSON values. Code sees the message of a `ToolException`; of other errors only the class."""
    usd: float = 0.0
    """Dollars of each call: reserved in the budget before it, booked after it, also when it fails."""
