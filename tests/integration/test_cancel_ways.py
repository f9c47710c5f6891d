"""Every way to cancel a run, wherever it is: no call is made after it, and no task and no worker is left."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, TypedDict

import anyio
import pytest
from anyio import to_thread
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, TimeoutPolicy

from rlm_langchain import Budget, RLMRunnable, create_rlm
from rlm_langchain.errors import ModelError
from rlm_langchain.run.event_loops import shared_loop
from tests.processes import children, gone
from tests.servers.endings import chat
from tests.servers.openai import FOREVER, HANGING, Message, Reply, failure
from tests.servers.scripted import serve
from tests.servers.server import Server

WIDTH, CONCURRENCY = 40, 4


def fan_out(prompt: str) -> str:
    return f"FINAL(llm_query_batched([{prompt!r} + str(i) for i in range({WIDTH})]))"


CELLS = {
    "in a fan-out": fan_out("hang "),
    "in a cell": "llm_query('good')\nwhile True:\n    pass",
    "in a child": "FINAL(rlm_query_batched(['KID 1', 'KID 2']))",
    "in the cell of a child": "FINAL(rlm_query_batched(['LOOP 1', 'LOOP 2']))",
    "after a reply": f"FINAL(llm_query_batched(['good'] + ['hang ' + str(i) for i in range({WIDTH})]))",
    "before a retry": "FINAL(llm_query('fail'))",
    "then fails": "print(1)",
    "by the pace": fan_out("good "),
    "KID 1": fan_out("hang, first "),
    "KID 2": fan_out("hang, second "),
    "LOOP 1": "llm_query('good one')\nwhile True:\n    pass",
    "LOOP 2": "llm_query('good two')\nwhile True:\n    pass",
}
BUSY: dict[str, Callable[[Server], bool]] = {
    "in a turn": lambda s: s.in_flight == 1,
    "in a fan-out": lambda s: s.in_flight == CONCURRENCY,
    "in a child": lambda s: s.in_flight == CONCURRENCY,
    "after a reply": lambda s: s.in_flight == CONCURRENCY and s.calls == 2 + CONCURRENCY,
    "in two runs": lambda s: s.in_flight == 2 * CONCURRENCY,
    "in a cell": lambda s: s.calls == 2 and not s.in_flight,
    "in the cell of a child": lambda s: s.calls == 5 and not s.in_flight,
    "before a retry": lambda s: s.calls == 2 and not s.in_flight,
    "by the pace": lambda s: s.calls == CONCURRENCY and not s.in_flight,
}
"""When everything has been asked that can be, before a cancel."""


def play(messages: list[Message]) -> str | Reply:
    if messages[0]["role"] != "system":
        asked = messages[0]["content"]
        if "fail" in asked:
            return failure(429, "slow down", retry_after="60")
        return HANGING if "hang" in asked else "good"
    asked = messages[1]["content"]
    if "then fails" in asked and len(messages) > 2:
        return failure(400, "no")
    if FAILS in asked:
        return replace(failure(400, "no"), latency=FOREVER)
    if "in a turn" in asked:
        return HANGING
    return f"```repl\n{next(cell for key, cell in CELLS.items() if key in asked)}\n```"


FAILS = "this fails"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(play) as running:
        yield running


def made(server: Server, place: str, sandbox: str = "monty", **more: Any) -> RLMRunnable:
    pace = CONCURRENCY if place == "by the pace" else None
    budget = Budget(depth=2, concurrency=CONCURRENCY, requests_per_minute=pace)
    return create_rlm(chat(server.url), sandbox=sandbox, budget=budget, **more)


@contextmanager
def nothing_follows(rlm: RLMRunnable, server: Server) -> Iterator[None]:
    """Around a cancelled run: what was asked by the time of the cancel is all that ever is."""
    with shared_loop() as loop:
        workers, tasks = set(children()), loop.call(other_tasks)
        yield
        assert all(map(gone, set(children()) - workers))
        assert not loop.call(left_over, tasks)
    assert not rlm.built.components.trees._alive
    server.wait(lambda s: not s.in_flight)
    assert server.calls == server.asked_at_cancel  # type: ignore[attr-defined]


async def other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def left_over(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Tasks that are there for good. A call of a thread has its result a moment before its task is done."""
    if not (new := await other_tasks() - before):
        return new
    return (await asyncio.wait(new, timeout=5))[1]


async def busy(server: Server, place: str) -> None:
    """Wait until the run is there; the next thing that the caller does is to cancel it."""
    await asyncio.to_thread(server.wait, BUSY[place], 60)
    server.asked_at_cancel = server.calls  # type: ignore[attr-defined]


# --- ways to cancel what is async: each cancels `run()`, which began `ready` before ---

Run = Callable[[], Awaitable[Any]]


async def once(run: Run, ready: Run) -> None:
    task = asyncio.ensure_future(run())
    await ready()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def twice(run: Run, ready: Run) -> None:
    task = asyncio.ensure_future(run())
    await ready()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def again_and_again(run: Run, ready: Run) -> None:
    task = asyncio.ensure_future(run())
    await ready()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


async def cancel_scope(run: Run, ready: Run) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await ready()
        group.cancel_scope.cancel()


async def timeout(run: Run, ready: Run) -> None:
    async def expire() -> None:
        await ready()
        limit.reschedule(0)

    with pytest.raises(TimeoutError):  # noqa: PT012 - they are one statement to their users
        async with asyncio.timeout(None) as limit:
            expiring = asyncio.ensure_future(expire())
            await run()
    await expiring


async def sibling(run: Run, ready: Run) -> None:
    async def fail() -> None:
        await ready()
        raise KeyError

    with pytest.raises(ExceptionGroup):  # noqa: PT012 - they are one statement to their users
        async with asyncio.TaskGroup() as group:
            group.create_task(run())  # type: ignore[arg-type]
            group.create_task(fail())


async def shutdown(run: Run, ready: Run) -> None:
    """As `asyncio.run` ends: all tasks at once, those within the run too."""
    task, me = asyncio.ensure_future(run()), asyncio.current_task()
    await ready()
    while others := [one for one in asyncio.all_tasks() if one is not me]:
        for one in others:
            one.cancel()
        await asyncio.wait(others)
    assert task.cancelled()


WAYS = [once, twice, again_and_again, cancel_scope, timeout, sibling, shutdown]


def ainvoke(rlm: RLMRunnable, place: str) -> Run:
    return lambda: rlm.ainvoke(place)


def astream(rlm: RLMRunnable, place: str) -> Run:
    async def run() -> None:
        async for _ in rlm.astream(place, stream_mode="custom", subgraphs=True):
            pass

    return run


def as_tool(rlm: RLMRunnable, place: str) -> Run:
    """Asked in a thread, by a sync tool of another RLM."""

    def look_up(what: str) -> str:
        """Look something up."""
        return str(rlm.invoke(what)["answer"])

    from rlm_langchain.testing.models import script

    outer = create_rlm(script(f"FINAL(look_up({place!r}))"), sandbox="monty", tools=[look_up])
    return lambda: outer.ainvoke("q")


async def handlers_told() -> None:
    """LangGraph, when it is cancelled even then, tells the handlers of a graph in a task of its own."""
    while telling := [one for one in asyncio.all_tasks() if "on_chain_error" in str(one.get_coro())]:
        await asyncio.wait(telling)


async def cancelled(run: Run, way: Any, server: Server, place: str, rlm: RLMRunnable) -> None:
    with nothing_follows(rlm, server):
        await way(run, lambda: busy(server, place))
        await handlers_told()
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["in a fan-out", "in a child"])
async def test_a_cancel_of_any_kind_is_the_end(server: Server, way: Any, place: str) -> None:
    rlm = made(server, place)
    await cancelled(ainvoke(rlm, place), way, server, place, rlm)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("place", [place for place in BUSY if place != "in two runs"])
async def test_wherever_the_run_is(server: Server, place: str, sandbox: str) -> None:
    rlm = made(server, place, sandbox)
    await cancelled(ainvoke(rlm, place), cancel_scope, server, place, rlm)


@pytest.mark.parametrize("way", [twice, cancel_scope])
@pytest.mark.parametrize("call", [astream, as_tool])
async def test_however_it_was_called(server: Server, call: Any, way: Any) -> None:
    rlm = made(server, "in a child")
    await cancelled(call(rlm, "in a child"), way, server, "in a child", rlm)


@pytest.mark.parametrize("close", ["aclose", "athrow", "cancelled"])
async def test_an_async_stream_that_is_closed(server: Server, close: str) -> None:
    rlm = made(server, place := "after a reply")
    with nothing_follows(rlm, server):
        stream: Any = rlm.astream(place, stream_mode="custom")
        while (await anext(stream))["type"] != "call":
            pass
        await busy(server, place)
        if close == "aclose":
            await stream.aclose()
        elif close == "athrow":
            with pytest.raises(KeyError):
                await stream.athrow(KeyError())
        else:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(stream)
        assert asyncio.all_tasks() == {asyncio.current_task()}


# --- sync ---


@pytest.mark.parametrize("close", ["close", "throw"])
@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_a_stream_that_is_closed(server: Server, close: str, sandbox: str) -> None:
    rlm = made(server, place := "after a reply", sandbox)
    with nothing_follows(rlm, server):
        stream: Any = rlm.stream(place, stream_mode="custom")
        while next(stream)["type"] != "call":
            pass
        server.wait(BUSY[place], 60)
        server.asked_at_cancel = server.calls  # type: ignore[attr-defined]
        if close == "close":
            stream.close()
        else:
            with pytest.raises(KeyError):
                stream.throw(KeyError())


class Alarm(Exception):
    """What a signal's handler raises."""


def interrupted(server: Server, place: str, number: int) -> threading.Thread:
    """Signals the main thread when the run is at its place."""

    def work() -> None:
        server.wait(BUSY[place], 60)
        server.asked_at_cancel = server.calls  # type: ignore[attr-defined]
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("way", ["invoke", "batch"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("place", ["in a child", "in a cell"])
def test_a_signal(server: Server, way: str, number: signal.Signals, place: str) -> None:
    def handle(*_: Any) -> None:
        raise Alarm

    rlm, before = made(server, place), signal.signal(number, handle)
    try:
        with nothing_follows(rlm, server):
            several = [place, place] if place == "in a child" else [place]
            calls = {"invoke": lambda: rlm.invoke(place), "batch": lambda: rlm.batch(several)}  # type: ignore[list-item]
            both = way == "batch" and len(several) == 2
            thread = interrupted(server, "in two runs" if both else place, number)
            with pytest.raises(Alarm):
                calls[way]()
            thread.join()
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("way", ["invoke", "batch"])
async def test_a_worker_thread_whose_caller_is_cancelled(server: Server, way: str) -> None:
    """As a sync endpoint of Starlette or FastAPI has one."""
    rlm = made(server, place := "in a child")
    do = (lambda: rlm.invoke(place)) if way == "invoke" else (lambda: rlm.batch([place]))
    await cancelled(lambda: to_thread.run_sync(do), cancel_scope, server, place, rlm)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["in a turn", "in a child"])
async def test_a_sync_stream_whose_parts_are_waited_for_in_worker_threads(server: Server, place: str) -> None:
    """As a `StreamingResponse` does it: each part in another thread, and a client that is gone cancels the wait."""
    rlm = made(server, place)

    async def run() -> None:
        with closing(rlm.stream(place, stream_mode="custom")) as stream:  # type: ignore[type-var]
            while await to_thread.run_sync(next, stream, None):
                pass

    await cancelled(run, cancel_scope, server, place, rlm)


# --- several ---


@pytest.mark.parametrize("way", ["batch", "abatch", "batch_as_completed", "abatch_as_completed"])
def test_the_first_failure_of_a_batch_ends_the_others(server: Server, way: str) -> None:
    rlm = made(server, place := "in a fan-out")
    inputs: Any = [place, FAILS]

    async def asynchronous() -> None:
        try:
            if way == "abatch":
                await rlm.abatch(inputs)
            async for _ in rlm.abatch_as_completed(inputs):
                pass
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    def ask() -> None:
        if way.startswith("a"):
            asyncio.run(asynchronous())
        else:
            list(getattr(rlm, way)(inputs))

    thread = threading.Thread(target=fail_one, args=(server,))
    with nothing_follows(rlm, server):
        thread.start()
        with pytest.raises(ModelError, match="400"):
            ask()
        thread.join()


def fail_one(server: Server) -> None:
    """Send the error that one root waits for, when the other run has its fan-out in flight."""
    server.wait(lambda s: s.in_flight == CONCURRENCY + 1, 60)
    server.asked_at_cancel = server.calls  # type: ignore[attr-defined]
    hanging = [one for one in server.requests if one.state == "received"]
    place = next(i for i, one in enumerate(hanging) if FAILS in str(one.messages))
    server.loop.call_soon_threadsafe(server.held[place])


# --- a graph of somebody's own, with an RLM in it ---


class State(TypedDict, total=False):
    query: str
    context: Any
    answer: Any


def subgraph(rlm: RLMRunnable) -> Any:
    return rlm.graph


def as_node(rlm: RLMRunnable) -> Any:
    return rlm.as_node()


def in_a_function(rlm: RLMRunnable) -> Any:
    async def ask(state: State) -> State:
        return {"answer": (await rlm.ainvoke(state["query"]))["answer"]}

    return ask


def graph_in_a_function(rlm: RLMRunnable) -> Any:
    async def ask(state: State) -> State:
        return {"answer": (await rlm.graph.ainvoke({"query": state["query"]}))["answer"]}

    return ask


def in_a_sync_function(rlm: RLMRunnable) -> Any:
    """LangGraph runs it in a thread, which no cancel of its task reaches."""

    def ask(state: State) -> State:
        return {"answer": rlm.invoke(state["query"])["answer"]}

    return ask


def with_a_timeout(rlm: RLMRunnable) -> Any:
    return parent_of(rlm.graph, timeout=TimeoutPolicy(run_timeout=1000))


def parent_of(node: Any, saver: Any = None, **more: Any) -> Any:
    graph: Any = StateGraph(State)
    graph.add_node("ask", node, **more)
    graph.add_edge(START, "ask")
    return graph.compile(checkpointer=saver)


def asked(parent: Any, place: str) -> Run:
    """LangGraph works on a lone node in the task of its caller."""
    return lambda: parent.ainvoke({"query": place})


def asked_two_levels_up(parent: Any, place: str) -> Run:
    """LangGraph works on each of several nodes in a task of its own."""
    graph: Any = StateGraph(State)
    graph.add_node("inner", parent)
    graph.add_node("other", lambda state: {})
    for node in ("inner", "other"):
        graph.add_edge(START, node)
    return asked(graph.compile(), place)


def streamed(parent: Any, place: str) -> Run:
    async def run() -> None:
        async for _ in parent.astream({"query": place}, stream_mode="custom", subgraphs=True):
            pass

    return run


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", [asked, streamed])
@pytest.mark.parametrize("node", [subgraph, as_node, in_a_function])
async def test_a_graph_that_is_cancelled(server: Server, node: Any, call: Any, way: Any) -> None:
    rlm = made(server, place := "in a child")
    await cancelled(call(parent_of(node(rlm)), place), way, server, place, rlm)


@pytest.mark.parametrize("way", [twice, cancel_scope])
@pytest.mark.parametrize("node", [subgraph, in_a_function, graph_in_a_function, in_a_sync_function, with_a_timeout])
async def test_a_graph_around_a_graph(server: Server, node: Any, way: Any) -> None:
    rlm = made(server, place := "in a child")
    found = node(rlm)
    parent = found if node is with_a_timeout else parent_of(found)
    await cancelled(asked_two_levels_up(parent, place), way, server, place, rlm)


@pytest.mark.parametrize("node", [subgraph, as_node, in_a_sync_function])
def test_a_sync_stream_of_a_graph_that_is_closed(server: Server, node: Any) -> None:
    rlm = made(server, place := "in a child")
    with nothing_follows(rlm, server):
        stream = parent_of(node(rlm)).stream({"query": place}, stream_mode="custom", subgraphs=True)
        next(stream)
        server.wait(BUSY[place], 60)
        server.asked_at_cancel = server.calls  # type: ignore[attr-defined]
        stream.close()


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_subgraph_that_fails_leaves_no_worker(server: Server, way: str) -> None:
    rlm = made(server, place := "then fails")
    parent, before = parent_of(rlm.graph), set(children())
    with shared_loop(), pytest.raises(ModelError, match="400"):
        parent.invoke({"query": place}) if way == "invoke" else asyncio.run(parent.ainvoke({"query": place}))
    assert all(map(gone, set(children()) - before))
    assert not rlm.built.components.trees._alive


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_pause_of_a_subgraph_is_no_cancel(way: str) -> None:
    from rlm_langchain.testing.models import script

    model = script("FINAL(llm_query_batched(['a', 'b', 'c']))", leaf=lambda _: "x")
    rlm = create_rlm(model, sandbox="monty", budget=Budget(approve_above_calls=2))
    parent, config = parent_of(rlm.graph, saver=InMemorySaver()), {"configurable": {"thread_id": "t"}}

    def ask(what: Any) -> Any:
        return parent.invoke(what, config) if way == "invoke" else asyncio.run(parent.ainvoke(what, config))

    assert ask({"query": "q"})["__interrupt__"]
    [tree] = rlm.built.components.trees._alive.values()
    tree.check()
    assert ask(Command(resume=True))["answer"] == ["x", "x", "x"]


@pytest.mark.parametrize("end", ["aclose", "break", "cancelled"])
@pytest.mark.parametrize("node", [subgraph, in_a_function])
async def test_a_stream_of_a_graph_that_is_left(server: Server, node: Any, end: str) -> None:
    rlm = made(server, place := "in a child")
    parent = parent_of(node(rlm))

    async def read() -> None:
        stream = parent.astream({"query": place}, stream_mode="custom", subgraphs=True)
        async for _ in stream:
            await busy(server, place)
            if end == "cancelled":  # between two parts
                reading.cancel()
                await asyncio.Event().wait()
            break
        if end == "aclose":
            await stream.aclose()

    with nothing_follows(rlm, server):
        reading = asyncio.ensure_future(read())
        try:
            await reading
        except asyncio.CancelledError:  # looked at: until then the task holds it, and that the stream
            assert end == "cancelled"
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # Python closes it in a task of its own
            await asyncio.wait(others)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "subgraph"])
def test_a_run_that_nobody_cancels_makes_all_its_calls(server: Server, way: str) -> None:
    """The control: what the others count would be more."""
    rlm = made(server, place := "in a fan-out")
    more = threading.Thread(target=release_all, args=(server,))
    more.start()
    if way == "subgraph":
        answer = asyncio.run(parent_of(rlm.graph).ainvoke({"query": place}))["answer"]
    else:
        answer = (rlm.invoke(place) if way == "invoke" else asyncio.run(rlm.ainvoke(place)))["answer"]
    more.join()
    assert (len(answer), server.calls) == (WIDTH, 1 + WIDTH)


def release_all(server: Server) -> None:
    for count in range(CONCURRENCY, WIDTH + 1, CONCURRENCY):
        server.wait(lambda s, count=count: s.calls == 1 + count and s.in_flight == CONCURRENCY, 60)  # type: ignore[misc]
        server.release()
