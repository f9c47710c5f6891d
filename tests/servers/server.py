"""The scripted server itself: takes requests, asks the script and the rule, answers after a while, counts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.servers.anthropic import Anthropic
from tests.servers.http import Connection, Exchange
from tests.servers.openai import FOREVER, Message, OpenAI, Reply, as_reply, failure

Script = Callable[[list[Message]], str | Reply | None]
"""What the model says to these messages."""


@dataclass
class Request:
    """One request for a completion, and what became of it."""

    number: int
    """From 0, in order of arrival."""
    body: dict[str, Any]
    headers: dict[str, str]
    """Names in lower case."""
    raw: bytes = field(repr=False)
    """The body, byte for byte."""
    state: Literal["received", "sent", "dropped", "lost"] = "received"
    """`dropped`: by the server, on purpose. `lost`: the client went away before the reply was sent."""

    @property
    def messages(self) -> list[Message]:
        system = self.body.get("system")
        return [*([{"role": "system", "content": system}] if system else []), *self.body["messages"]]


Rule = Callable[[Request], Reply | None]
"""A reply to use instead of the script's, or None."""


def first(count: int, reply: Reply) -> Rule:
    """The first `count` requests get `reply`."""
    return lambda request: reply if request.number < count else None


@dataclass
class Server:
    """What it is asked, how many at once, and what it has billed."""

    script: Script
    latency: float = 0.0
    rule: Rule = lambda _: None
    tls: bool = False
    dialect: OpenAI | Anthropic = field(default_factory=OpenAI)
    url: str = ""
    """Ends in `/v1`: what a client calls its base URL."""
    requests: list[Request] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    """The most requests that were in flight at once."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Billed, in replies that were sent: `input`, `output`, `cached`."""
    connections: set[Connection] = field(default_factory=set)
    accepted: int = 0
    """Connections over all time."""
    errors: list[Exception] = field(default_factory=list)
    """What the script or the rule raised; `serve` raises the first at its end."""
    held: list[Callable[[], None]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    loop: asyncio.AbstractEventLoop = field(init=False)

    @property
    def calls(self) -> int:
        """Requests received, those that failed included."""
        return len(self.requests)

    def wait(self, until: Callable[[Server], bool], seconds: float = 30) -> None:
        """Block until something is true of this server; tests need no sleep. Raises `TimeoutError`."""
        with self.changed:
            if not self.changed.wait_for(lambda: until(self), seconds):
                raise TimeoutError(f"not within {seconds} s; the server has: {self.stats()}")

    def release(self) -> None:
        """Send every reply that waits forever, now."""
        self.loop.call_soon_threadsafe(lambda: [send() for send in self.held])

    def stats(self) -> dict[str, Any]:
        """The counters, as `GET /stats` tells them."""
        states = Counter(request.state for request in self.requests)
        return {
            "calls": self.calls,
            "peak": self.peak,
            "in_flight": self.in_flight,
            "tokens": dict(self.tokens),
            "states": dict(states),
            "connections": len(self.connections),
            "accepted": self.accepted,
        }

    # --- from here on, in the server's own thread ---

    def accept(self) -> Connection:
        """What talks to a client that has connected."""
        self.accepted += 1
        return Connection(self.handle, self._connected)

    def _connected(self, connection: Connection, is_open: bool) -> None:
        with self.changed:
            (self.connections.add if is_open else self.connections.discard)(connection)
            self.changed.notify_all()

    def handle(self, exchange: Exchange) -> None:
        """Answer one HTTP request."""
        match exchange.method, exchange.path:
            case "POST", path if path.endswith(self.dialect.path):
                self._ask(exchange)
            case "GET", "/stats":
                self._tell(exchange, self.stats())
            case "GET", "/requests":
                self._tell(exchange, [{**vars(request), "raw": None} for request in self.requests])
            case "GET", "/v1/models":
                self._tell(exchange, {"object": "list", "data": [{"id": "scripted", "object": "model"}]})
            case _:
                exchange.reply(404, {}, b"")

    def _tell(self, exchange: Exchange, value: Any) -> None:
        exchange.reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _ask(self, exchange: Exchange) -> None:
        request = Request(self.calls, json.loads(exchange.body), exchange.headers, exchange.body)
        with self.changed:
            self.requests.append(request)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self.changed.notify_all()
        self._later(exchange, request, as_reply(self._said(request), self.latency))

    def _said(self, request: Request) -> str | Reply | None:
        try:
            ruled = self.rule(request)
            return self.script(request.messages) if ruled is None else ruled
        except Exception as error:  # noqa: BLE001 - `serve` raises whatever a test's script raised
            self.errors.append(error)
            return failure(500, "the script raised")

    def _later(self, exchange: Exchange, request: Request, reply: Reply) -> None:
        def send() -> None:
            if request.state != "received":
                return
            try:
                self._send(exchange, request, reply)
            except Exception as error:  # noqa: BLE001 - a reply that cannot be sent: `serve` tells
                self.errors.append(error)
                exchange.abort()

        exchange.lost = lambda: self._ended(request, "lost")
        if reply.latency == FOREVER:
            self.held.append(send)
        else:
            self.loop.call_later(reply.latency or 0, send)

    def _send(self, exchange: Exchange, request: Request, reply: Reply) -> None:
        if reply.drop:
            self._ended(request, "dropped")
            exchange.abort()
            return
        if reply.raw is None:
            self._bill(self.dialect.billed(request.body, reply))
        self._ended(request, "sent")
        json_headers = {"Content-Type": "application/json", **reply.headers}
        if reply.raw is not None:
            exchange.reply(reply.status, json_headers, reply.raw)
        elif request.body.get("stream"):
            sse_headers = {"Content-Type": "text/event-stream", **reply.headers}
            events = self.dialect.events(request.number, request.body, reply)
            exchange.reply_in_chunks(sse_headers, events[: reply.sent], ends=reply.sent is None)
            if reply.sent is not None and not reply.hangs:
                self.loop.call_soon(exchange.connection.transport.close)
        else:
            body = self.dialect.completion(request.number, request.body, reply)
            exchange.reply(reply.status, json_headers, body)

    def _bill(self, usage: dict[str, Any] | None) -> None:
        self.tokens.update(self.dialect.counts(usage or {}))

    def _ended(self, request: Request, state: Literal["sent", "dropped", "lost"]) -> None:
        with self.changed:
            request.state = state
            self.in_flight -= 1
            self.changed.notify_all()
