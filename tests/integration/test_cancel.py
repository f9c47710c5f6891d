"""A run that is cancelled, interrupted, abandoned or broken off: settled, and nothing of it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from rlm_langchain import Budget, RLMRunnable, create_rlm
from rlm_langchain.models.reservation import OUTPUT_TOKENS
from rlm_langchain.testing.models import script
from tests.interrupted_run import TreeObserver
from tests.processes import children, gone
from tests.servers.endings import chat
from tests.servers.openai import HANGING, Message, Reply
from tests.servers.scripted import serve
from tests.servers.server import Server

ROOT = Path(__file__).parents[2]
SANDBOXES = ("cpython", "monty")
CELLS = {
    "ROOT": "print(rlm_query_batched(['KID waits', 'KID computes']))",
    "KID waits": "print(llm_query_batched(['good', 'hang', 'hang too']))",
    "KID computes": "print(llm_query('good one'))\nwhile True:\n    pass",
}
REQUESTS = 3 + 4
"""Three runs ask their roots, and they ask for four leaf calls: then everything hangs or computes."""


def play(messages: list[Message]) -> str | Reply:
    if messages[0]["role"] != "system":
        return HANGING if "hang" in messages[0]["content"] else "good"
    question = next(key for key in CELLS if key in messages[1]["content"])
    return f"```repl\n{CELLS[question]}\n```"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(play) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = set(children())
    yield
    assert all(map(gone, set(children()) - before))


def busy(server: Server) -> bool:
    """Everything that can be asked has been, and what can be answered is."""
    return server.calls == REQUESTS and server.in_flight == 2


def check_spent(spent: Any, server: Server, lost: int = 2) -> None:
    """Replies that were sent are booked as they are, and those that never came at the most that they may use."""
    tokens = server.tokens
    assert spent[0] == REQUESTS - 2 + lost
    assert spent[1] >= tokens["input"]
    assert spent[3] == tokens["output"] + lost * OUTPUT_TOKENS


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke"])
def test_ctrl_c_settles_the_account_and_leaves_no_process(way: str, sandbox: str, server: Server) -> None:
    command = [sys.executable, "-m", "tests.interrupted_run", way, sandbox, server.url]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "five\n"
        server.wait(busy, 120)
        program.send_signal(signal.SIGINT)
        said, complaints = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait()
    assert complaints == ""
    left = json.loads(said)
    check_spent(left["spent"], server)
    assert (left["reserved"], left["children"], left["alive"]) == ([0, 0, 0, 0], [], 0)
    idle_pools = {"rlm-cell", "rlm-starter"}
    assert {name for name in left["threads"] if name.startswith("rlm")} <= idle_pools
    server.wait(lambda s: not s.in_flight)


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_a_cancel_settles_the_account_and_leaves_no_task_and_no_process(sandbox: str, server: Server) -> None:
    rlm = create_rlm(chat(server.url), sandbox=sandbox, budget=Budget(depth=2))
    five = threading.Event()
    observer = TreeObserver(rlm, 5, five.set)
    task = asyncio.create_task(rlm.ainvoke("ROOT", {"callbacks": [observer]}))
    await asyncio.to_thread(five.wait)
    await asyncio.to_thread(server.wait, busy, 120)
    assert children()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    check(observer.left(), server)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_stream_that_is_left_early_is_settled_too(sandbox: str, server: Server) -> None:
    rlm = create_rlm(chat(server.url), sandbox=sandbox, budget=Budget(depth=2))
    five = threading.Event()
    observer = TreeObserver(rlm, 5, five.set)
    stream = rlm.stream("ROOT", {"callbacks": [observer]}, stream_mode="custom", subgraphs=True)
    seen = 0
    for _, record in stream:
        seen += record["type"] == "cell"
        if seen == 3:
            break
    five.wait()
    server.wait(busy, 120)
    stream.close()  # type: ignore[attr-defined]
    check(observer.left(), server)


async def test_an_async_stream_that_is_left_early_is_settled_too(server: Server) -> None:
    rlm = create_rlm(chat(server.url), budget=Budget(depth=2))
    five = threading.Event()
    observer = TreeObserver(rlm, 5, five.set)
    stream = rlm.astream("ROOT", {"callbacks": [observer]}, stream_mode="custom", subgraphs=True)
    seen = 0
    async for _, record in stream:
        seen += record["type"] == "cell"
        if seen == 3:
            break
    await asyncio.to_thread(five.wait)
    await asyncio.to_thread(server.wait, busy, 120)
    await stream.aclose()  # type: ignore[attr-defined]
    check(observer.left(), server)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_run_with_a_saver_goes_on_where_it_was_and_pays_nothing_twice(server: Server) -> None:
    rlm = create_rlm(chat(server.url), budget=Budget(depth=2), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    five = threading.Event()
    task = asyncio.create_task(rlm.ainvoke("ROOT", {**config, "callbacks": [TreeObserver(rlm, 5, five.set)]}))
    await asyncio.to_thread(five.wait)
    await asyncio.to_thread(server.wait, busy, 120)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = dict(server.tokens)
    await asyncio.to_thread(server.wait, lambda s: not s.in_flight)
    observer = TreeObserver(rlm)
    again = asyncio.create_task(rlm.ainvoke(None, {**config, "callbacks": [observer]}))
    await asyncio.to_thread(server.wait, lambda s: s.calls == REQUESTS + 2 and s.in_flight == 2, 120)
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    assert before == dict(server.tokens)
    check_spent(observer.left()["spent"], server, lost=4)


class Stop(Exception):
    """What a callback raises to end a run."""


class Raising(BaseCallbackHandler):
    """Raises at the n-th event of a kind."""

    raise_error = True

    def __init__(self, event: str, number: int) -> None:
        self.left = number
        setattr(self, event, self._count)

    def _count(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request):
    def go(rlm: RLMRunnable, config: Any) -> Any:
        return rlm.invoke("ROOT", config) if request.param == "invoke" else asyncio.run(rlm.ainvoke("ROOT", config))

    return go


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("event", ["on_chat_model_start", "on_llm_end", "on_chain_end"])
def test_what_a_callback_raises_on_purpose_ends_the_run_and_the_account_is_settled(
    ask: Any, event: str, number: int
) -> None:
    replies = {"ROOT": "FINAL(llm_query_batched([str(i) for i in range(8)]))"}

    def quick(messages: list[Message]) -> str:
        return f"```repl\n{replies['ROOT']}\n```" if messages[0]["role"] == "system" else "good"

    with serve(quick) as server:
        rlm = create_rlm(chat(server.url))
        observer = TreeObserver(rlm)
        with pytest.raises(Stop):
            ask(rlm, {"callbacks": [observer, Raising(event, number)]})
        server.wait(lambda s: not s.in_flight)
        assert not observer.trees._alive
        if observer.tree is not None:
            spent = observer.tree.ledger.spent
            assert observer.tree.ledger._reserved.calls == 0
            sent = server.stats()["states"].get("sent", 0)
            assert sent <= spent.calls <= 1 + 8, "what was cut off on its way may have been received"
            if event == "on_llm_end":
                assert spent.calls >= number  # what was received is booked, though a callback failed on it


class CancelsLate(InMemorySaver):
    """Cancels whoever waits for a run at the very moment at which the run has ended and is closed."""

    caller: asyncio.Task[Any] | None = None

    async def aget_tuple(self, config: Any) -> Any:
        if self.caller is not None:
            caller, self.caller = self.caller, None
            working = asyncio.current_task()
            assert working is not None
            working.add_done_callback(lambda _: caller.cancel())
        return await super().aget_tuple(config)


async def test_a_cancel_that_comes_when_a_run_is_closed_leaves_it_to_be_resumed() -> None:
    saver, config = CancelsLate(), {"configurable": {"thread_id": "late"}}
    rlm = create_rlm(
        script("FINAL(llm_query('hello'))"),
        sandbox="monty",
        checkpointer=saver,
        budget=Budget(approve_above_calls=0),
    )
    caller = saver.caller = asyncio.create_task(rlm.ainvoke("q", config))
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (await rlm.ainvoke(Command(resume=True), config))["status"] == "complete"


def check(left: dict[str, Any], server: Server) -> None:
    check_spent(left["spent"], server)
    assert list(left["reserved"]) == [0, 0, 0, 0]
    assert left["alive"] == 0
    server.wait(lambda s: not s.in_flight)


def test_no_run_survives_its_process() -> None:
    """Killed outright, a program leaves no worker behind."""
    with serve(play) as server:
        command = [sys.executable, "-m", "tests.interrupted_run", "invoke", "cpython", server.url]
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, start_new_session=True)
        try:
            server.wait(busy, 120)
            every = [pid for pid in Path("/proc").glob("[0-9]*") if in_session(pid, program)]
            ends = [os.pidfd_open(int(pid.name)) for pid in every]
            assert len(ends) > 1
        finally:
            program.kill()
            program.wait()
        for end in ends:
            assert select.select([end], [], [], 30)[0], "a process goes on"
            os.close(end)


def in_session(pid: Path, program: subprocess.Popen[bytes]) -> bool:
    """Whether a process belongs to the session that a program began."""
    try:
        return int((pid / "stat").read_text().rpartition(")")[2].split()[3]) == program.pid
    except OSError:
        return False
