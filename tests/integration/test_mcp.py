"""The RLM as an MCP server, asked by the official client, and the tools of other MCP servers in the REPL."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from httpx import HTTPStatusError
from langchain_mcp_adapters.client import MultiServerMCPClient
from langgraph.checkpoint.memory import InMemorySaver
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.memory import create_connected_server_and_client_session as connected
from mcp.types import CallToolResult

from rlm_langchain import Budget, create_rlm
from rlm_langchain.cli import run
from rlm_langchain.integrations.mcp_server import create_mcp_server
from rlm_langchain.testing.models import FunctionModel, script
from tests.servers.scripted import rlm as play
from tests.servers.scripted import serve
from tests.servers.server import Server
from tests.servers.toolbox import toolbox

COUNT = "FINAL([type(context).__name__, len(context), llm_query('x')])"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "log.txt").write_text("all is well\nthe roof leaks\n" * 50)
    (tmp_path / "shop" / "notes.txt").write_text("nothing")
    (tmp_path / "secret.txt").write_text("hidden")
    (tmp_path / "shop" / "way_out").symlink_to(tmp_path / "secret.txt")
    return tmp_path / "shop"


@pytest.fixture
def model() -> Iterator[Server]:
    with serve(play(COUNT)) as server:
        yield server


def words(result: CallToolResult) -> str:
    return result.content[0].text


async def a_session(session: ClientSession, folder: Path) -> None:
    """What a client does: it is the same over every transport."""
    assert [tool.name for tool in (await session.list_tools()).tools] == ["load_context", "ask", "search"]
    loaded = await session.call_tool("load_context", {"path": str(folder / "log.txt")})
    assert loaded.structuredContent["name"] == "log.txt"
    assert "1,350 characters" in loaded.structuredContent["about"]
    steps: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(message)

    asked = {"query": "How long is it?", "contexts": ["log.txt"]}
    answer = (await session.call_tool("ask", asked, progress_callback=note)).structuredContent
    assert (answer["answer"], answer["status"], answer["sub_calls"]) == (["str", 1350, "x"], "complete", 1)
    assert steps == ["turn 1 is written", "1 sub-calls are asked"]
    found = await session.call_tool("search", {"query": "roof", "context": "log.txt", "k": 1})
    [passage] = found.structuredContent["result"]
    assert "the roof leaks" in passage["text"]


def environment(model: Server, **more: str) -> dict[str, str]:
    return {**os.environ, "OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "sk-...", **more}


COMMAND = ["-m", "rlm_langchain", "mcp", "--model", "openai:any", "--sandbox", "monty"]


async def test_over_standard_input_and_output(model, folder):
    command = StdioServerParameters(
        command=sys.executable, args=[*COMMAND, "--root", str(folder)], env=environment(model), cwd=ROOT
    )
    async with stdio_client(command) as streams, ClientSession(*streams) as session:
        await session.initialize()
        await a_session(session, folder)


@asynccontextmanager
async def listening(model: Server, folder: Path, **more: str) -> AsyncIterator[str]:
    """`rlm mcp --http 0`, until the block ends with a Ctrl-C that it obeys."""
    arguments = [*COMMAND, "--http", "0", "--root", str(folder)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment(model, **more), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        first = (await process.stderr.readline()).decode()
        yield re.search(r"http://\S+", first)[0]
        process.send_signal(signal.SIGINT)
        rest = (await process.stderr.read()).decode()
        assert (await process.wait(), rest) == (130, "")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_over_http_for_those_who_have_the_token(model, folder):
    async with listening(model, folder, RLM_MCP_TOKEN="a secret") as url:
        with pytest.raises(ExceptionGroup) as refused:
            async with streamable_http_client(url) as streams, ClientSession(*streams[:2]) as session:
                await session.initialize()
        assert refused.group_contains(HTTPStatusError, match="401")
        async with (
            create_mcp_http_client({"Authorization": "Bearer a secret"}) as client,
            streamable_http_client(url, http_client=client) as streams,
            ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            await a_session(session, folder)


@asynccontextmanager
async def desk(folder: Path, *cells: str, **options: Any) -> AsyncIterator[ClientSession]:
    """A client of a server in this process."""
    rlm = create_rlm(script(*cells), sandbox="monty", **options)
    async with connected(create_mcp_server(rlm, roots=[folder])._mcp_server) as session:
        yield session


def test_a_client_is_told_our_version(folder):
    options = create_mcp_server(
        create_rlm(script("FINAL(1)")), roots=[folder]
    )._mcp_server.create_initialization_options()
    assert (options.server_name, options.server_version) == ("rlm", version("rlm-langchain"))


async def test_texts_and_folders_have_names_and_several_are_read_together(folder):
    async with desk(folder, "FINAL({name: type(it).__name__ for name, it in context.items()})") as session:
        await session.call_tool("load_context", {"path": str(folder), "name": "all"})
        text = (await session.call_tool("load_context", {"text": "abc"})).structuredContent["name"]
        assert re.fullmatch("text-[0-9a-f]{8}", text)
        answer = await session.call_tool("ask", {"query": "q", "contexts": ["all", text]})
        assert answer.structuredContent["answer"] == {"all": "dict", text: "str"}


@pytest.mark.parametrize(
    ("tool", "given", "said"),
    [
        ("nothing", {}, "there is no tool 'nothing'; there are load_context, ask, search"),
        ("x" * 100_000, {}, "characters left out"),
        ("load_context", {"text": "a", "title": "b"}, "takes no argument 'title'; it takes path, text, name"),
        ("load_context", {"path": 5}, "load_context was called wrongly: path: Input should be a valid string"),
        ("load_context", {"text": "a", "name": "x" * 100_000}, "a name has 1 to 200 characters, not 100,000"),
        ("load_context", {"text": "a", "name": " "}, "a name has 1 to 200 characters, not 0"),
        ("ask", {"query": "q"}, "ask was called wrongly: contexts: Field required"),
        ("ask", {"query": ["q"], "contexts": "t"}, "query: Input should be a valid string; contexts: Input should"),
        ("ask", {"query": " ", "contexts": ["t"]}, "ask a question"),
        ("search", {"query": "q", "context": "t", "k": 10**9}, "k: Input should be less than or equal to 100"),
    ],
    ids=lambda part: str(part)[:30],
)
async def test_a_wrong_call_is_told_in_a_sentence(folder, tool, given, said):
    async with desk(folder, "FINAL(len(context))") as session:
        await session.call_tool("load_context", {"text": "abc", "name": "t"})
        result = await session.call_tool(tool, given)
        assert result.isError
        assert said in words(result)
        assert len(words(result)) < 1_000
        asked = {"query": "q", "contexts": ["t"]}
        assert (await session.call_tool("ask", asked)).structuredContent["answer"] == 3


async def test_a_checkpointer_of_the_rlm_is_not_used_since_questions_have_no_thread(folder):
    async with desk(folder, "FINAL(len(context))", checkpointer=(saver := InMemorySaver())) as session:
        await session.call_tool("load_context", {"text": "abc", "name": "t"})
        answer = await session.call_tool("ask", {"query": "q", "contexts": ["t"]})
        assert answer.structuredContent["answer"] == 3
    assert not saver.storage


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("ask", {"query": "q", "contexts": ["x"]}, "no context is called x; loaded: none yet: call load_context"),
        ("search", {"query": "q", "context": "x"}, "no context is called x"),
        ("load_context", {}, "give either a path or a text"),
        ("load_context", {"text": ""}, "there is nothing in it"),
        ("load_context", {"path": "missing.txt"}, "is outside of what this server may read; it may read: "),
        ("load_context", {"path": "SHOP/../secret.txt"}, "is outside"),
        ("load_context", {"path": "SHOP/way_out"}, "is outside"),
        ("load_context", {"path": "SHOP/missing.txt"}, "missing.txt"),
    ],
)
async def test_a_mistake_is_a_sentence(folder, tool, arguments, sentence):
    given = json.loads(json.dumps(arguments).replace("SHOP", str(folder)))
    async with desk(folder, "FINAL(1)") as session:
        result = await session.call_tool(tool, given)
    assert result.isError
    assert sentence in words(result)


async def test_a_spent_budget_is_a_partial_answer_and_a_foreign_error_keeps_its_text(folder):
    async with desk(folder, "print(1)", "prose:about 3", budget=Budget(iterations=1)) as session:
        answer = (await session.call_tool("ask", {"query": "q", "contexts": []})).structuredContent
        assert (answer["answer"], answer["status"], answer["stop_reason"]) == ("about 3", "partial", "iterations")

    def leak(_: Any) -> str:
        raise RuntimeError("the key is sk-123")

    rlm = create_rlm(FunctionModel(function=leak))
    async with connected(create_mcp_server(rlm)._mcp_server) as session:
        result = await session.call_tool("ask", {"query": "q", "contexts": []})
    assert result.isError
    assert "sk-123" not in words(result)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no model was named"),
        (["--model", "openai:any", "--http", "somewhere"], "--http somewhere: give PORT, or HOST:PORT"),
        (["--model", "openai:any", "--http", "0.0.0.0:0"], "set RLM_MCP_TOKEN"),
        (["--model", "openai:any", "--http", "127.0.0.1:1"], "nothing can listen at 127.0.0.1, port 1"),
        (["--model", "openai:any", "--approve-above-calls", "3"], "no person to ask"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(arguments, sentence, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-...")
    if "127.0.0.1:1" in arguments:
        monkeypatch.setattr("socket.create_server", _denied)
    assert run(["mcp", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def _denied(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied")


USES = """
try:
    wrong = weather("Atlantis")
except LLMError as error:
    wrong = str(error)
FINAL([weather("Ulm"), populations(cities=["Ulm", "Bonn"]), wrong])
"""
USED = ["sunny in Ulm", {"Ulm": 3000, "Bonn": 4000}, "weather says: Error executing tool weather: no such city"]


def test_tools_of_an_mcp_server_are_functions_of_the_repl_in_sync_and_async_runs():
    with toolbox() as url:
        client = MultiServerMCPClient({"box": {"transport": "streamable_http", "url": url}})
        rlm = create_rlm(script(USES), sandbox="monty", tools=asyncio.run(client.get_tools()))
        for output in (rlm.invoke("q"), asyncio.run(rlm.ainvoke("q"))):
            assert output["answer"] == USED


@pytest.mark.parametrize(("cell", "answer"), [("FINAL(['2024-01-02'])", ["2024-01-02"]), ("FINAL('no')", None)])
async def test_an_answer_of_a_type_is_json_and_one_that_never_fits_says_why(cell, answer):
    rlm = create_rlm(script(cell), output_schema=set[date], budget=Budget(iterations=2), sandbox="monty")
    async with connected(create_mcp_server(rlm)._mcp_server) as session:
        told = (await session.call_tool("ask", {"query": "when?", "contexts": []})).structuredContent
    assert told["answer"] == answer
    assert (told["misfit"] is None) == (answer is not None)
