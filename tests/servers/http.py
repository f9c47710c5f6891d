"""Just enough HTTP/1.1 for a test server that must not steal CPU from the client it measures.

Covered: keep-alive, bodies with Content-Length, chunked replies, telling a lost connection from a sent reply.
Not covered: chunked requests, pipelining, TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus


@dataclass
class Exchange:
    """One request as it was received, and the way to answer it."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    connection: Connection
    lost: Callable[[], None] | None = None
    """Called when the client goes away before the reply."""

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send the whole reply."""
        self.connection.current = None
        self.connection.write(status, {**headers, "Content-Length": str(len(body))}, body)

    def reply_in_chunks(self, headers: Mapping[str, str], chunks: list[bytes], *, ends: bool = True) -> None:
        """Send a reply as a stream, one write for each chunk. Without an end, more could come."""
        self.connection.current = None
        self.connection.write(200, {**headers, "Transfer-Encoding": "chunked"}, b"")
        for chunk in [*chunks, *[b""] * ends]:
            self.connection.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.connection.current = None
        self.connection.transport.abort()


@dataclass
class Connection(asyncio.Protocol):
    """One client connection: gathers bytes until a request is whole, then hands it over."""

    handle: Callable[[Exchange], None]
    changed: Callable[[Connection, bool], None]
    """Told when the connection opens (True) and when it is gone (False)."""
    received: bytearray = field(default_factory=bytearray)
    current: Exchange | None = None
    transport: asyncio.Transport = field(init=False)

    __hash__ = object.__hash__

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.changed(self, True)

    def connection_lost(self, error: Exception | None) -> None:
        self.changed(self, False)
        if self.current is not None and self.current.lost is not None:
            self.current.lost()

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        method, path, headers = parse(self.received[:end].decode("latin-1"))
        length = int(headers.get("content-length", 0))
        if len(self.received) < end + 4 + length:
            return
        body = bytes(self.received[end + 4 : end + 4 + length])
        del self.received[: end + 4 + length]
        self.current = Exchange(method, path, headers, body, self)
        self.handle(self.current)

    def write(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Status line, headers and body in one write: one packet, one wake-up of the client."""
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Own"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def parse(head: str) -> tuple[str, str, dict[str, str]]:
    """Method, path and headers of a request."""
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ")
    return method, path, {name.lower(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
