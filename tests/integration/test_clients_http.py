"""Connections over real sockets: shared, never left open, and never complained about."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from langchain_openai.chat_models.base import OpenAIConnectionError

from rlm_langchain.errors import ConfigurationError
from rlm_langchain.models.http.pool import keep_pool_open
from rlm_langchain.models.http.transport import async_client, sync_client
from tests.servers.endings import ask, chat
from tests.servers.openai import HANGING, Reply, completion
from tests.servers.scripted import CERTIFICATE, echo, serve
from tests.servers.server import Server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(echo) as running:
        yield running


def run_endings(*words: str, **env: str) -> None:
    """Run `tests.servers.endings`, and see that it had nothing to complain about."""
    # Of loops that are not shut down asyncio itself would complain, if warnings were on.
    flags = ["-W", "error"] if "clean" in words else []
    done = subprocess.run(
        [sys.executable, *flags, "-m", "tests.servers.endings", *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, **env},
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def hang_on_word(messages: list[dict[str, Any]]) -> str | Reply:
    return HANGING if messages[-1]["content"] == "hang" else "hello"


def test_however_a_loop_ends_nothing_is_left_open_and_nothing_warns() -> None:
    with serve(hang_on_word) as plain, serve(hang_on_word, tls=True) as secure:
        run_endings("clean", plain.url, secure.url, SSL_CERT_FILE=str(CERTIFICATE))


def test_loops_that_nobody_shuts_down_make_no_noise_either() -> None:
    with serve(echo) as server:
        run_endings("rough", server.url)


async def test_the_last_lease_closes_the_connections_while_the_loop_runs_on(server: Server) -> None:
    async with keep_pool_open():
        async with keep_pool_open():
            await ask(server.url)
        assert len(server.connections) == 1
        await ask(server.url)
    await asyncio.to_thread(server.wait, lambda s: not s.connections)
    assert server.accepted == 1


async def test_a_lease_without_a_request_does_nothing() -> None:
    async with keep_pool_open(), keep_pool_open():
        pass


async def test_after_a_lease_connections_are_opened_anew(server: Server) -> None:
    for _ in range(2):
        async with keep_pool_open():
            assert await ask(server.url) == "hello"
    assert server.accepted == 2


async def test_the_end_of_a_lease_does_not_cut_another_ones_request() -> None:
    with serve(lambda _: HANGING) as server:
        other = asyncio.create_task(ask(server.url))
        await asyncio.to_thread(server.wait, lambda s: s.calls == 1)
        async with keep_pool_open():
            pass
        server.release()
        assert await other == "late"


async def test_requests_one_after_the_other_share_a_connection(server: Server) -> None:
    async with keep_pool_open():
        for _ in range(5):
            await ask(server.url)
    assert (server.calls, server.accepted) == (5, 1)


async def test_hundreds_of_requests_are_in_flight_at_once() -> None:
    with serve(lambda _: HANGING) as server:
        async with keep_pool_open():
            tasks = [asyncio.create_task(ask(server.url)) for _ in range(300)]
            await asyncio.to_thread(server.wait, lambda s: s.in_flight == 300)
            server.release()
            assert await asyncio.gather(*tasks) == ["late"] * 300
    assert server.peak == 300


def test_threads_do_not_share_pools(server: Server) -> None:
    both = threading.Barrier(2)

    async def main() -> None:
        async with keep_pool_open():
            await ask(server.url)
            both.wait()
            await ask(server.url)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (server.calls, server.accepted) == (4, 2)


def test_a_model_can_be_asked_synchronously_too(server: Server) -> None:
    assert chat(server.url).invoke("hello").content == "hello"


async def test_a_stream_arrives_in_pieces_and_may_be_left_early(server: Server) -> None:
    model = chat(server.url)
    pieces = [piece async for piece in model.astream("one two three")]
    assert "".join(str(piece.content) for piece in pieces) == "one two three"
    assert sum(piece.usage_metadata is not None for piece in pieces) == 1
    stream = model.astream("one two three")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert await ask(server.url) == "hello"


async def test_a_compressed_reply_is_read() -> None:
    body = completion(0, {"messages": [], "model": "m"}, Reply("packed"))
    packed = Reply(raw=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    with serve(lambda _: packed) as server:
        assert await ask(server.url) == "packed"


async def test_cookies_are_not_sent_to_the_next_model() -> None:
    body = completion(0, {"messages": [], "model": "m"}, Reply("hi"))
    with serve(lambda _: Reply(raw=body, headers={"Set-Cookie": "session=secret; Path=/"})) as server:
        await ask(server.url)
        await ask(server.url)
    assert all("cookie" not in request.headers for request in server.requests)


async def test_a_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    assert await ask("http://models.test/v1") == "hello"
    assert server.requests[0].headers["host"] == "models.test"


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
async def test_this_machine_is_reached_without_a_proxy(
    name: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await ask(server.url) == "hello"


async def test_a_proxy_of_an_unknown_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://user:secret@127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="'socks5' are not supported") as caught:
        await ask("http://models.test/v1")
    assert "secret" not in str(caught.value)


async def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    with serve(echo, tls=True) as server:
        with pytest.raises(OpenAIConnectionError):
            await ask(server.url)
        assert server.calls == 0


def test_clients_are_shared() -> None:
    assert async_client() is async_client()
    assert sync_client() is sync_client()


async def test_the_server_keeps_what_it_was_sent(server: Server) -> None:
    """The fixture of all these tests is itself tested."""
    await ask(server.url, "word for word")
    assert server.requests[0].messages == [{"role": "user", "content": "word for word"}]
    assert server.stats()["tokens"] == {"input": 4, "output": 4, "cached": 0}
    told = httpx2.Client()
    with told:
        stats = told.get(f"{server.url.removesuffix('/v1')}/stats").json()
        requests = json.loads(told.get(f"{server.url.removesuffix('/v1')}/requests").text)
    assert (stats["calls"], requests[0]["state"]) == (1, "sent")
