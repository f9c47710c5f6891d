"""Whatever was done with an RLM, nothing of it is left when it is dropped: servers make one for each request."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command
from mcp.shared.memory import create_connected_server_and_client_session
from pydantic import BaseModel
from typing_extensions import TypedDict

from rlm_langchain import Budget, RLMRunnable, create_rlm
from rlm_langchain.graph.components import Components
from rlm_langchain.integrations.agents.middleware import RLMContextMiddleware
from rlm_langchain.integrations.agents.tool import rlm_tool
from rlm_langchain.integrations.chat_model.chat_model import ChatRLM
from rlm_langchain.integrations.mcp_server import create_mcp_server
from rlm_langchain.run.repl import Repl
from rlm_langchain.run.run_tree import RunTree
from rlm_langchain.runnable.create import create_rlm_graph
from rlm_langchain.sandboxes.cpython.sandbox import CPythonSandbox
from rlm_langchain.sandboxes.cpython.session import CPythonSession
from rlm_langchain.sandboxes.monty import MontySandbox
from rlm_langchain.sandboxes.monty.session import MontySession
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.types import Limits, Reply, Suspended

KINDS = (RLMRunnable, Components, Pregel, RunTree, Repl, MontySession, CPythonSession)
"""What holds a run together."""
ASKED = {"query": "q", "context": "some text " * 100}
CONFIG: Any = {"configurable": {"thread_id": "t"}}
ASKS = "FINAL(llm_query('a'))"

Way = Callable[[Callable[..., RLMRunnable]], Any]
WAYS: dict[str, Way] = {}


def way(use: Way) -> Way:
    """Something that is done with an RLM, which `make` makes."""
    WAYS[use.__name__] = use
    return use


class State(TypedDict, total=False):
    query: str
    context: Any
    answer: Any


def parent(node: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("rlm", node)
    graph.add_edge(START, "rlm")
    graph.add_edge("rlm", END)
    return graph.compile()


def add(a: int) -> int:
    """Add one."""
    return a + 1


class Answer(BaseModel):
    a: int


@way
def built(make):
    make().get_graph(xray=True)


@way
def invoked(make):
    make().invoke(ASKED)


@way
def ainvoked(make):
    asyncio.run(make().ainvoke(ASKED))


@way
def batched(make):
    make().batch([ASKED, ASKED])


@way
def streamed(make):
    assert list(make().stream(ASKED, stream_mode="updates", subgraphs=True))


@way
def stream_closed(make):
    stream = make().stream(ASKED, stream_mode="updates")
    next(stream)
    stream.close()


@way
def stream_left(make):
    next(make().stream(ASKED, stream_mode="updates"))


@way
def astreamed(make):
    async def use():
        return [part async for part in make().astream(ASKED, stream_mode="updates")]

    assert asyncio.run(use())


@way
def astream_closed(make):
    async def use():
        stream = make().astream(ASKED, stream_mode="updates")
        await anext(stream)
        await stream.aclose()

    asyncio.run(use())


@way
def events(make):
    async def use():
        return [event async for event in make().astream_events(ASKED, version="v2")]

    assert asyncio.run(use())


@way
def cancelled(make):
    async def use():
        tasks = []
        played = script(ASKS)

        def reply(messages):
            if messages[0].type != "system":
                tasks[0].cancel()
            return played.function(messages)

        tasks.append(asyncio.create_task(make(root_model=FunctionModel(function=reply)).ainvoke(ASKED)))
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()

    asyncio.run(use())


@way
def failed(make):
    def reply(messages):
        raise ValueError("no")

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is
        make(root_model=FunctionModel(function=reply)).invoke(ASKED)


def _paused(make):
    rlm = make(checkpointer=InMemorySaver(), budget=Budget(approve_above_calls=0))
    assert "__interrupt__" in rlm.invoke(ASKED, CONFIG)
    return rlm


@way
def paused(make):
    _paused(make)


@way
def declined(make):
    _paused(make).invoke(Command(resume=False), CONFIG)


@way
def agreed(make):
    _paused(make).invoke(Command(resume=True), CONFIG)


@way
def given_up(make):
    _paused(make).invoke({"query": "another"}, CONFIG)


@way
def forked(make):
    rlm = make(checkpointer=InMemorySaver())
    rlm.invoke(ASKED, CONFIG)
    rlm.fork(CONFIG, at=1, thread="u")


@way
def child_run(make):
    model = script("FINAL(rlm_query('child'))", children={"child": (ASKS,)})
    make(root_model=model, budget=Budget(depth=2)).invoke(ASKED)


@way
def tools(make):
    make(root_model=script("FINAL(add(1))"), tools=[add]).invoke(ASKED)


@way
def schema(make):
    rlm = make(root_model=script("FINAL({'a': 1})"), output_schema=Answer)
    assert rlm.invoke(ASKED)["answer"] == Answer(a=1)
    rlm.get_input_schema()
    rlm.get_output_schema()


@way
def search(make):
    make(root_model=script("FINAL(search('text'))"), retriever="bm25").invoke(ASKED)


@way
def chat_model(make):
    ChatRLM(rlm=make()).invoke("hello")


@way
def chat_model_streamed(make):
    assert list(ChatRLM(rlm=make()).stream("hello"))


@way
def chat_model_with_tools(make):
    ChatRLM(rlm=make()).bind_tools([add]).invoke("hello")


@way
def chat_model_structured(make):
    ChatRLM(rlm=make(root_model=script("FINAL({'a': 1})"))).with_structured_output(Answer).invoke("hello")


@way
def tool(make):
    rlm_tool(make(), "a corpus").invoke({"query": "q"})


@way
def atool(make):
    asyncio.run(rlm_tool(make(), "a corpus").ainvoke({"query": "q"}))


@way
def node(make):
    graph = parent(make().as_node())
    graph.invoke(ASKED)
    graph.get_graph(xray=True)


@way
def anode(make):
    asyncio.run(parent(make().as_node()).ainvoke(ASKED))


@way
def subgraph(make):
    parent(make().graph).invoke(ASKED)


@way
def uncompiled(make):
    create_rlm_graph(script(ASKS), sandbox="monty").compile().invoke(ASKED)


@way
def chain(make):
    chained = RunnablePassthrough() | make() | RunnableLambda(lambda output: output["answer"])
    chained.invoke(ASKED)
    chained.get_graph()


@way
def mcp_server(make):
    async def use():
        server = create_mcp_server(make())
        async with create_connected_server_and_client_session(server._mcp_server) as session:
            await session.call_tool("load_context", {"text": "abc", "name": "t"})
            await session.call_tool("ask", {"query": "q", "contexts": ["t"]})

    asyncio.run(use())


@way
def middleware(make):
    class Model(GenericFakeChatModel):
        def bind_tools(self, *args, **kwargs):
            return self

    rlm = make()
    model = Model(messages=iter([AIMessage("hi")]))
    create_agent(model, middleware=[RLMContextMiddleware(rlm)]).invoke({"messages": [("user", "x" * 30_000)]})


def alive() -> dict[int, Any]:
    """All that holds a run together, of any RLM in this process."""
    gc.collect()
    gc.collect()
    return {id(one): one for one in gc.get_objects() if issubclass(type(one), KINDS)}


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """What was there before is not looked at: that would take longer than the rest."""
    create_rlm(script(ASKS), sandbox="monty").invoke(ASKED)  # LangChain keeps some of the first of a kind
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def left_by(use: Way, **options: Any) -> list[str]:
    def make(**more: Any) -> RLMRunnable:
        return create_rlm(**{"root_model": script(ASKS), **options, **more})

    def left() -> list[str]:
        return [type(one).__name__ for key, one in alive().items() if key not in before]

    before = alive()
    use(make)
    end = time.monotonic() + 2  # a thread that has given its result may hold what it worked on for a moment more
    while (found := left()) and time.monotonic() < end:
        os.sched_yield()
    return found


@pytest.mark.parametrize("name", WAYS)
def test_a_dropped_rlm_is_freed(name: str):
    assert left_by(WAYS[name], sandbox="monty") == []


@pytest.mark.parametrize("name", ["invoked", "paused", "stream_closed", "cancelled"])
def test_a_dropped_rlm_is_freed_with_cpython(name: str):
    pytest.importorskip("sandlock")
    assert left_by(WAYS[name], sandbox="cpython") == []


def test_one_that_is_kept_is_seen():
    """The control: what the others look for is found."""
    kept = []
    assert "RLMRunnable" in left_by(lambda make: kept.append(make()), sandbox="monty")


CELLS = {
    "idle": "x = 1",
    "waiting": "llm_query('a')",
    "waiting for more": "llm_query('a')\nllm_query('b')",
    "failed": "1 / 0",
    "answered": "FINAL(1)",
    "no Python": "def",
    "too late": "while True:\n    pass",
    "too long": "print('x' * 100000)",
}
SESSIONS = {"cpython": CPythonSandbox, "monty": MontySandbox}


@pytest.mark.parametrize("close", [True, False], ids=["closed", "forgotten"])
@pytest.mark.parametrize("state", CELLS)
@pytest.mark.parametrize("sandbox", SESSIONS)
def test_a_session_is_freed_in_every_state(sandbox: str, state: str, close: bool):
    before = alive()
    session = SESSIONS[sandbox]().open(None, "", Limits(seconds=0.2, output=1000))
    step = session.run(CELLS[state])
    if state == "waiting for more":
        assert isinstance(session.resume([Reply("a")]), Suspended)
    if close:
        session.close()
    del session, step
    assert [one for key, one in alive().items() if key not in before] == []
