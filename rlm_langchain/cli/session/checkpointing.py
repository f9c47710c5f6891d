"""Where a run is kept while it works: in the file of the threads, in memory while a person is asked, or nowhere."""

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
class Keeping:
    """The thread of a run; without a name it is over when the command is."""

    thread: str | None = None
    setup: Setup = field(default_factory=Setup)

    @asynccontextmanager
    async def at_work(self, rlm: RLMRunnable) -> AsyncIterator[tuple[RLMRunnable, RunnableConfig | None]]:
        """The RLM with its saver, and the config that finds its thread."""
        if self.thread is not None:
            async with Threads().at_hand() as saver:
                yield _with(rlm, saver), config(self.thread, self.setup)
        elif rlm.budget.asks_person:
            from langgraph.checkpoint.memory import InMemorySaver

            yield _with(rlm, InMemorySaver()), config("approving")
        else:
            yield rlm, None


def _with(rlm: RLMRunnable, saver: Any) -> RLMRunnable:
    return rlm.model_copy(update={"checkpointer": saver})
