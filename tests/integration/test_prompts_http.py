"""What a provider receives over a run: each prompt is the one before it and more, so that its cache is of use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from rlm_langchain import Budget, RLMRunnable, create_rlm
from tests.servers.openai import Message
from tests.servers.scripted import rlm, serve
from tests.servers.server import Request, Server

PLAY = (
    "```python\nprint(len(context))\n```\nand then\n```python\nprint(context[:9] + '\\x1b[31m')\n```",
    "```python\nprint('x' * 100_000)\n```",
    "I think about it.",
    "```python\nprint(llm_query_batched(['one', 'two', 'three']))\n```",
    "```python\n1 / 0\n```\n```python\nprint('never run')\n```",
    "```python\nx = [n for n in range(9)]\n```",
    "```python\nimport os\nos._exit(1)\n```",
    "```python\nprint('é😀\u2028', budget()['iterations'])\n```",
    "```python\nprint('and so on')\n```",
)
"""Everything that a turn can be: several blocks, long output, words alone, sub-calls, errors, silence, a crash."""

Ask = Callable[[RLMRunnable, Any], Any]
WAYS: dict[str, Ask] = {
    "invoke": lambda rlm, asked: rlm.invoke(asked),
    "ainvoke": lambda rlm, asked: asyncio.run(rlm.ainvoke(asked)),
}


def play(messages: list[Message]) -> str:
    if messages[0]["role"] != "system":
        return "a reply"
    wrote = [message["content"] for message in messages if message["role"] == "assistant"]
    turn = sum(text in PLAY for text in wrote)
    return PLAY[min(turn, len(PLAY) - 1)]


def messages_of(request: Request) -> str:
    """The bytes of the list of messages, as they came."""
    text = request.raw.decode()
    begin = text.index('"messages":') + len('"messages":')
    return text[begin : json.JSONDecoder().raw_decode(text, begin)[1]]


def roots(server: Server) -> list[Request]:
    return [request for request in server.requests if request.messages[0]["role"] == "system"]


@pytest.mark.parametrize("name", ["openai:big", "openai:small-1b"])
@pytest.mark.parametrize("way", WAYS)
def test_each_root_prompt_is_the_one_before_and_new_messages_byte_for_byte(name, way, monkeypatch):
    with serve(play) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        components = create_rlm(name, budget=Budget(iterations=10, calls=30))
        output = WAYS[way](components, {"query": "why?", "context": "zum Beispiel: ä"})
        sent = [messages_of(request) for request in roots(server)]
    assert output["stop_reason"] == "iterations"
    assert len(sent) == 11
    for before, after in pairwise(sent):
        assert after.startswith(before[:-1] + ",")
        assert len(after) > len(before)


def test_what_is_particular_to_a_run_comes_after_the_system_prompt(monkeypatch):
    with serve(rlm("FINAL(1)")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for query, context, budget in (("one", None, Budget()), ("another", "a text", Budget(calls=9))):
            create_rlm("openai:m", budget=budget).completion(query, context)
        one, another = ([json.dumps(message) for message in request.messages] for request in roots(server))
    assert one[0] == another[0]
    assert one[1] != another[1]
