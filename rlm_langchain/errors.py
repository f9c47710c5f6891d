"""The exceptions that this library raises.

RLMError
├── ConfigurationError      the options of the RLM are wrong
│   ├── UnknownPlugin       no plug-in of that name
│   └── MissingDependency   a package, a key or a kernel feature is missing
├── InputError              the input of a run is wrong: query, context, files
│   └── InvalidApproval     the answer to a paused run is neither a yes nor a no
├── ModelError              a model did not answer, after retries
├── BudgetExhausted         a limit was reached, with `on_budget="raise"`
├── NoAnswer                a run found no answer, with `on_failure="raise"`
├── ForeignExit             a callback, a model or a tool tried to end the process
├── SandboxError            a sandbox cannot start
├── JournalError            a checkpoint or a stored context is missing, damaged or changed
└── ThreadBusy              another process works on this thread

An error in the program that a model wrote is none of these: it is a value that goes back to the model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any


class RLMError(Exception):
    """Base of all errors of this library. The message says what is wrong and what to do."""


class ConfigurationError(RLMError):
    """The RLM cannot be built from these options."""


class UnknownPlugin(ConfigurationError):
    """No plug-in of this name is installed."""

    def __init__(self, group: str, name: str, known: Iterable[str], hint: str = "") -> None:
        from difflib import get_close_matches  # only now: `import rlm_langchain` is quick

        self.group, self.name, self.known = group, name, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        kind = group.rpartition(".")[2]
        one = {
            "sandboxes": "sandbox",
            "strategies": "strategy",
            "contexts": "context",
            "providers": "provider",
            "calls": "function",
            "arms": "arm",
            "families": "family",
            "suites": "suite",
        }.get(kind, kind)

        near = get_close_matches(name.lower(), self.known, 1) if isinstance(name, str) else []
        meant = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {one} is called {name!r}; installed: {there}{meant}{hint}")


class MissingDependency(ConfigurationError):
    """A package, a key or a kernel feature that is needed is not installed or not set."""


class InputError(RLMError):
    """The question or the context cannot be used."""


class InvalidApproval(InputError):
    """A run that waits for an approval was given neither a yes nor a no. It goes on waiting."""


class ModelError(RLMError):
    """The root model did not answer, after retries."""


class BudgetExhausted(RLMError):
    """A limit of the budget was reached. `output` is the result that the run would have returned."""

    def __init__(self, output: Mapping[str, Any]) -> None:
        self.output = output
        super().__init__(
            f"the budget is used up ({output['stop_reason']}) after {output['iterations']} turns and "
            f"{output['sub_calls']} sub-calls; `error.output` holds the best answer so far{_misfit(output)}"
        )


class NoAnswer(RLMError):
    """A run ended without an answer. `output` is the result that it would have returned."""

    def __init__(self, output: Mapping[str, Any]) -> None:
        self.output = output
        super().__init__(
            f"the run found no answer ({output['stop_reason']}) after {output['iterations']} turns and "
            f"{output['sub_calls']} sub-calls; `error.output['found']` holds the last output{_misfit(output)}"
        )


class SandboxError(RLMError):
    """A sandbox cannot start, or this computer cannot confine one."""


class ThreadBusy(RLMError):
    """Another process works on this thread. Two processes would both pay for the same calls."""


class ForeignExit(RLMError):
    """A callback, a model or a tool raised an exception that ends processes: `SystemExit`, `KeyboardInterrupt`."""

    def __init__(self, error: BaseException) -> None:
        self.raised = type(error).__name__
        super().__init__(
            f"a callback, a model or a tool raised {self.raised}, which would end the process. It has ended this "
            "run: raise another error there"
        )


class JournalError(RLMError):
    """A checkpoint or a stored context is missing, damaged or changed."""


def _misfit(output: Mapping[str, Any]) -> str:
    """Return a sentence with the reason why the last answer was refused; empty if there was none."""
    return f". The last answer does not fit the schema: {output['misfit']}" if output.get("misfit") else ""


def is_exit(error: BaseException) -> bool:
    """Return whether foreign code raised this to end the process, such as `SystemExit` or `KeyboardInterrupt`.

    False for a cancellation and for Ctrl-C, which Python raises in whatever code the main thread is running.
    """
    import asyncio
    import signal

    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return not isinstance(error, Exception | asyncio.CancelledError)


def ends_more_than_its_work(error: BaseException) -> bool:
    """Return whether foreign code in a task raised this to end a process, or as if its task were cancelled."""
    import asyncio

    if type(error) is asyncio.CancelledError:
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return is_exit(error)
