"""MCP clients that cancel, hang up or are killed: their questions end with them. And what sessions may hold."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

from rlm_langchain import Budget, create_rlm
from rlm_langchain.errors import InputError
from rlm_langchain.integrations.mcp_server import (
    CONTEXT_HOURS,
    MAX_CONTEXTS,
    ContextRegistry,
    create_mcp_server,
)
from rlm_langchain.testing.models import script
from tests.processes import children, gone
from tests.servers.endings import chat
from tests.servers.openai import HANGING, Message, Reply
from tests.servers.scripted import serve
from tests.servers.server import Server

CONCURRENCY = 4
CELL = "FINAL(llm_query_batched(['hang ' + str(i) for i in range(40)]))"
ROOT = Path(__file__).parents[2]


def play(messages: list[Message]) -> str | Reply:
    return HANGING if messages[0]["role"] != "system" else f"```repl\n{CELL}\n```"


@pytest.fixture
def model() -> Iterator[Server]:
    with serve(play) as server:
        yield server


@asynccontextmanager
async def listening(model: Server, transport: str) -> AsyncIterator[tuple[str, Any]]:
    """An MCP server on loopback, in this process and on this loop."""
    rlm = create_rlm(chat(model.url), sandbox="monty", budget=Budget(concurrency=CONCURRENCY))
    server = create_mcp_server(rlm)
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    task = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}", rlm
    finally:
        running.should_exit = True
        await task


@asynccontextmanager
async def session(url: str) -> AsyncIterator[ClientSession]:
    client = sse_client(url) if url.endswith("sse") else streamable_http_client(url)
    async with client as streams, ClientSession(*streams[:2]) as connected:
        await connected.initialize()
        yield connected


async def busy(model: Server) -> None:
    await asyncio.to_thread(model.wait, lambda s: s.in_flight == CONCURRENCY, 60)


async def settled(model: Server, rlm: Any, workers: set[int]) -> None:
    """Nothing is in flight, nothing else was asked, and no run and no worker is left."""
    await asyncio.to_thread(model.wait, lambda s: not s.in_flight, 30)
    with anyio.fail_after(30):
        while rlm.built.components.trees._alive:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    assert model.calls == 1 + CONCURRENCY
    assert all(map(gone, set(children()) - workers))


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_a_client_that_hangs_up_ends_its_question(model: Server, transport: str) -> None:
    workers = set(children())
    async with listening(model, transport) as (url, rlm):
        with anyio.CancelScope() as scope:
            async with session(url) as connected, anyio.create_task_group() as group:
                group.start_soon(connected.call_tool, "ask", {"query": "q", "contexts": []})
                await busy(model)
                scope.cancel()
        await settled(model, rlm, workers)


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_a_client_that_cancels_ends_its_question_and_can_ask_another(model: Server, transport: str) -> None:
    workers = set(children())
    async with listening(model, transport) as (url, rlm), session(url) as connected:
        async with anyio.create_task_group() as group:
            number = connected._request_id

            async def ask() -> None:
                with pytest.raises(Exception, match="cancelled"):
                    await connected.call_tool("ask", {"query": "q", "contexts": []})

            group.start_soon(ask)
            await busy(model)
            params = CancelledNotificationParams(requestId=number)
            note = CancelledNotification(method="notifications/cancelled", params=params)
            await connected.send_notification(ClientNotification(note))
        await settled(model, rlm, workers)
        assert not (await connected.call_tool("load_context", {"text": "abc"})).isError


async def test_over_stdio_the_end_of_the_client_is_the_end_of_the_server(model: Server, tmp_path: Path) -> None:
    environment = {**os.environ, "OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "sk-..."}
    options = ["--sandbox", "monty", "--concurrency", str(CONCURRENCY)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rlm_langchain", "mcp", "--model", "openai:any", *options),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    call = {"name": "ask", "arguments": {"query": "q", "contexts": []}}
    for message in (
        {"id": 1, "method": "initialize", "params": start},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": call},
    ):
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    await busy(model)
    left = children(process.pid)
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert left
    assert all(gone(pid) for pid in left)
    model.wait(lambda s: not s.in_flight)
    assert model.calls == 1 + CONCURRENCY


# --- what a server keeps ---


def test_names_are_bounded_by_number_and_by_time(tmp_path: Path) -> None:
    now = 0.0
    registry = ContextRegistry(create_rlm(script("FINAL(1)"), home=tmp_path), (), clock=lambda: now)
    first = registry.load(None, "first", None)
    assert f"{CONTEXT_HOURS} hours" in first["kept"]
    for number in range(MAX_CONTEXTS - 1):
        registry.load(None, "same", f"n{number}")
    registry.find([first["name"]])  # a use: it is not the oldest any more
    registry.load(None, "one more", "one more")
    assert len(registry.contexts) == MAX_CONTEXTS
    assert registry.find([first["name"]])
    with pytest.raises(InputError, match=r"no context is called n0.*until nobody uses it"):
        registry.find(["n0"])
    now = CONTEXT_HOURS * 3600 - 1
    registry.find(["one more"])
    now += 2
    registry.find(["one more"])
    assert list(registry.contexts) == ["one more"]


def test_an_index_goes_with_the_last_name_of_its_context(tmp_path: Path) -> None:
    now = 0.0
    registry = ContextRegistry(create_rlm(script("FINAL(1)"), home=tmp_path), (), clock=lambda: now)
    for name in ("a", "b"):
        registry.load(None, "the same text", name)
    registry.retriever("a")
    now = CONTEXT_HOURS * 3600
    registry.find(["b"])
    now += 1
    registry.load(None, "another", "c")
    assert (list(registry.contexts), len(registry.searches)) == (["b", "c"], 1)
    now += CONTEXT_HOURS * 3600
    registry.load(None, "another", "c")
    assert (list(registry.contexts), len(registry.searches)) == (["c"], 0)


def test_sessions_are_bounded() -> None:
    server = create_mcp_server(create_rlm(script("FINAL(1)")))
    assert (server.settings.max_sessions, server.settings.session_idle_timeout) == (1_000, 1_800)
