"""The factory that `langgraph.json` names, against a scripted server."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import BadRequestError

from rlm_langchain import ConfigurationError
from tests.servers.scripted import rlm as play
from tests.servers.scripted import serve
from tests.servers.server import Server

ROOT = Path(__file__).parents[2]


def factory() -> Any:
    """What the server would load."""
    place = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["rlm"]
    path, _, name = place.partition(":")
    spec = importlib.util.spec_from_file_location("served", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


async def test_the_served_graph_takes_json_and_gives_json(monkeypatch):
    with serve(play("FINAL([len(context), llm_query('x')])")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        graph = await factory()({"configurable": {"model": "openai:any"}})
        end = await graph.ainvoke({"query": "How long?", "context": "abc"})
    assert end["answer"][0] == 3
    assert json.loads(json.dumps(end))["status"] == "complete"


async def test_the_graph_of_an_assistant_is_built_once(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-...")
    make, config = factory(), {"configurable": {"model": "openai:any"}}
    assert await make(config) is await make(config)
    assert await make(config) is not await make({"configurable": {"model": "openai:other"}})


@pytest.mark.parametrize("chosen", [{"model": {"a": 1}}, {"model": ["x"]}, {"model": "openai:x", "sub_model": 7}])
async def test_a_model_is_named_by_a_text(chosen):
    with pytest.raises(ConfigurationError, match="names of models"):
        await factory()({"configurable": chosen})


async def test_no_model_is_a_sentence():
    with pytest.raises(ConfigurationError, match="RLM_MODEL"):
        await factory()({})


@contextmanager
def serving(model: Server, folder: Path, *, refusing: bool = False) -> Iterator[str]:
    """`langgraph dev`, as anybody would start it, ended by a Ctrl-C that it obeys.

    It refuses what blocks its event loop, so nothing of ours does. Its log holds no traceback, unless it was
    `refusing` something on purpose.
    """
    shipped = (ROOT / "langgraph.json").read_text().replace("./rlm_langchain", str(ROOT / "rlm_langchain"))
    (folder / "langgraph.json").write_text(shipped)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": "sk-...",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGSMITH_TRACING": "false",
        "RLM_MODEL": "openai:any",
    }
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", str(port)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    patience = threading.Timer(120, process.kill)
    patience.start()
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Application started up" in line:
                break
        else:
            pytest.fail("".join(said))
        reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
        reader.start()
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130, -signal.SIGINT)
        reader.join()
        assert "BlockingError" not in "".join(said)
        assert refusing or "Traceback" not in "".join(said)
    finally:
        patience.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


async def test_langgraphs_server_answers_over_http_and_streams(tmp_path):
    question = {"query": "How long?", "context": "abc"}
    code = "print(len(context))\n```\n\n```repl\nFINAL([len(context), rlm_query('child')])"
    with serve(play(code, "FINAL(['again', len(context)])")) as model, serving(model, tmp_path) as url:
        client = get_client(url=url)
        end = await client.runs.wait(None, "rlm", input=question)
        assert (end["answer"], end["status"]) == ([3, "child"], "complete")
        thread = (await client.threads.create())["thread_id"]
        records = [
            part.data["type"]
            async for part in client.runs.stream(thread, "rlm", input=question, stream_mode="custom")
            if part.event == "custom"
        ]
        assert records[0] == "question"
        assert records[-1] == "answer"
        follow_up = await client.runs.wait(thread, "rlm", input={"query": "And now?"})
        assert follow_up["answer"] == ["again", 3]
        await client.aclose()


async def test_a_client_of_the_server_names_no_path_and_writes_no_state(tmp_path):
    cell = "FINAL(len(context))"
    with serve(play(cell, cell)) as model, serving(model, tmp_path, refusing=True) as url:
        client = get_client(url=url)
        thread = (await client.threads.create())["thread_id"]
        assert (await client.runs.wait(thread, "rlm", input={"query": "q", "context": "abc"}))["answer"] == 3
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "kept.jsonl").write_text("kept")
        told = {
            "sha256": "0" * 64,
            "kind": "text",
            "type": "str",
            "length": 9,
            "size": 9,
            "about": "a str",
            "preview": "",
        }
        for path in (tmp_path / "fifo", "/dev/zero"):
            context = {**told, "path": str(path)}
            hostile = {
                "query": "q",
                "context": context,
                "run": f"../../..{tmp_path}/kept",
                "path": "0",
                "agreed": {"calls": 10**9, "usd": None},
            }
            end = await client.runs.wait(None, "rlm", input=hostile)
            assert (end["answer"], end["status"]) == (len(context), "complete")
        before = await client.threads.get_state(thread)
        with pytest.raises(BadRequestError):
            await client.threads.update_state(thread, {"agreed": {"calls": 10**9, "usd": None}}, as_node="execute")
        assert (await client.threads.get_state(thread))["values"] == before["values"]
        assert (tmp_path / "kept.jsonl").read_text() == "kept"
        errand = {"run": f"../../..{tmp_path}/kept", "path": "", "cell": 0, "calls": [0], "query": "q"}
        commands: list[Any] = [
            {"update": {"agreed": {"calls": 10**9, "usd": None}}},
            {"goto": {"node": "subcall", "input": errand}},
        ]
        for command in commands:
            end = await client.runs.wait(thread, "rlm", command=command, raise_error=False)
            assert end["__error__"]["error"] == "UpdateRefused"
        follow_up = await client.runs.wait(thread, "rlm", input={"query": "And now?"})
        assert follow_up["answer"] == 3
        await client.aclose()
