"""Keys are read by the host and sent to the provider; they are in nothing else, whatever the provider does."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from rlm_langchain import ModelError, create_rlm
from rlm_langchain.cli import run as command
from rlm_langchain.models.registry import resolve
from tests.servers.openai import Reply, failure
from tests.servers.scripted import rlm as plays
from tests.servers.scripted import serve
from tests.servers.server import Request, Server

KEY, PASSWORD = "sk-canary-5e2f77aa90", "pw-canary-11cc34de80"
CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Witness(BaseCallbackHandler):
    """Everything that a tracer is told, errors with their chain, their body and their request."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def _note(self, *told: Any) -> None:
        self.told.append(repr(told))

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self._note(serialized, inputs, kwargs)

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self._note(outputs, kwargs)

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self._note(serialized, messages, kwargs)

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.told.append("".join(traceback.format_exception(error)))

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        response = getattr(error, "response", None)
        self.told.append("".join(traceback.format_exception(error)))
        self._note(vars(error).get("body"), response and (response.text, [*response.headers.items()]))


def echoing(request: Request) -> Reply:
    """A provider that repeats what it was sent: in the body, in a header, and in its own words."""
    sent = json.dumps(request.headers)
    return failure(
        401, f"Incorrect API key provided: {sent}", "invalid_api_key", x_sent=request.headers["authorization"]
    )


def echoing_zipped(request: Request) -> Reply:
    reply = echoing(request)
    assert reply.raw is not None
    return Reply(status=400, headers={"content-encoding": "gzip"}, raw=gzip.compress(reply.raw))


@pytest.fixture(params=[echoing, echoing_zipped])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(lambda _: "", rule=request.param) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENROUTER_BASE_URL", running.url)
        monkeypatch.setenv("OLLAMA_HOST", running.url.removesuffix("/v1"))
        for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "OLLAMA_API_KEY"):
            monkeypatch.setenv(name, KEY)
        yield running


def clean(*told: object) -> bool:
    """Whether no secret is in any of these."""
    text = "\n".join(one.decode("latin-1") if isinstance(one, bytes) else str(one) for one in told)
    return KEY not in text and PASSWORD not in text


def chain(error: BaseException) -> str:
    """An error as it is printed when nobody catches it, with all that it came from."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("name", ["openai:gpt-x", "openai/gpt-4o", "ollama:llama"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_provider_that_repeats_the_key_tells_it_to_nobody(
    server: Server, name: str, way: str, caplog: pytest.LogCaptureFixture, home: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    saver, witness = InMemorySaver(), Witness()
    rlm = create_rlm(name, sandbox="monty", checkpointer=saver)
    config = {**CONFIG, "callbacks": [witness]}
    with pytest.raises(ModelError) as caught:
        rlm.invoke("q", config) if way == "invoke" else asyncio.run(rlm.ainvoke("q", config))
    assert KEY in server.requests[0].headers["authorization"], "it was sent, and repeated"
    assert "401" in str(caught.value) or "400" in str(caught.value)
    stored = pickle.dumps((dict(saver.storage), dict(saver.writes), dict(saver.blobs)))
    assert clean(chain(caught.value), repr(caught.value), caplog.text, stored, *witness.told)
    assert any("***" in told for told in witness.told), "what is left of it shows that it was there"
    assert clean(*[path.read_bytes() for path in home.rglob("*") if path.is_file()])


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
def test_named_models_raise_errors_without_the_key(server: Server, way: str) -> None:
    chat = resolve("openai:gpt-x", "root").chat
    calls = {
        "invoke": lambda: chat.invoke([HumanMessage("hi")]),
        "ainvoke": lambda: asyncio.run(chat.ainvoke([HumanMessage("hi")])),
        "stream": lambda: [*chat.stream([HumanMessage("hi")])],
    }
    with pytest.raises(Exception, match=r"\*\*\*") as caught:
        calls[way]()
    response = caught.value.response  # type: ignore[attr-defined]
    assert clean(chain(caught.value), vars(caught.value).get("body"), response.text, response.headers)


def test_an_error_of_a_model_of_the_users_own_is_told_in_our_words(server: Server) -> None:
    chat = ChatOpenAI(model="own", base_url=server.url, api_key=KEY, max_retries=0)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=KEY):
        chat.invoke([HumanMessage("hi")])
    saver = InMemorySaver()
    with pytest.raises(ModelError) as caught:
        create_rlm(chat, sandbox="monty", checkpointer=saver).invoke("q", CONFIG)
    stored = pickle.dumps((dict(saver.storage), dict(saver.writes), dict(saver.blobs)))
    assert clean(chain(caught.value), stored)


def test_a_failed_sub_call_tells_the_code_nothing_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "try:\n    llm_query('x')\nexcept LLMError as error:\n    print(error)\n"
    code += "print(llm_query_batched(['a', 'b']))"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def refusing(request: Request) -> Reply | None:
        return echoing(request) if request.messages[0]["role"] == "user" else None

    with serve(plays(code, "FINAL('done')"), rule=refusing) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        output = create_rlm("openai:x", sandbox="monty").invoke("q")
        sent = [request.body for request in server.requests]
    assert output["answer"] == "done"
    assert "does not accept the key" in str(output["trajectory"])
    assert clean(output, sent)


def test_a_password_in_the_url_of_a_server_is_sent_and_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda _: "yes") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url.replace("//", f"//me:{PASSWORD}@"))
        chat = resolve("openai:x", "root").chat
        streamed = "".join(str(part.text) for part in chat.stream("hi"))
        assert {asyncio.run(chat.ainvoke("hi")).text, chat.invoke("hi").text, streamed} == {"yes"}
        assert {request.headers["authorization"].split()[0] for request in server.requests} == {"Basic"}
        rlm = create_rlm("openai:x", sandbox="monty")
        assert clean(repr(chat), repr(rlm), str(rlm), repr(resolve(chat, "root")), repr(create_rlm(chat)))
        server.rule = echoing
        with pytest.raises(ModelError) as caught:
            rlm.invoke("q")
    assert clean(chain(caught.value))


def test_a_model_of_the_users_own_is_its_name_in_the_text_of_an_rlm() -> None:
    url = f"http://me:{PASSWORD}@127.0.0.1:9/v1?key={KEY}"
    chat = ChatOpenAI(model="own", base_url=url, api_key=KEY, default_headers={"x-api-key": KEY})  # type: ignore[arg-type]
    rlm = create_rlm(chat, recursive_model=[chat, "openai:x"])
    assert not clean(repr(chat)), "LangChain's own text of it has them"
    assert clean(repr(rlm), str(rlm), rlm.get_name(), rlm.model_dump_json(include={"sandbox"}))
    assert "root_model=ChatOpenAI('own'), recursive_model=[ChatOpenAI('own'), 'openai:x']" in repr(rlm)


def test_the_command_shows_no_key(server: Server, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    assert command(["ask", "q", "--model", "openai:x", "--trace", str(trace)]) == 1
    assert clean(*capfd.readouterr(), trace.read_text())
    assert command(["doctor"]) == 0
    shown = capfd.readouterr().out
    assert "OPENAI_API_KEY" in shown
    assert clean(shown)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_no_key_is_in_the_environment_of_a_worker(sandbox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlm_langchain.plugins import load
    from rlm_langchain.types import Limits

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    session = load("sandboxes", sandbox)().open(None, "", Limits())
    environment = Path(f"/proc/{session._worker.pid}/environ").read_bytes() if Path("/proc").exists() else b""
    session.close()
    assert clean(environment)
