"""Between LangGraph and its saver: what goes wrong there is an error of ours, that says what to do.

Savers raise whatever their database, driver or serialiser raises. A copy of the saver takes its place in the
graph, of a class that is the saver's own with every method translated: it shares the saver's connection, and is
one to whoever asks.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from rlm_langchain.errors import ConfigurationError, JournalError, RLMError

READS = ("get_tuple", "aget_tuple", "get_delta_channel_history", "aget_delta_channel_history")
LISTS = ("list", "alist")
WRITES = ("put", "aput", "put_writes", "aput_writes")


def guarded(saver: Any) -> Any:
    """A copy of a saver that raises our errors; what is no saver, as it is."""
    if saver is None or isinstance(saver, bool):
        return saver
    twin = copy.copy(saver)
    twin.__class__ = _guarded_class(saver.__class__)
    return twin


@cache
def _guarded_class(kind: Any) -> Any:
    makers = dict.fromkeys(READS, _method) | dict.fromkeys(WRITES, _method) | dict.fromkeys(LISTS, _listing)
    methods = {name: make(getattr(kind, name)) for name, make in makers.items() if hasattr(kind, name)}
    return type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__, "__doc__": kind.__doc__})


def _method(method: Callable[..., Any]) -> Callable[..., Any]:
    what = "written" if "put" in method.__name__ else "read"

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with translated(what):
            return method(*args, **kwargs)

    @wraps(method)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        with translated(what):
            return await method(*args, **kwargs)

    return acall if inspect.iscoroutinefunction(method) else call


def _listing(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with translated("read"):
            yield from method(*args, **kwargs)

    @wraps(method)
    async def acall(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with translated("read"):
            async for found in method(*args, **kwargs):
                yield found

    return acall if inspect.isasyncgenfunction(method) else call


@contextmanager
def translated(what: str) -> Iterator[None]:
    """A foreign error as one of ours. `what` was to be done: `read` or `written`."""
    try:
        yield
    except RLMError:
        raise
    except (NotImplementedError, asyncio.InvalidStateError) as error:
        raise ConfigurationError(
            f"this saver cannot be used here ({type(error).__name__}): `invoke` needs a saver with sync methods, "
            "`ainvoke` one with async methods, AsyncSqliteSaver for example"
        ) from error
    except Exception as error:
        raise JournalError(_sentence(what, error)) from error


def _sentence(what: str, error: Exception) -> str:
    kind = type(error).__name__
    if what == "written":
        return (
            f"a checkpoint cannot be written ({kind}): see that the saver's database can be reached and has room, "
            "then resume the run; nothing that was paid is lost"
        )
    return (
        f"a checkpoint cannot be read ({kind}): the saver's database cannot be reached, or is damaged; see to it, "
        "go back to an earlier checkpoint, or ask again on a new thread"
    )
