"""One pool of connections for each event loop.

Sockets belong to the event loop that opened them, and programs use several: every `asyncio.run` is a new one,
and a synchronous `invoke` works on a private one. A pool is opened by the first request of its loop, and
closed by the last `lease` on it, or else by the end of its loop.

aiohttp carries the requests: httpx's own pool becomes four times slower between 32 and 64 requests at once.
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
"""Of one event loop: far above any sensible concurrency, so that the gate is the only limit."""
KEEP_ALIVE = 15.0
"""Seconds an idle connection is kept."""


@asynccontextmanager
async def keep_pool_open() -> AsyncIterator[None]:
    """Keep the running loop's connections open until the block ends. The last lease on a loop closes them."""
    loop = asyncio.get_running_loop()
    _leases[loop] = _leases.get(loop, 0) + 1
    try:
        yield
    finally:
        _leases[loop] -= 1
        if not _leases[loop]:
            del _leases[loop]
            await _close(loop)


@dataclass(slots=True, eq=False)
class Pool:
    """The connections of one loop."""

    session: aiohttp.ClientSession
    keeper: AsyncGenerator[aiohttp.ClientSession]
    """Closing it closes the session. A loop that shuts down closes its generators, and this one with them."""
    busy: int = 0
    """Requests in flight."""
    proxies: dict[str, str | None] = field(default_factory=dict)

    def proxy(self, url: URL) -> str | None:
        """The proxy that the environment names for this host. Raises `ConfigurationError` for a SOCKS one."""
        where = f"{url.scheme}://{url.host}"
        if where not in self.proxies:
            self.proxies[where] = _proxy(url)
        return self.proxies[where]


def _proxy(url: URL) -> str | None:
    host = url.host or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return None
    named = getproxies()
    proxy = named.get(url.scheme) or named.get("all")
    if proxy and not proxy.startswith(("http://", "https://")):
        scheme = proxy.partition(":")[0]
        raise ConfigurationError(f"proxies of the kind {scheme!r} are not supported; set HTTPS_PROXY to http://...")
    return proxy


_pools: dict[asyncio.AbstractEventLoop, Pool] = {}
_leases: dict[asyncio.AbstractEventLoop, int] = {}


async def pool_of_loop() -> Pool:
    """The running loop's pool, opened when it has none."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _forget_dead_loops()
        keeper = _session_lifetime(loop)
        _pools[loop] = Pool(await anext(keeper), keeper)
    return _pools[loop]


CLOSE_ROUNDS = 3
"""Rounds of a loop in which connections that were aborted, TLS within TCP, let go of their sockets."""


async def _session_lifetime(loop: asyncio.AbstractEventLoop) -> AsyncGenerator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE, socket_factory=_probed_socket)
    session = aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, response_class=_Reply
    )
    try:
        yield session
    finally:
        _pools.pop(loop, None)
        # A peer that does not answer TLS's goodbye would make an orderly end last for seconds.
        await connector.close(abort_ssl=True)
        for _ in range(CLOSE_ROUNDS if loop.is_running() else 0):
            await asyncio.sleep(0)


class _Reply(aiohttp.ClientResponse):
    """A reply whose connection ends at once when it is given up halfway."""

    def close(self) -> None:
        """Hang up. An orderly end waits for the peer's goodbye, and outlives the pool."""
        if self.connection is not None and self.connection.transport is not None:
            with suppress(RuntimeError):  # of a loop that is closed, and its sockets with it
                self.connection.transport.abort()
        super().close()


def _probed_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices when its peer is gone, and that routers do not forget while a model thinks."""
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
    for loop in [loop for loop in list(_leases) if loop.is_closed()]:
        _leases.pop(loop, None)


@atexit.register
def _close_all_dead() -> None:
    for loop in list(_pools):
        _close_dead(_pools.pop(loop, None))


def _close_dead(pool: Pool | None) -> None:
    """Close a pool whose loop will never run again, so that nothing complains when it is collected."""
    if pool is not None and pool.session.connector is not None:
        # Its public twin returns something to await, and there is no loop to do so.
        pool.session.connector._close()
        # With the connector closed the keeper has nothing to wait for: one step is its end.
        with suppress(StopIteration):
            pool.keeper.aclose().send(None)
