"""Whole runs with models by name, at servers that speak as OpenRouter's and Ollama's do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.chat_models import init_chat_model
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_openai import ChatOpenAI

from rlm_langchain import Budget, ConfigurationError, ModelError, Price, create_rlm
from tests.servers.openai import Message, Reply, failure, text_of, tool_call
from tests.servers.scripted import rlm as plays
from tests.servers.scripted import serve
from tests.servers.server import Request, Rule, Script, Server

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


READS = 6_000
SAYS = (
    "This model's maximum context length is {reads} tokens. However, your messages resulted in {got} tokens.",
    "prompt is too long: {got} tokens > {reads} maximum",
    "Input is too long for requested model.",
)


def small(says: str, reads: int = READS) -> Rule:
    """A server whose model reads so many tokens, four characters each."""

    def rule(request: Request) -> Reply | None:
        got = sum(len(text_of(message)) for message in request.messages) // 4
        said = says.format(reads=reads, got=got)
        return failure(400, said, "context_length_exceeded") if got > reads else None

    return rule


def talkative(turns: int) -> Script:
    """A root that prints much for so many turns, and sums up when it is told to."""

    def play(messages: list[Message]) -> str:
        written.append(text_of(messages[-1]))
        if "replaced by your own summary" in written[-1]:
            return "so far so good"
        code = f"print('step', {len(written)}, 'w ' * 4000)" if len(written) <= turns else "FINAL('done')"
        return f"```repl\n{code}\n```"

    written: list[str] = []
    return play


def notes(output: Any) -> str:
    return "\n".join(record["text"] for record in output["trajectory"] if record["type"] == "note")


@pytest.mark.parametrize("says", SAYS)
def test_a_history_longer_than_an_unknown_window_is_put_in_short_and_the_run_goes_on(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(talkative(9), rule=small(says)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        output = create_rlm("openai:any", sandbox="monty", budget=Budget(iterations=30)).invoke("q")
    assert (output["answer"], output["status"]) == ("done", "complete")
    assert any(record.get("summary") for record in output["trajectory"])
    assert notes(output).count("was too long for openai:any") >= 1
    assert (f"{READS:,}" in notes(output)) == ("{reads}" in says)


@pytest.mark.parametrize("says", SAYS)
def test_a_question_longer_than_the_window_is_cut_and_one_that_cannot_be_ends_the_run_and_not_the_thread(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reads, status in ((READS, "complete"), (20, "failed")):
        with serve(talkative(0), rule=small(says, reads)) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            output = create_rlm("openai:any", sandbox="monty").invoke("why? " * 8_000)
        assert output["status"] == status
        assert output["stop_reason"] == ("answer" if status == "complete" else "model")


@pytest.mark.parametrize("says", SAYS)
def test_a_sub_call_that_is_too_long_is_an_error_with_its_size_and_the_next_is_not_even_sent(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = """
told = []
for size in (40_000, 41_000, 400):
    try:
        told.append(llm_query('w' * size))
    except LLMError as error:
        told.append(str(error))
FINAL(told)
"""
    with serve(plays(cell), rule=small(says)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        output = create_rlm("openai:any", sandbox="monty").invoke("q")
    first, second, third = output["answer"]
    assert "too long: about 10,0" in first
    assert "cut the text" in first
    assert "not asked: about 10,2" in second
    assert third == "w" * 400
    assert server.calls == 3


def test_a_cap_that_has_another_name_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(request: Request) -> Reply | None:
        return failure(400, "Unsupported parameter: 'max_tokens'") if "max_tokens" in request.body else None

    with serve(plays("FINAL(llm_query_batched(['a', 'b']))"), rule=rule) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        output = create_rlm("openai:any", sandbox="monty", budget=Budget(tokens=100_000)).invoke("q")
    assert output["answer"] == ["a", "b"]
    assert notes(output).count("max_completion_tokens") == 1
    assert [request.body.get("max_completion_tokens") is None for request in server.requests] == [
        True,
        *[False] * 3,
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_a_provider_says_of_an_error_is_told_without_the_key(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "No access to any for Bearer sk-1234567890; ask the admin"
    with serve(lambda _: failure(status, said)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with pytest.raises(ModelError, match="ask the admin") as caught:
            create_rlm("openai:any", sandbox="monty").invoke("q")
    assert "1234567890" not in str(caught.value)


def plain(url: str, model: str = "m", **options: Any) -> Any:
    return ChatOpenAI(model=model, base_url=url, api_key="k", **options)  # type: ignore[arg-type]


PROMPT = ChatPromptTemplate([("system", "Speak {how}."), MessagesPlaceholder("messages")]).partial(how="softly")
WRAPPED: dict[str, Callable[[Any], Any]] = {
    "bind": lambda chat: chat.bind(stop=["END"]),
    "config": lambda chat: chat.with_config(tags=["t"]),
    "retry": lambda chat: chat.with_retry(),
    "fallbacks": lambda chat: chat.with_fallbacks([chat]),
    "fields": lambda chat: chat.configurable_fields(temperature=ConfigurableField("t")),
    "alternatives": lambda chat: chat.configurable_alternatives(ConfigurableField("which"), other=chat),
    "prompt": lambda chat: PROMPT | chat,
    "parser": lambda chat: chat | StrOutputParser(),
    "function": lambda chat: chat | RunnableLambda(lambda message: message),
    "all": lambda chat: PROMPT | chat.bind(stop=["END"]).with_retry().with_fallbacks([chat]) | StrOutputParser(),
    "init": lambda chat: init_chat_model(
        "openai:m", configurable_fields="any", base_url=chat.openai_api_base, api_key="k"
    ),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("role", ["root", "sub"])
def test_a_chat_model_is_one_whatever_is_wrapped_around_it(wrap: Callable[[Any], Any], role: str) -> None:
    def by_length(messages: list[Message]) -> str:
        return CODE if any(len(text_of(message)) > 500 for message in messages) else "leaf"

    with serve(by_length) as server:
        chat, other = wrap(plain(server.url)), plain(server.url)
        root, sub = (chat, other) if role == "root" else (other, chat)
        price = {"m": Price(1.0, 10.0)}
        output = ask(root, sub, budget=Budget(usd=1.0, output_tokens=70), prices=price)
    assert output["answer"] == [100_000, "leaf"]
    assert {turn["model"] for turn in output["trajectory"] if turn["type"] in ("turn", "call")} <= {"m", ""}
    assert [request.body["max_completion_tokens"] for request in server.requests] == [70, 70]
    mine = server.requests[0 if role == "root" else 1]
    if wrap in (WRAPPED["bind"], WRAPPED["all"]):
        assert mine.body["stop"] == ["END"]
    if wrap in (WRAPPED["prompt"], WRAPPED["all"]):
        assert mine.messages[0]["content"] == "Speak softly."


def test_a_bound_cap_is_not_exceeded() -> None:
    with serve(script) as server:
        for cap, sent in ((10, 10), (1_000, 70)):
            ask(plain(server.url).bind(max_tokens=cap), budget=Budget(output_tokens=70))
            assert server.requests[-1].body["max_completion_tokens"] == sent


def test_the_next_model_is_asked_when_one_fails_and_the_dearest_is_reserved_for() -> None:
    with serve(script, rule=lambda request: failure(500) if request.body["model"] == "first" else None) as server:
        chain = plain(server.url, "first").with_fallbacks([plain(server.url, "second")])
        prices = {"first": Price(1.0, 1.0), "second": Price(1e6, 1e6)}
        refused = ask(chain, prices=prices, budget=Budget(usd=1.0))
        assert (refused["status"], refused["stop_reason"], server.calls) == ("failed", "usd", 0)
        output = ask(chain, prices=prices)
    assert output["answer"] == [100_000, "leaf"]
    assert [request.body["model"] for request in server.requests] == ["first", "second"] * 2
    assert "second was asked" in notes(output)
    assert output["cost_usd"] > 1


def test_a_config_chooses_the_model_and_its_price() -> None:
    with serve(script) as server:
        chat = plain(server.url).configurable_alternatives(
            ConfigurableField("which"), default_key="m", dear=lambda: plain(server.url, "dear")
        )
        rlm = create_rlm(chat, sandbox="monty", budget=Budget(usd=1.0), prices={"m": Price(1.0, 1.0)})
        rlm.invoke({"query": "q", "context": CONTEXT})
        with pytest.raises(ConfigurationError, match="none is known for dear"):
            rlm.invoke({"query": "q", "context": CONTEXT}, {"configurable": {"which": "dear"}})
    assert {request.body["model"] for request in server.requests} == {"m"}


def test_what_hides_its_model_or_makes_no_text_is_refused_with_a_sentence() -> None:
    chat = plain("http://127.0.0.1:1/v1")
    for given, told in (
        (RunnableLambda(lambda messages: messages), "hides which chat model"),
        (chat | JsonOutputParser(), "output_schema="),
        (ChatPromptTemplate([("human", "{question}")]) | chat, "MessagesPlaceholder"),
        (chat | chat, "has 2 chat models"),
        (init_chat_model(configurable_fields="any"), "give it a default"),
        (lambda messages: messages, "a model is a name or a LangChain chat model"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(told)):
            create_rlm(given)
