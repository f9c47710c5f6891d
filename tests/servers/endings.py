"""A program that uses event loops in every way that they can end. Its standard error must stay empty.

python -W error -m tests.servers.endings clean URL URL_WITH_TLS
python -m tests.servers.endings rough URL
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable

from langchain_openai import ChatOpenAI

from rlm_langchain.models.http.pool import keep_pool_open, pool_of_loop
from rlm_langchain.models.http.transport import async_client, sync_client

LEFT: list[asyncio.Task[str]] = []
"""Tasks that nobody waits for."""


def chat(url: str, timeout: float | None = None) -> ChatOpenAI:
    """As `rlm_langchain.models.providers` builds it."""
    return ChatOpenAI(
        model="m",
        base_url=url,
        api_key="k",  # type: ignore[arg-type]
        max_retries=0,
        timeout=timeout,
        stream_usage=True,
        http_client=sync_client(),
        http_async_client=async_client(),
    )


async def ask(url: str, what: str = "hello") -> str:
    return str((await chat(url).ainvoke(what)).content)


def in_threads(count: int, do: Callable[[], object]) -> None:
    threads = [threading.Thread(target=do) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def ask_with_a_lease(url: str) -> str:
    async with keep_pool_open():
        return await ask(url)


async def begin_to_ask(url: str) -> asyncio.Task[str]:
    """A request that is in flight and stays so."""
    task, pool = asyncio.create_task(ask(url, "hang")), await pool_of_loop()
    while not pool.busy:  # noqa: ASYNC110 - a pool tells nobody
        await asyncio.sleep(0)
    return task


async def ask_and_be_cancelled(url: str) -> None:
    await ask(url)
    hanging = await begin_to_ask(url)
    hanging.cancel()
    await asyncio.wait([hanging])


async def ask_and_leave_a_task(url: str) -> None:
    await ask(url)
    LEFT.append(await begin_to_ask(url))


async def ask_and_fail(url: str) -> None:
    await ask(url)
    raise KeyError


def clean(url: str) -> None:
    """Loops that are run as `asyncio.run` does, which shuts them down."""
    for _ in range(2):
        assert asyncio.run(ask(url)) == "hello"
    assert asyncio.run(ask_with_a_lease(url)) == "hello"
    in_threads(3, lambda: asyncio.run(ask(url)))
    in_threads(3, lambda: asyncio.run(ask_with_a_lease(url)))
    asyncio.run(ask_and_be_cancelled(url))
    asyncio.run(ask_and_leave_a_task(url))
    try:
        asyncio.run(ask_and_fail(url))
    except KeyError:
        pass
    else:
        raise AssertionError
    gc.collect()


def rough(url: str) -> None:
    """Loops that nobody shuts down."""
    for _ in range(2):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(ask(url)) == "hello"
        loop.close()
    gc.collect()
    asked, never_closed = threading.Event(), asyncio.new_event_loop()
    never_closed.run_until_complete(ask(url))

    async def for_ever() -> None:
        await ask(url)
        asked.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(for_ever()), daemon=True).start()
    asked.wait()


if __name__ == "__main__":
    way, *urls = sys.argv[1:]
    for each in urls:
        {"clean": clean, "rough": rough}[way](each)
    print("done")
