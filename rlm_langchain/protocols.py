"""The plug-in contract, whole. Satisfy one of these and offer it by entry point; there is nothing to inherit.

Groups: `rlm_langchain.sandboxes`, `rlm_langchain.strategies`, `rlm_langchain.contexts`, `rlm_langchain.calls`; and
`rlm_langchain.providers`, whose plug-ins are values of `rlm_langchain.models.providers.Provider`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlm_langchain.types import ContextFile, Limits, Plain, Reply, Step


class Sandbox(Protocol):
    """Opens REPLs that are confined: they compute and ask, and reach nothing of the host."""

    name: str
    guidance: str
    """What a root model must know of this sandbox's Python; empty when it is all of Python."""

    def missing(self) -> str | None:
        """None when this machine can confine it fully, else what is missing and what to do."""

    def open(
        self,
        context: ContextFile | None,
        prelude: str,
        limits: Limits,
        more: Mapping[str, ContextFile] | None = None,
    ) -> SandboxSession:
        """A fresh REPL with `context` and `more` of them loaded, and `prelude` run. Raises `SandboxError`."""


class SandboxSession(Protocol):
    """One REPL. `run` and `resume` block and never raise for what the program does."""

    def run(self, code: str) -> Step:
        """Run a cell to its end or to its first call."""

    def resume(self, replies: Sequence[Reply]) -> Step:
        """Give the replies that a `Suspended` waits for, one per call, in order."""

    def close(self) -> None:
        """Kill the worker. Safe twice, and from another thread: a `run` that blocks then ends in `Died`."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to work on a context: words for the root model, and helpers for its REPL."""

    name: str
    description: str
    """One line: when to use it."""
    guidance: str
    """What the root model reads: a few lines with a code example."""
    prelude: str = ""
    """Python that runs in the sandbox before the first cell and defines helpers."""
    whole: float = 0.0
    """Up to this share of the root model's window, the context itself is in its first prompt, and words are an
    answer. The strategy is left out where the context is longer. 0: never."""


class ContextSource(Protocol):
    """Makes a context from something that is not one yet: a path, a URL, an object."""

    def accepts(self, value: Any) -> bool:
        """Whether `read` knows this kind of value. Must be quick and raise nothing."""

    def read(self, value: Any) -> str | list[Any] | dict[str, Any]:
        """The context. Raises `InputError` with what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function of the REPL that runs in the host: journaled, kept on disk, counted by `Budget.tool_calls`."""

    name: str
    signature: str
    """The arguments as Python writes them and the model reads them: `word: str, most: int = 10`."""
    guidance: str
    """What the root model reads of it: what it is for, what it returns, when it fails."""
    function: Callable[..., Plain | Awaitable[Plain]]
    """Takes and returns JSON values. A `ToolException` tells code why; of other errors it learns the class only."""
    usd: float = 0.0
    """Dollars of each call: reserved in the budget before it, booked after it, also when it fails."""
