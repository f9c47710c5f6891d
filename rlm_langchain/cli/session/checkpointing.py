"""Saves a run while it works: in the file of threads, or in memory while a person may be asked, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

from rlm_langchain.cli.options import Setup
from rlm_langchain.cli.session.threads import Threads, config

if TYPE_CHECKING:
    from rlm_langchain.runnable.runnable import RLMRunnable


@dataclass(frozen=True, slots=True)
class Persistence:
    """The thread that a run is saved on, with the options of the run. Without a name, the run is not saved."""

    thread: str | None = None
    setup: Setup = field(default_factory=Setup)

    @asynccontextmanager
    async def opened(self, rlm: RLMRunnable) -> AsyncIterator[tuple[RLMRunnable, RunnableConfig | None]]:
        """Yield the RLM with a checkpointer, and the config of its thread."""
        if self.thread is not None:
            async with Threads().opened_async() as saver:
                yield _with(rlm, saver), config(self.thread, self.setup)
        elif rlm.budget.asks_person:
            from langgraph.checkpoint.memory import InMemorySaver

            yield _with(rlm, InMemorySaver()), config("approving")
        else:
            yield rlm, None


def _with(rlm: RLMRunnable, saver: Any) -> RLMRunnable:
    return rlm.model_copy(update={"checkpointer": saver})
