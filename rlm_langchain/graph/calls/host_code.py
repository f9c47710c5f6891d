"""What functions of the REPL that run in the host have in common: tools, and functions of plug-ins."""

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
"""Characters of what an error says that the program and the journal are given; how many there were is said."""


def definitions(kind: str, names: Iterable[str]) -> str:
    """Return the code that defines functions in the REPL: arguments go out as JSON, the result comes back as JSON.

    It uses no name that a cell may have changed.
    """
    return "\n\n\n".join(
        f"def {name}(*args, **kwargs):\n"
        "    import json\n\n"
        f"    return json.loads(_host_call({kind!r}, [{name!r}, [*args], kwargs]))"
        for name in names
    )


class Failed(Exception):
    """Foreign code failed. The text is what the program may know of it, as the end of a sentence about it."""


async def result_of(tree: RunTree, work: Awaitable[T]) -> T:
    """Return the result of a tool or a function. Raises what that raises; `Failed` where it would end a process."""
    try:
        return await work
    except BaseException as error:
        kind = error.raised if isinstance(error, ForeignExit) else type(error).__name__
        if not isinstance(error, ForeignExit) and not ends_more_than_its_work(error):
            raise
        tree.check_cancelled()
        raise Failed(f"failed: {kind}") from error


class exits_as_failures:  # noqa: N801 - a context manager: `contextlib` would lose a GeneratorExit
    """Around foreign code: raises `Failed` where it would end a process."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        """Raise `Failed` for an exit."""
        if error is not None and is_exit(error):
            raise Failed(f"failed: {type(error).__name__}") from error


async def in_own_thread(do: Callable[[], T]) -> T:
    """Return the result of foreign code that blocks. An exit is a failure there: none may get to an event loop."""

    def work() -> T:
        with exits_as_failures():
            return do()

    return await run_in_new_thread(work)


def what_failed(error: Exception) -> str:
    """Return what the program may know of a failure, clipped: a foreign error's text could hold a key. It is
    logged."""
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
