"""One connection pool for each event loop.

Sockets belong to the event loop that opened them, and programs use several: every `asyncio.run` starts a new one,
and a synchronous `invoke` works on a private one. The first request on a loop opens its pool. The end of the last
`keep_pool_open` block closes it, or else the end of the loop.

aiohttp sends the requests: httpx's own pool gets four times slower between 32 and 64 concurrent requests.
"""

from __future__ import annotations

import asyncio
import atexit
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from rlm_langchain.errors import ConfigurationError

CONNECTIONS = 1024
"""Most connections of one event loop: far above any sensible concurrency, so that `Budget.concurrency` decides."""
KEEP_ALIVE = 15.0
"""Seconds for which an idle connection is kept."""


@asynccontextmanager
async def keep_pool_open() -> AsyncIterator[None]:
    """Keep the running loop's connections open until the block ends. The last such block of a loop closes them."""
    loop = asyncio.get_running_loop()
    _users[loop] = _users.get(loop, 0) + 1
    try:
        yield
    finally:
        _users[loop] -= 1
        if not _users[loop]:
            del _users[loop]
            await _close(loop)


@dataclass(slots=True, eq=False)
class Pool:
    """The connections of one event loop."""

    session: aiohttp.ClientSession
    keeper: AsyncGenerator[aiohttp.ClientSession]
    """A generator whose end closes the session. A loop that shuts down closes its async generators, this one
    too."""
    busy: int = 0
    """Number of requests in flight."""
    proxies: dict[str, str | None] = field(default_factory=dict)

    def proxy(self, url: URL) -> str | None:
        """Return the proxy that the environment sets for this host. Raises `ConfigurationError` for a SOCKS
        proxy."""
        origin = f"{url.scheme}://{url.host}"
        if origin not in self.proxies:
            self.proxies[origin] = _proxy(url)
        return self.proxies[origin]


def _proxy(url: URL) -> str | None:
    host = url.host or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not proxy.startswith(("http://", "https://")):
        scheme = proxy.partition(":")[0]
        raise ConfigurationError(f"{scheme!r} proxies are not supported: set HTTPS_PROXY to http://...")
    return proxy


_pools: dict[asyncio.AbstractEventLoop, Pool] = {}
_users: dict[asyncio.AbstractEventLoop, int] = {}
"""Number of open `keep_pool_open` blocks of each loop."""


async def pool_of_loop() -> Pool:
    """Return the running loop's pool, and open it if there is none."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _forget_dead_loops()
        keeper = _session_lifetime(loop)
        _pools[loop] = Pool(await anext(keeper), keeper)
    return _pools[loop]


CLOSE_ROUNDS = 3
"""Event loop iterations to wait for aborted TLS connections to close their sockets."""


async def _session_lifetime(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE, socket_factory=_probed_socket)
    session = aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, response_class=_Reply
    )
    try:
        yield session
    finally:
        _pools.pop(loop, None)
        # An orderly TLS shutdown would wait for seconds if the peer does not reply.
        await connector.close(abort_ssl=True)
        for _ in range(CLOSE_ROUNDS if loop.is_running() else 0):
            await asyncio.sleep(0)


class _Reply(aiohttp.ClientResponse):
    """A response whose connection is aborted at once when it is abandoned halfway."""

    def close(self) -> None:
        """Abort the connection. An orderly shutdown waits for the peer and would outlive the pool."""
        if self.connection is not None and self.connection.transport is not None:
            with suppress(RuntimeError):  # the loop is closed, and its sockets with it
                self.connection.transport.abort()
        super().close()


def _probed_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket with TCP keep-alive. It notices a lost peer, and routers keep the connection while a model
    thinks."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    return opened


async def _close(loop: asyncio.AbstractEventLoop) -> None:
    pool = _pools.get(loop)
    if pool is not None and not pool.busy:
        await pool.keeper.aclose()


def _forget_dead_loops() -> None:
    for loop in [loop for loop in list(_pools) if loop.is_closed()]:
        _close_dead(_pools.pop(loop, None))
    for loop in [loop for loop in list(_users) if loop.is_closed()]:
        _users.pop(loop, None)


@atexit.register
def _close_all_dead() -> None:
    for loop in list(_pools):
        _close_dead(_pools.pop(loop, None))


def _close_dead(pool: Pool | None) -> None:
    """Close a pool whose loop will never run again, so that no warning appears when it is garbage collected."""
    if pool is not None and pool.session.connector is not None:
        # The public `close` has to be awaited, and there is no loop to do so.
        pool.session.connector._close()
        # With the connector closed, the generator has nothing to wait for: one step ends it.
        with suppress(StopIteration):
            pool.keeper.aclose().send(None)
