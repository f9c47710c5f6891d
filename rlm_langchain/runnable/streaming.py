"""Streams of a run: those of its graph, inside the scope that a run needs."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, cast, get_args
from weakref import ref

from langgraph.types import StreamMode

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.run.cancellation import stream_supervised
from rlm_langchain.run.event_loops import close_at_exit, iterate_interruptible
from rlm_langchain.runnable.contract import Runs
from rlm_langchain.runnable.run_scope import invocation_of

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from rlm_langchain.runnable.run_scope import LangChainInput

MODES = get_args(StreamMode)
EVENTFUL = {"stream_mode", "subgraphs"}
"""Options that make `stream` yield more than the output."""


def parts(
    rlm: Runs, asked: LangChainInput, config: RunnableConfig | None, options: dict[str, Any]
) -> Iterator[Any]:
    """Yield the parts of a sync stream. A stream that is left open is closed at the latest when the process
    ends."""

    _check(options)

    def stream() -> Generator[Any]:
        built, settings = rlm.built, rlm.settings(config, threads=True)
        invocation = invocation_of(settings)
        with built.run_scope(asked, settings) as (state, _):
            stream = built.graph.stream(state, settings, **built.options(options, settings))
            yield from iterate_interruptible(stream, invocation.cancel, invocation.context(), leave)

    def leave() -> None:
        if (left := opened()) is not None:
            with suppress(ValueError):  # somebody asks it for a part at this moment
                left.close()

    found = close_at_exit(stream())
    opened = ref(found)
    return found


async def aparts(
    rlm: Runs, asked: LangChainInput, config: RunnableConfig | None, options: dict[str, Any]
) -> AsyncGenerator[Any]:
    """Do what `parts` does, on this event loop."""
    _check(options)
    built = await asyncio.to_thread(lambda: rlm.built)
    settings = rlm.settings(config)

    async def stream() -> AsyncGenerator[Any]:
        async with built.arun_scope(asked, settings) as (state, _):
            found = built.graph.astream(state, settings, **built.options(options, settings))
            async with aclosing(cast(AsyncGenerator[Any], found)) as parts:
                async for part in parts:
                    yield part

    async with aclosing(stream_supervised(invocation_of(settings), stream())) as parts:
        async for part in parts:
            yield part


def _check(options: dict[str, Any]) -> None:
    """Raise `ConfigurationError` for an unknown stream mode. LangGraph would stream nothing."""
    modes = options.get("stream_mode") or ()
    strange = [mode for mode in ([modes] if isinstance(modes, str) else modes) if mode not in MODES]
    if strange:
        raise ConfigurationError(f"there is no stream mode {strange[0]!r}; there are {', '.join(MODES)}")


def streaming(rlm: Runs) -> Any:
    """Return the graph with our `stream`, from which LangGraph makes its typed streams."""
    graph: Any = copy.copy(rlm.graph)
    graph.stream, graph.astream = rlm.stream, rlm.astream
    return graph
