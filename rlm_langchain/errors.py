"""Everything this library raises on purpose.

RLMError
├── ConfigurationError      how the RLM was set up
│   ├── UnknownPlugin       no plug-in of that name
│   └── MissingDependency   a package, a key or a kernel feature that is not there
├── InputError              what the RLM was asked: query, context, files
│   └── InvalidApproval     what a paused run was answered: neither a yes nor a no
├── ModelError              a provider does not answer, after retries
├── BudgetExhausted         a limit, for those who asked for `on_budget="raise"`
├── NoAnswer                a run without an answer, for those who asked for `on_failure="raise"`
├── SandboxError            a sandbox cannot start
├── JournalError            a checkpoint or a stored context is not what it was
└── ThreadBusy              another process works on this thread

A fault of the program that a model wrote is never one of these: it is a value, and goes back to the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class RLMError(Exception):
    """The base of all our errors. Its text says what is wrong and what to do."""


class ConfigurationError(RLMError):
    """The RLM cannot be built from these options."""


class UnknownPlugin(ConfigurationError):
    """No plug-in of this name is installed."""

    def __init__(self, group: str, name: str, known: Iterable[str]) -> None:
        self.group, self.name, self.known = group, name, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        kind = group.rpartition(".")[2]
        one = {
            "sandboxes": "sandbox",
            "strategies": "strategy",
            "contexts": "context",
            "providers": "provider",
        }.get(kind, kind)
        super().__init__(f"no {one} is called {name!r}; installed: {there}")


class MissingDependency(ConfigurationError):
    """Something that is needed is not installed or not set."""


class InputError(RLMError):
    """The question or the context cannot be used."""


class InvalidApproval(InputError):
    """A run that waits for an approval was given neither a yes nor a no. It goes on waiting."""


class ModelError(RLMError):
    """The root model does not answer, after retries."""


class BudgetExhausted(RLMError):
    """A limit of the budget was reached. `output` is what the run would have given back."""

    def __init__(self, output: Mapping[str, Any]) -> None:
        self.output = output
        super().__init__(
            f"the budget is used up ({output['stop_reason']}) after {output['iterations']} turns and "
            f"{output['sub_calls']} sub-calls; `output` holds the best answer so far"
        )


class NoAnswer(RLMError):
    """A run ended without an answer. `output` is what it would have given back."""

    def __init__(self, output: Mapping[str, Any]) -> None:
        self.output = output
        super().__init__(
            f"the run found no answer ({output['stop_reason']}) after {output['iterations']} turns and "
            f"{output['sub_calls']} sub-calls; `output['found']` holds what was seen last"
        )


class SandboxError(RLMError):
    """A sandbox cannot start, or this machine cannot confine one."""


class ThreadBusy(RLMError):
    """Another process works on this thread: two would both pay."""


class JournalError(RLMError):
    """A checkpoint or a stored context is missing, damaged or changed."""
