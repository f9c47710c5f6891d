"""Whole runs with models by name, at servers that speak as OpenRouter's and Ollama's do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlm_langchain import Budget, create_rlm
from tests.servers.openai import Message, Reply, tool_call
from tests.servers.scripted import serve
from tests.servers.server import Server

CODE = "```repl\nFINAL([len(context), llm_query('a leaf')])\n```"
CONTEXT = "word " * 20_000


def script(messages: list[Message]) -> Reply:
    """A root that answers in its first turn. Every reply costs an eighth of a dollar; two tokens were cached."""
    return Reply(CODE if messages[0]["role"] == "system" else "leaf", cost=0.125, cached=2)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(script) as running:
        monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-1")
        monkeypatch.setenv("OPENROUTER_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OLLAMA_HOST", running.url.removesuffix("/v1"))
        yield running


def ask(root: str, sub: str | None = None, **options: Any) -> Any:
    rlm = create_rlm(root, recursive_model=sub, sandbox="monty", **options)
    return rlm.invoke({"query": "How long?", "context": CONTEXT})


def test_openrouters_bill_is_the_account(server: Server) -> None:
    output = ask("openai/gpt-4o", "meta-llama/llama-3.3-70b-instruct", budget=Budget(usd=1.0))
    assert output["answer"] == [100_000, "leaf"]
    assert output["cost_usd"] == 0.25
    assert [output["usage"][who]["cached"] for who in ("root", "sub")] == [2, 2]
    assert [request.body["model"] for request in server.requests] == [
        "openai/gpt-4o",
        "meta-llama/llama-3.3-70b-instruct",
    ]
    assert {request.headers["x-title"] for request in server.requests} == {"rlm-langchain"}
    assert all(request.body["usage"] == {"include": True} for request in server.requests)


@pytest.mark.parametrize(
    ("name", "marked"), [("anthropic/claude-sonnet-4.6", True), ("openai/gpt-4o", False), ("openai:any", False)]
)
def test_claude_is_marked_through_openrouter_too_and_nobody_else(name: str, marked: bool, server: Server) -> None:
    ask(name)
    root, leaf = server.requests
    contents = [message["content"] for message in root.messages]
    if marked:
        assert [content[-1]["cache_control"] for content in (contents[0], contents[-1])] == [
            {"type": "ephemeral"}
        ] * 2
        assert all(isinstance(content, str) for content in contents[1:-1])
    else:
        assert all(isinstance(content, str) for content in contents)
    assert isinstance(leaf.messages[-1]["content"], str)


def test_ollama_needs_no_key_and_costs_nothing(server: Server) -> None:
    server.rule = lambda request: Reply(script(request.messages).text, extra={"reasoning": "hm, code"})
    output = ask("ollama:qwen2.5-coder:7b", budget=Budget(usd=0.01))
    assert (output["answer"], output["cost_usd"]) == ([100_000, "leaf"], 0.0)
    assert server.requests[0].body["model"] == "qwen2.5-coder:7b"
    assert server.requests[0].body["max_tokens"] > 0


ODD = [
    Reply("", finish="length"),
    Reply(None),
    Reply(None, extra={"refusal": "I cannot"}),
    Reply("", extra={"reasoning_content": "```repl\nFINAL('thought')\n```"}),
    Reply("<think>\n```repl\nFINAL('thought')\n```\n</think>"),
    Reply(None, extra={"tool_calls": [tool_call("weather", city="Bonn")]}, finish="tool_calls"),
]


@pytest.mark.parametrize("odd", ODD, ids=["cut", "null", "refusal", "reasoning", "think", "tool"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_odd_reply_costs_a_turn_and_no_more(odd: Reply, stream: bool, server: Server) -> None:
    server.rule = lambda request: odd if request.number == 0 else None
    rlm = create_rlm("openai:any", sandbox="monty")
    given: Any = {"query": "How long?", "context": CONTEXT}
    output: Any = [*rlm.stream(given, stream_mode=["messages", "values"])][-1][1] if stream else rlm.invoke(given)
    assert (output["answer"], output["iterations"]) == ([100_000, "leaf"], 2)


@pytest.mark.parametrize("stream", [False, True])
def test_code_in_a_call_of_an_interpreter_is_run(stream: bool, server: Server) -> None:
    called = Reply(None, extra={"tool_calls": [{**tool_call("python", code="FINAL(len(context))"), "index": 0}]})
    server.rule = lambda _: called
    rlm = create_rlm("openai:any", sandbox="monty")
    given: Any = {"query": "How long?", "context": CONTEXT}
    output: Any = [*rlm.stream(given, stream_mode=["messages", "values"])][-1][1] if stream else rlm.invoke(given)
    assert (output["answer"], output["iterations"]) == (100_000, 1)


def test_a_refusal_twice_is_the_answer(server: Server) -> None:
    server.rule = lambda _: Reply(None, extra={"refusal": "I cannot help with that."})
    output = ask("openai:any")
    assert (output["answer"], output["stop_reason"]) == ("I cannot help with that.", "prose")


def test_a_leaf_that_refuses_is_told_to_the_code_as_its_words(server: Server) -> None:
    refusal = Reply(None, extra={"refusal": "I cannot help with that."})
    server.rule = lambda request: None if request.messages[0]["role"] == "system" else refusal
    assert ask("openai:any")["answer"] == [100_000, "I cannot help with that."]
