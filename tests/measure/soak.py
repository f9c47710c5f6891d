"""What many runs leave in a process: paused, declined, agreed to, cancelled, left halfway, and an RLM per request.

Each round has all of them, sync and async, with SQLite savers; the sandboxes take turns.
After each round it is counted what is there: memory, descriptors, threads, processes and files.

python -m tests.measure.soak [ROUNDS | SECONDSs]
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from rlm_langchain import Budget, create_rlm
from rlm_langchain.integrations.agents.tool import rlm_tool
from rlm_langchain.integrations.chat_model.chat_model import ChatRLM
from rlm_langchain.runnable.runnable import RLMRunnable
from rlm_langchain.testing.models import FunctionModel, script
from tests.processes import descendants

CONTEXT = "It is a truth universally acknowledged, that a context must be in want of a question. " * 10_000
"""0.9 MB: a run that is not let go of is seen."""
ASKED = {"query": "What is it in want of?", "context": CONTEXT}
CELL = "parts = [context[i:i + 1000] for i in range(0, 5000, 1000)]\nFINAL(llm_query_batched(parts))"
SANDBOXES = ("monty", "cpython")


class Left(NamedTuple):
    """What is there after so many runs."""

    runs: int
    memory: int
    """Bytes that are resident."""
    descriptors: int
    threads: int
    processes: int
    files: int
    """In `RLM_HOME`."""


class State(TypedDict, total=False):
    """Of a parent graph."""

    query: str
    context: Any
    answer: Any


_numbers = count()


def left(home: Path) -> Left:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Left(
        0,
        pages * os.sysconf("SC_PAGE_SIZE"),
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        len(descendants()),
        sum(path.is_file() for path in home.rglob("*")),
    )


def rlm(sandbox: str, model: FunctionModel | None = None, **options: Any) -> RLMRunnable:
    """One for a request, dropped with it."""
    return create_rlm(model or script(CELL), sandbox=sandbox, **options)


@contextmanager
def thread(saver: Any) -> Iterator[Any]:
    """A thread of its own, deleted when it is over."""
    name = f"soak {next(_numbers)}"
    yield {"configurable": {"thread_id": name}}
    saver.delete_thread(name)


@asynccontextmanager
async def athread(saver: Any) -> AsyncIterator[Any]:
    name = f"soak {next(_numbers)}"
    yield {"configurable": {"thread_id": name}}
    await saver.adelete_thread(name)


def approved(sandbox: str, saver: Any) -> RLMRunnable:
    return rlm(sandbox, checkpointer=saver, budget=Budget(approve_above_calls=0))


def cancelling(cancel: Callable[[], Any], at: int) -> FunctionModel:
    """A model that has its own run cancelled at one of its calls."""
    calls, played = count(1), script(CELL)

    def reply(messages: list[BaseMessage]) -> Any:
        if next(calls) == at:
            cancel()
        return played.function(messages)

    return FunctionModel(function=reply)


def sync_round(sandbox: str, saver: Any) -> None:
    for answers in ([False], [True], []):
        with thread(saver) as config:
            output: Any = approved(sandbox, saver).invoke(ASKED, config)
            assert "__interrupt__" in output, output
            for answer in answers:  # by another machine, as after a restart
                approved(sandbox, saver).invoke(Command(resume=answer), config)
            if not answers:  # given up for another question
                assert rlm(sandbox, checkpointer=saver).invoke(ASKED, config)["status"] == "complete"
    with thread(saver) as config:
        stream = rlm(sandbox, checkpointer=saver).stream(ASKED, config, stream_mode="updates")
        next(stream)
        stream.close()
        assert rlm(sandbox, checkpointer=saver).invoke(None, config)["status"] == "complete"
    assert rlm(sandbox).invoke(ASKED)["status"] == "complete"
    ChatRLM(rlm=rlm(sandbox)).invoke(CONTEXT[:10_000])
    rlm_tool(rlm(sandbox), CONTEXT).invoke({"query": "What?"})
    parent = StateGraph(State)
    parent.add_node("rlm", rlm(sandbox).as_node())
    parent.add_edge(START, "rlm")
    parent.add_edge("rlm", END)
    assert parent.compile().invoke(ASKED)["answer"]


async def async_round(sandbox: str, saver: Any) -> None:
    for answer in (False, True):
        async with athread(saver) as config:
            output: Any = await approved(sandbox, saver).ainvoke(ASKED, config)
            assert "__interrupt__" in output, output
            await approved(sandbox, saver).ainvoke(Command(resume=answer), config)
    for at in (1, 3):
        async with athread(saver) as config:
            tasks: list[asyncio.Task[Any]] = []
            model = cancelling(lambda tasks=tasks: tasks[0].cancel(), at)
            tasks.append(asyncio.create_task(rlm(sandbox, model, checkpointer=saver).ainvoke(ASKED, config)))
            await asyncio.wait(tasks)
            assert tasks.pop().cancelled()
            assert (await rlm(sandbox, checkpointer=saver).ainvoke(None, config))["status"] == "complete"
    stream: Any = rlm(sandbox).astream(ASKED, stream_mode="updates")
    async for _ in stream:
        break
    await stream.aclose()
    assert (await rlm(sandbox).ainvoke(ASKED))["status"] == "complete"
    await asyncio.gather(*(rlm(sandbox).ainvoke(ASKED) for _ in range(3)))


RUNS = 22
"""Of a round."""


def soak(home: Path, folder: Path, going: Callable[[int], bool]) -> Iterator[Left]:
    """Rounds for as long as `going` says, in the sandboxes in turn, and what is there after each."""

    async def rounds(sandbox: str) -> None:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "async.sqlite")) as saver:
            await async_round(sandbox, saver)

    with SqliteSaver.from_conn_string(str(folder / "sync.sqlite")) as saver:
        for number in count():
            if not going(number):
                return
            sandbox = SANDBOXES[number % len(SANDBOXES)]
            sync_round(sandbox, saver)
            asyncio.run(rounds(sandbox))
            yield left(home)._replace(runs=(number + 1) * RUNS)


def main(wanted: str) -> None:
    """Print what is there in lines of JSON, one for each round."""
    begun = time.monotonic()
    seconds = float(wanted[:-1]) if wanted.endswith("s") else None
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        os.environ["RLM_HOME"] = str(home)
        going = (
            (lambda number: number < int(wanted))
            if seconds is None
            else (lambda _: time.monotonic() - begun < seconds)
        )
        for found in soak(home, Path(folder), going):
            print(json.dumps(found._asdict()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "180s")
