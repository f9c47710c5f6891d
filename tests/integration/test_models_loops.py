"""Chat models that users bring, in programs that use many event loops: no request is lost or sent twice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI

from rlm_langchain import create_rlm
from rlm_langchain.models.registry import resolve
from tests.servers.anthropic import Anthropic
from tests.servers.openai import OpenAI
from tests.servers.scripted import rlm, serve
from tests.servers.server import Server

SCRIPT = rlm("FINAL(llm_query('a'))")


def openai(url: str) -> BaseChatModel:
    return ChatOpenAI(model="m", base_url=url, api_key="k")  # type: ignore[arg-type]


def anthropic(url: str) -> BaseChatModel:
    return ChatAnthropic(model="claude", base_url=url.removesuffix("/v1"), api_key="k")  # type: ignore[call-arg]


@pytest.fixture(params=[(openai, OpenAI), (anthropic, Anthropic)], ids=["OpenAI", "Anthropic"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Server, BaseChatModel]]:
    build, dialect = request.param
    with serve(SCRIPT, dialect=dialect()) as server:
        yield server, build(server.url)


@pytest.mark.parametrize("model", ["of its own", "shared"])
def test_a_model_works_in_one_sync_run_after_another(served: Any, model: str) -> None:
    server, chat = served
    asked = [create_rlm(chat, sandbox="monty") for _ in range(3)] if model == "of its own" else []
    shared = create_rlm(chat, sandbox="monty")
    outputs = [one.invoke("q") for one in asked or [shared] * 3]
    assert [output["answer"] for output in outputs] == ["a"] * 3
    assert server.calls == 6


def test_a_model_works_on_one_event_loop_after_another(served: Any) -> None:
    server, chat = served
    shared = create_rlm(chat, sandbox="monty")
    assert [asyncio.run(shared.ainvoke("q"))["answer"] for _ in range(3)] == ["a"] * 3
    assert shared.invoke("q")["answer"] == "a"
    assert server.calls == 8


def test_a_model_of_another_class_works_in_one_sync_run_after_another() -> None:
    """Its client is its own, and holds connections of the loop that sync runs share."""
    with serve(SCRIPT) as server:
        chat = Foreign(model="m", base_url=server.url, api_key="k", http_async_client=httpx2.AsyncClient())
        asked = create_rlm(chat, sandbox="monty")
        assert [asked.invoke("q")["answer"] for _ in range(3)] == ["a"] * 3
        assert server.calls == 6


class Foreign(ChatOpenAI):
    """One that brings a client."""


class Claude(ChatAnthropic):
    """One of a user's own."""


def test_a_client_that_a_user_has_chosen_is_kept() -> None:
    mine = httpx2.AsyncClient(headers={"X-Mine": "yes"})
    with serve(SCRIPT) as server:
        chat = ChatOpenAI(model="m", base_url=server.url, api_key="k", http_async_client=mine)  # type: ignore[arg-type]
        assert resolve(chat, "root").chat is chat
        assert create_rlm(chat, sandbox="monty").invoke("q")["answer"] == "a"
        assert server.requests[0].headers["x-mine"] == "yes"


def test_a_model_that_brings_both_of_its_clients_keeps_them() -> None:
    theirs = ChatOpenAI(model="m", api_key="k")  # type: ignore[arg-type]
    chat = ChatOpenAI(model="m", client=theirs.client, async_client=theirs.async_client)
    assert chat.root_async_client is None
    assert resolve(chat, "root").chat is chat


def test_a_subclass_of_either_providers_class_leaves_retries_to_us() -> None:
    openai: Any = resolve(Foreign(model="m", api_key="k"), "root").chat  # type: ignore[arg-type]
    claude: Any = resolve(Claude(model="claude-sonnet-4-6", api_key="k"), "root").chat  # type: ignore[call-arg, arg-type]
    assert (type(openai), type(claude)) == (Foreign, Claude)
    assert (openai.root_async_client.max_retries, claude._async_client.max_retries) == (0, 0)


def test_a_model_that_is_taken_over_is_the_same_but_for_its_connections() -> None:
    chat = ChatOpenAI(model="m", api_key="k", temperature=0.5, max_retries=7, stop_sequences=["x"])  # type: ignore[call-arg, arg-type]
    ours: Any = resolve(chat, "root").chat
    assert ours is not chat
    assert (ours.temperature, ours.stop, ours.root_async_client.base_url) == (
        0.5,
        ["x"],
        chat.root_async_client.base_url,
    )
    assert (ours.root_async_client.max_retries, chat.root_async_client.max_retries) == (0, 7)


FORK = """
import os, sys
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from rlm_langchain import SandboxError, create_rlm
from rlm_langchain.testing import script

monty = create_rlm(script("FINAL(1)"), sandbox="monty")
assert monty.invoke("q")["answer"] == 1
rlm = create_rlm(ChatOpenAI(model="m", base_url=sys.argv[1], api_key="k"), sandbox="cpython")
assert rlm.invoke("q")["answer"] == "a"
child = os.fork()
assert rlm.invoke("q")["answer"] == "a"
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    try:
        monty.invoke("q")
    except SandboxError as error:
        assert "forked" in str(error)
    else:
        raise AssertionError
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox that survives a fork is Linux's")
def test_a_forked_process_has_a_loop_of_its_own_and_ends_in_peace(home: Any) -> None:
    with serve(SCRIPT) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", FORK, server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert server.calls == 6


LEFT = """
from rlm_langchain import create_rlm
from rlm_langchain.testing import script

stream = create_rlm(script("FINAL(llm_query('a'))"), sandbox="monty").stream("q", stream_mode="updates")
assert next(stream).keys() == {"prepare"}
"""


def test_a_program_may_end_in_the_midst_of_a_stream(home: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
