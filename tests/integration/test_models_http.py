"""What the named models send, as a server receives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from rlm_langchain.models.call import Completion, complete
from rlm_langchain.models.http.transport import async_client, sync_client
from rlm_langchain.models.model import Model
from rlm_langchain.models.registry import resolve
from tests.servers.openai import Reply
from tests.servers.scripted import serve
from tests.servers.server import Request, Server

HI = [SystemMessage("Be brief."), HumanMessage("hi")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Every name leads here."""
    with serve(lambda _: Reply("one two", cost=0.125, cached=2)) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENROUTER_BASE_URL", running.url)
        monkeypatch.setenv("OLLAMA_HOST", running.url.removesuffix("/v1"))
        yield running


async def received(server: Server, name: str, **options: Any) -> tuple[Completion, Request]:
    done = await complete(resolve(name, "sub"), HI, **options)
    return done, server.requests[-1]


async def test_openrouter_is_asked_by_its_conventions_and_tells_the_cost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-1")
    done, request = await received(server, "openai/gpt-4o")
    assert request.body["model"] == "openai/gpt-4o"
    assert request.body["usage"] == {"include": True}
    assert request.headers["authorization"] == "Bearer sk-or-1"
    assert request.headers["x-title"] == "rlm-langchain"
    assert request.headers["http-referer"].startswith("https://")
    assert (done.text, done.usage.cost, done.usage.cached) == ("one two", 0.125, 2)


async def test_the_cost_of_a_streamed_reply_is_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph whose caller wants messages makes its models stream, whatever the node asked for."""
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-1")
    model, done = resolve("openai/gpt-4o", "root"), []

    class State(TypedDict):
        text: Annotated[str, lambda _, new: new]

    async def node(_: State, config: RunnableConfig) -> State:
        done.append(await complete(model, HI, config=config))
        return {"text": done[0].text}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    pieces = [piece async for piece in graph.compile().astream({"text": ""}, stream_mode="messages")]
    assert server.requests[0].body["stream"] is True
    assert "".join(str(piece.content) for piece, _ in pieces) == "one two"
    assert (done[0].text, done[0].usage.cost, done[0].usage.cached) == ("one two", 0.125, 2)
    assert (done[0].usage.input, done[0].usage.output, done[0].finish) == (4, 2, "stop")


@pytest.mark.parametrize(("key", "sent"), [("sk-1", "Bearer sk-1"), (None, "Bearer none")])
async def test_a_compatible_server_is_asked_with_a_key_or_without(
    key: str | None, sent: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    done, request = await received(server, "openai:any-name")
    assert request.headers["authorization"] == sent
    assert "usage" not in request.body
    assert (request.body["model"], done.usage.cost) == ("any-name", None)


async def test_ollama_is_asked_at_its_compatible_endpoint_and_is_free(server: Server) -> None:
    done, request = await received(server, "ollama:qwen2.5-coder:1.5b")
    assert (request.body["model"], done.usage.cost) == ("qwen2.5-coder:1.5b", 0.0)


async def test_messages_arrive_word_for_word(server: Server) -> None:
    _, request = await received(server, "openai:any-name")
    assert request.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


async def test_compatible_servers_are_told_the_cap_by_its_old_name(server: Server) -> None:
    _, request = await received(server, "openai:any-name", output_tokens=50)
    assert request.body["max_tokens"] == 50
    assert "max_completion_tokens" not in request.body
    _, request = await received(server, "openai:any-name")
    assert "max_tokens" not in request.body


@pytest.mark.parametrize(("own", "sent"), [(None, 50), (20, 20)])
async def test_openai_is_told_the_cap_by_its_new_name(own: int | None, sent: int, server: Server) -> None:
    chat = ChatOpenAI(
        model="gpt-4o",
        base_url=server.url,
        api_key="k",  # type: ignore[arg-type]
        max_tokens=own,  # type: ignore[call-arg]
        http_client=sync_client(),
        http_async_client=async_client(),
    )
    await complete(Model("m", chat), HI, output_tokens=50)
    assert server.requests[0].body["max_completion_tokens"] == sent


async def test_a_model_that_prefers_another_api_is_asked_by_this_one(server: Server) -> None:
    done, request = await received(server, "openai:gpt-5-codex")
    assert (done.text, request.body["model"]) == ("one two", "gpt-5-codex")


async def test_a_chat_model_of_the_users_own_works_as_it_is(server: Server) -> None:
    chat = ChatOpenAI(model="gpt-4o", base_url=server.url, api_key="k", temperature=0.5)  # type: ignore[arg-type]
    done = await complete(resolve(chat, "sub"), HI)
    assert (done.text, server.requests[0].body["temperature"]) == ("one two", 0.5)
    await chat.root_async_client.close()
