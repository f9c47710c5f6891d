"""A client of a web server that goes away: what it had asked for ends, and leaves no call, task or worker."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote

import anyio
import pytest
import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from rlm_langchain import RLMRunnable
from tests.integration.test_cancel_ways import BUSY, made, nothing_follows, play
from tests.processes import children, gone
from tests.servers.scripted import serve
from tests.servers.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(play) as running:
        yield running


class Site:
    """An application with an RLM behind it, as its users write one. It tells when a response has ended."""

    def __init__(self, rlm: RLMRunnable, stuck: int | None = None) -> None:
        self.rlm = rlm
        self.stuck = stuck
        """The part of the body whose sending does not end while the client is there: it reads too slowly."""
        self.sending, self.ended = threading.Event(), threading.Event()
        ways = (self.stream, self.astream, self.sse, self.invoke, self.ainvoke)
        self.app = Starlette(routes=[Route(f"/{way.__name__}", way) for way in ways])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sent = 0

        async def slowly(message: Any) -> None:
            nonlocal sent
            sent += message["type"] == "http.response.body"
            if sent == self.stuck:
                self.sending.set()
                await anyio.sleep_forever()
            await send(message)

        try:
            await self.app(scope, receive, slowly)
        finally:
            self.ended.set()

    def stream(self, request: Request) -> Any:
        parts = self.rlm.stream(request.query_params["q"], stream_mode="custom", subgraphs=True)
        return StreamingResponse(json.dumps(part, default=str) for part in parts)

    async def astream(self, request: Request) -> Any:
        return StreamingResponse(self._parts(request))

    async def sse(self, request: Request) -> Any:
        return EventSourceResponse(self._parts(request))

    async def _parts(self, request: Request) -> AsyncIterator[str]:
        async for part in self.rlm.astream(request.query_params["q"], stream_mode="custom", subgraphs=True):
            yield json.dumps(part, default=str)

    async def ainvoke(self, request: Request) -> Any:
        async with cancelled_without(request):
            return JSONResponse(await self.rlm.ainvoke(request.query_params["q"]))

    async def invoke(self, request: Request) -> Any:
        async with cancelled_without(request):
            return JSONResponse(await anyio.to_thread.run_sync(self.rlm.invoke, request.query_params["q"]))


@asynccontextmanager
async def cancelled_without(request: Request) -> AsyncIterator[None]:
    """The block is cancelled when the client of a request has left."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(gone)
        yield


@contextmanager
def client(site: Site, way: str, place: str) -> Iterator[None]:
    """Ask the site over a socket; at the end of the block the client is gone, and the server, too."""
    before = set(children())
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(site, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[listener])))
    thread.start()
    try:
        with socket.create_connection(listener.getsockname()) as connection:
            connection.sendall(f"GET /{way}?q={quote(place)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            yield
        assert site.ended.wait(60)
        assert all(gone(worker, 60) for worker in set(children()) - before)
    finally:
        running.should_exit = True
        thread.join()


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("place", ["in a cell", "in a fan-out", "in the cell of a child"])
@pytest.mark.parametrize("way", ["stream", "astream", "sse", "invoke", "ainvoke"])
def test_a_client_that_leaves_ends_its_run(server: Server, way: str, place: str, sandbox: str) -> None:
    rlm = made(server, place, sandbox)
    with nothing_follows(rlm, server), client(Site(rlm), way, place):
        server.wait(BUSY[place], 60)
        server.asked_at_cancel = server.calls  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["stream", "astream", "sse"])
@pytest.mark.parametrize("stuck", [1, 3])
def test_also_while_a_part_is_being_sent(server: Server, way: str, stuck: int) -> None:
    """Starlette closes no stream that it leaves between two parts. None of its garbage needs to be collected."""
    rlm = made(server, place := "in a fan-out")
    site = Site(rlm, stuck)
    with nothing_follows(rlm, server), client(site, way, place):
        assert site.sending.wait(60)
        server.wait(lambda s: not s.in_flight or s.in_flight == 4, 60)
        server.asked_at_cancel = server.calls  # type: ignore[attr-defined]
