"""Claude, as Anthropic's own API is spoken: what is marked for its cache, what replies hold, what they cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic

from rlm_langchain import Budget, Price, create_rlm
from rlm_langchain.models.registry import resolve
from tests.servers.anthropic import Anthropic, blocks
from tests.servers.openai import Message, Reply, failure
from tests.servers.scripted import serve
from tests.servers.server import Request, Server, first

CLAUDE = "anthropic:claude-sonnet-4-6"
OVERLOADED = Reply(status=529, raw=b'{"type": "error", "error": {"type": "overloaded_error", "message": "no"}}')
TURNS = ("print(len(context))", "print(llm_query('a'))", "print(2)", "FINAL('done')")


def play(*cells: str | Reply) -> Callable[[list[Message]], str | Reply]:
    """A root model whose turns these are; a sub-call is told "leaf"."""

    def script(messages: list[Message]) -> str | Reply:
        if messages[0]["role"] != "system":
            return "leaf"
        cell = cells[min(sum(message["role"] == "assistant" for message in messages), len(cells) - 1)]
        return cell if isinstance(cell, Reply) else f"```repl\n{cell}\n```"

    return script


@pytest.fixture
def claude(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Where the name leads; its script is a test's own."""
    with serve(play(*TURNS), dialect=Anthropic()) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1"))
        yield server


def marks(request: Request) -> list[str]:
    """The roles of what is marked."""
    roles = [*["system"] * len(request.body.get("system", [])), *(m["role"] for m in request.body["messages"])]
    return [role for role, block in zip(roles, blocks(request.body), strict=True) if "cache_control" in block]


def roots(server: Server) -> list[Request]:
    return [request for request in server.requests if "system" in request.body]


def ask(**options: Any) -> Any:
    rlm = create_rlm(CLAUDE, sandbox="monty", **options)
    return rlm.invoke({"query": "How long?", "context": "word " * 20_000})


def test_the_system_prompt_and_the_end_of_what_grows_are_marked_and_sub_calls_are_not(claude: Server) -> None:
    assert ask()["answer"] == "done"
    assert [marks(request) for request in roots(claude)] == [["system", "user"]] * 4
    assert [marks(request) for request in claude.requests if request not in roots(claude)] == [[]]


def test_a_turn_reads_from_the_cache_all_that_the_turn_before_was_asked(claude: Server) -> None:
    used = ask()["usage"]["root"]
    asked = [sum(-(-len(block["text"]) // 4) for block in blocks(request.body)) for request in roots(claude)]
    assert used["cached"] == claude.tokens["cached"] == sum(asked[:-1])
    assert claude.tokens["written"] == asked[-1]
    assert used["input"] == sum(asked)


def test_the_next_run_reads_the_system_prompt(claude: Server) -> None:
    ask()
    before = claude.tokens["cached"]
    create_rlm(CLAUDE, sandbox="monty").invoke("Another question")
    system = roots(claude)[0].body["system"][0]["text"]
    assert claude.tokens["cached"] - before > len(system) // 4


def test_reads_and_writes_of_the_cache_have_their_own_prices(claude: Server) -> None:
    price = Price(100.0, 500.0, cached=10.0, written=125.0)
    output, tokens = ask(prices={CLAUDE: price}), claude.tokens
    plain = tokens["input"] - tokens["cached"] - tokens["written"]
    dollars = plain * 100 + tokens["cached"] * 10 + tokens["written"] * 125 + tokens["output"] * 500
    assert output["cost_usd"] == pytest.approx(dollars / 1e6)
    assert output["cost_usd"] < (tokens["input"] * 100 + tokens["output"] * 500) / 1e6


def test_the_price_list_knows_what_the_cache_costs(claude: Server) -> None:
    output, tokens = ask(), claude.tokens
    plain = tokens["input"] - tokens["cached"] - tokens["written"]
    dollars = plain * 3 + tokens["cached"] * 0.3 + tokens["written"] * 3.75 + tokens["output"] * 15
    assert output["cost_usd"] == pytest.approx(dollars / 1e6)


def test_a_limit_in_dollars_holds_with_what_the_cache_costs(claude: Server) -> None:
    claude.script = play(*(f"print({turn})" for turn in range(100)))
    output = ask(budget=Budget(usd=0.05, output_tokens=200, iterations=100))
    assert output["stop_reason"] == "usd"
    assert 0.01 < output["cost_usd"] <= 0.05


def test_a_stream_of_messages_tells_the_same_usage(claude: Server) -> None:
    rlm = create_rlm(CLAUDE, sandbox="monty")
    modes = [*rlm.stream({"query": "q", "context": "x" * 20_000}, stream_mode=["messages", "values"])]
    used = modes[-1][1]["usage"]["root"]
    assert [request.body.get("stream") for request in roots(claude)] == [True] * 4
    asked = [sum(-(-len(block["text"]) // 4) for block in blocks(request.body)) for request in roots(claude)]
    assert (used["input"], used["cached"]) == (sum(asked), sum(asked[:-1]))


def content(*parts: dict[str, Any], text: str = "", finish: str = "stop") -> Reply:
    return Reply(text, extra={"content": list(parts)}, finish=finish)


CODE = "```repl\nFINAL(len(context))\n```"
THOUGHT = {"type": "thinking", "thinking": "```repl\nFINAL('thought')\n```", "signature": "s"}


@pytest.mark.parametrize(
    ("reply", "answer", "turns"),
    [
        (content(THOUGHT, text=CODE), 100_000, 1),
        (content({"type": "redacted_thinking", "data": "xyz"}, text=CODE), 100_000, 1),
        (content({"type": "tool_use", "id": "1", "name": "python", "input": {"code": "FINAL(7)"}}), 7, 1),
        (content({"type": "tool_use", "id": "1", "name": "search", "input": {"q": "x"}}), "said", 2),
        (content(THOUGHT), "said", 2),
        (content(), "said", 2),
        (content(text="I cannot.", finish="refusal"), "said", 2),
    ],
    ids=["thinking", "redacted", "code as a tool", "another tool", "thoughts only", "empty", "refusal"],
)
def test_whatever_shape_a_reply_has_the_run_goes_on(
    reply: Reply, answer: object, turns: int, claude: Server
) -> None:
    claude.script = play(reply, Reply("```repl\nFINAL('said')\n```"))
    output = ask()
    assert (output["answer"], output["status"], output["iterations"]) == (answer, "complete", turns)


def test_a_second_refusal_is_the_answer(claude: Server) -> None:
    claude.script = play(content(text="I cannot help with that.", finish="refusal"))
    output = ask()
    assert (output["answer"], output["status"]) == ("I cannot help with that.", "partial")
    assert output["degraded"] == {"filtered": 1}


def test_an_overloaded_server_is_asked_again_by_us_alone(claude: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlm_langchain.models.call.RetryPolicy.wait", lambda *_: 0.0)
    claude.rule = first(2, OVERLOADED)
    output = ask()
    assert output["answer"] == "done"
    assert claude.calls == 2 + 4 + 1
    assert output["trajectory"][1]["retries"] == 2


def test_a_key_that_is_refused_is_told_at_once(claude: Server) -> None:
    claude.rule = first(1, failure(401, "invalid x-api-key sk-secret"))
    with pytest.raises(Exception, match="key") as caught:
        ask()
    assert "sk-secret" not in str(caught.value)
    assert claude.calls == 1


def test_a_model_of_the_users_own_is_marked_too_and_keeps_its_options(claude: Server) -> None:
    chat = ChatAnthropic(model="claude-sonnet-4-6", temperature=0.25)  # type: ignore[call-arg]
    assert create_rlm(chat, sandbox="monty").invoke("q")["answer"] == "done"
    assert marks(claude.requests[-1]) == ["system", "user"]
    assert claude.requests[-1].body["temperature"] == 0.25
    assert (
        "_async_client" not in vars(chat)
        or chat._async_client._client is not resolve(chat, "sub").chat._async_client._client
    )


def test_words_are_the_same_with_marks_and_without(claude: Server) -> None:
    output = ask()
    said = json.dumps([block["text"] for block in blocks(roots(claude)[-1].body)])
    for record in output["trajectory"]:
        if record["type"] == "question":
            assert json.dumps(record["text"])[1:-1] in said
