"""An MCP server with a few tools, over HTTP on loopback: what somebody's own server is like."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from mcp.server.fastmcp import FastMCP


def weather(city: str) -> str:
    """The weather in a city."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return f"sunny in {city}"


def populations(cities: list[str]) -> dict[str, int]:
    """How many people live in cities."""
    return {city: 1000 * len(city) for city in cities}


@contextmanager
def toolbox() -> Iterator[str]:
    """The server, in a thread of its own, until the block ends; its address."""
    server = FastMCP("toolbox", log_level="CRITICAL")
    server.add_tool(weather, structured_output=False)
    server.add_tool(populations)
    web = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]}, name="toolbox", daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        web.should_exit = True
        thread.join()
