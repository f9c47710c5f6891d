"""Helpers for functions of the REPL that run in the host: tools, and functions of plug-ins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from langchain_core.tools import ToolException
from pydantic import ValidationError

from rlm_langchain.context.sanitize import clip
from rlm_langchain.errors import ForeignExit, ends_more_than_its_work, is_exit
from rlm_langchain.models.provider_words import log_failure
from rlm_langchain.run.event_loops import run_in_new_thread
from rlm_langchain.run.run_tree import RunTree

T = TypeVar("T")
MOST_TOLD = 4_000
"""Longest error message that the program and the journal get, in characters. A longer one is clipped."""


def definitions(kind: str, names: Iterable[str]) -> str:
    """Return the code that defines functions in the REPL. They send their arguments and receive the result as JSON.

    The code uses no name that a cell may have changed.
    """
    return "\n\n\n".join(
        f"def {name}(*args, **kwargs):\n"
        "    import json\n\n"
        f"    return json.loads(_host_call({kind!r}, [{name!r}, [*args], kwargs]))"
        for name in names
    )


class Failed(Exception):
    """Foreign code failed. The text is for the program, and follows the name of the tool or function."""


async def result_of(tree: RunTree, work: Awaitable[T]) -> T:
    """Return the result of a tool or a function. Raises its errors; `Failed` for one that would end the process."""
    try:
        return await work
    except BaseException as error:
        kind = error.raised if isinstance(error, ForeignExit) else type(error).__name__
        if not isinstance(error, ForeignExit) and not ends_more_than_its_work(error):
            raise
        tree.check_cancelled()
        raise Failed(f"failed: {kind}") from error


class exits_as_failures:  # noqa: N801 - a context manager: `contextlib` would lose a GeneratorExit
    """A context manager for foreign code. Raises `Failed` for an exception that would end the process."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        """Raise `Failed` for an exception that would end the process."""
        if error is not None and is_exit(error):
            raise Failed(f"failed: {type(error).__name__}") from error


async def in_own_thread(do: Callable[[], T]) -> T:
    """Run foreign code that blocks in a new thread. Raises `Failed` for an exit, which would end the event loop."""

    def work() -> T:
        with exits_as_failures():
            return do()

    return await run_in_new_thread(work)


def what_failed(error: Exception) -> str:
    """Log an error, and return a message for the program. It has only texts that cannot contain a key."""
    log_failure("a tool or a function of the REPL failed", error)
    return clip(_what_failed(error), MOST_TOLD)


def _what_failed(error: Exception) -> str:
    match error:
        case Failed():
            return str(error)
        case ToolException():
            return f"says: {error}"
        case ValidationError():
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            return f"was called wrongly: {faults}"
        case TimeoutError():
            return "was not done when the time of the run was over"
        case _:
            return f"failed: {type(error).__name__}"
