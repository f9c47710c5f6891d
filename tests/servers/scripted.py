"""A scripted model server on loopback, compatible with OpenAI's chat completions.

It answers by a function of the messages, counts what it is asked, and misbehaves by rule. In tests it runs
in a thread (`serve`); to measure a client, in a process of its own:

    python -m tests.servers.scripted --latency 0.05 --script echo

which prints its URL, tells its counters at `GET /stats`, and the body and state of every request at
`GET /requests`.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.servers.anthropic import Anthropic
from tests.servers.openai import Message, OpenAI, Reply, text_of
from tests.servers.server import Rule, Script, Server

CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""Signed by itself, for 127.0.0.1 only; its key is no secret."""


@contextmanager
def serve(
    script: Script,
    *,
    latency: float = 0.0,
    rule: Rule = lambda _: None,
    port: int = 0,
    tls: bool = False,
    dialect: OpenAI | Anthropic | None = None,
) -> Iterator[Server]:
    """The server, in a thread of its own, until the block ends. Raises what the script raised.

    With `tls` it speaks HTTPS, and its certificate is `CERTIFICATE`.
    """
    server = Server(script, latency, rule, tls=tls, dialect=dialect or OpenAI())
    ready, stop = threading.Event(), asyncio.Event()
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    run = listen(server, listener, ready.set, stop)
    thread = threading.Thread(target=asyncio.run, args=(run,), name="scripted", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(stop.set)
        thread.join()
    if server.errors:
        raise server.errors[0]


async def listen(server: Server, listener: socket.socket, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drop whoever is connected."""
    server.loop = asyncio.get_running_loop()
    server.url = f"http{'s' * server.tls}://127.0.0.1:{listener.getsockname()[1]}/v1"
    accepting = await server.loop.create_server(
        server.accept,
        sock=listener,
        backlog=1024,
        ssl=_context() if server.tls else None,
    )
    ready()
    try:
        await stop.wait()
    finally:
        accepting.close()
        for connection in list(server.connections):
            connection.transport.abort()
        await accepting.wait_closed()


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


def first(count: int, reply: Reply) -> Rule:
    """The first `count` requests get `reply`."""
    return lambda request: reply if request.number < count else None


def echo(messages: list[Message]) -> str:
    """Says the last message back."""
    return text_of(messages[-1])


def rlm(code: str, then: str = "FINAL('no more')") -> Script:
    """A root model that writes `code` in its first turn and `then` in later ones; sub-calls are echoed.

    A root's messages begin with a system message.
    """

    def script(messages: list[Message]) -> str:
        if messages[0]["role"] not in ("system", "developer"):
            return echo(messages)
        turns = sum(message["role"] == "assistant" for message in messages)
        return f"```repl\n{then if turns else code}\n```"

    return script


def main() -> None:
    """Serve from the command line until killed."""
    options = argparse.ArgumentParser(prog="python -m tests.servers.scripted")
    options.add_argument("--latency", type=float, default=0.0, help="seconds before each reply")
    options.add_argument("--port", type=int, default=0, help="0: any free one")
    options.add_argument("--script", choices=["echo", "rlm"], default="echo")
    options.add_argument("--code", default="FINAL('done')", help="the first turn of the root of `rlm`")
    options.add_argument("--then", default="FINAL('no more')", help="its later turns")
    given = options.parse_args()
    server = Server(echo if given.script == "echo" else rlm(given.code, given.then), given.latency)
    listener = socket.create_server(("127.0.0.1", given.port), backlog=1024)
    with suppress(KeyboardInterrupt):
        asyncio.run(listen(server, listener, lambda: print(server.url, flush=True), asyncio.Event()))


if __name__ == "__main__":
    main()
