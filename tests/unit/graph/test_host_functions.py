"""Functions of plug-ins: called by code in the sandbox, run in the host, journaled and bounded."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import ToolException
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from rlm_langchain import (
    Budget,
    ConfigurationError,
    HostFunction,
    JournalError,
    Limits,
    ModelError,
    Price,
    create_rlm,
)
from rlm_langchain.graph.calls.table import HANDLERS
from rlm_langchain.testing.models import FunctionModel, script
from rlm_langchain.trajectory.call_kinds import KINDS

SANDBOXES = ("cpython", "monty")
ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


def lookup(word: str, most: int = 2) -> Any:
    ran.append(word)
    if word == "said":
        raise ToolException("the dictionary is closed today")
    if word == "raised":
        raise RuntimeError("sk-secret")
    if word == "half":
        return "half of a pair: \ud800"
    if word == "odd":
        return {1: "a key that is no text"}
    return {"word": word, "senses": [f"{word} {n}" for n in range(most)]}


async def alookup(word: str, most: int = 2) -> Any:
    await asyncio.sleep(0)
    return lookup(word, most)


def dictionary(function: Any = lookup, **options: Any) -> HostFunction:
    given = {"name": "lookup", "signature": "word: str, most: int = 2", "guidance": "Senses of a word, as a dict."}
    return HostFunction(**{**given, "function": function, **options})


def calls(output: Any) -> list[Any]:
    return [record for record in output["trajectory"] if record["type"] == "call"]


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize("function", [lookup, alookup])
def test_a_function_is_called_with_json_values_and_returns_them(sandbox: str, function: Any) -> None:
    code = "def ask(w):\n    return lookup(w, most=1)\n"
    code += "FINAL([lookup('sea')['senses'], [ask(w)['word'] for w in 'ab']])"
    rlm = create_rlm(script(code), functions=[dictionary(function)], sandbox=sandbox)
    assert rlm.invoke("q")["answer"] == [["sea 0", "sea 1"], ["a", "b"]]
    assert asyncio.run(rlm.ainvoke("q"))["answer"] == [["sea 0", "sea 1"], ["a", "b"]]
    assert ran == ["sea", "a", "b"] * 2


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("lookup('said')", "lookup says: the dictionary is closed today"),
        ("lookup('raised')", "lookup failed: RuntimeError"),
        ("lookup('odd')", "lookup returned a dict that JSON cannot represent"),
        ("lookup('half')", "lookup returned a str that JSON cannot represent"),
        ("lookup()", "lookup was called wrongly: missing a required argument: 'word'"),
        ("lookup('a', 1, 2)", "lookup was called wrongly: too many positional arguments"),
        ("lookup('a', least=1)", "lookup was called wrongly: got an unexpected keyword argument 'least'"),
        ("_host_call('function', '[\"other\", [], {}]')", "there is no such function"),
        ("_host_call('function', 'no JSON')", "there is no such function"),
        ("_host_call('function', '[[], [], {}]')", "there is no such function"),
        ("_host_call('function', '[\"lookup\", 1, 2]')", "lookup was called wrongly"),
    ],
)
def test_what_goes_wrong_is_an_error_of_the_cell_without_secrets(sandbox: str, call: str, why: str) -> None:
    code = f"try:\n    FINAL({call})\nexcept Exception as e:\n    FINAL('error: ' + str(e))"
    answer = create_rlm(script(code), functions=[dictionary()], sandbox=sandbox).invoke("q")["answer"]
    assert answer.startswith(f"error: {why}")
    assert "sk-secret" not in answer


def test_a_result_that_is_too_long_is_told_and_not_taken() -> None:
    code = "try:\n    FINAL(lookup('sea', 900))\nexcept Exception as e:\n    FINAL(str(e))"
    rlm = create_rlm(script(code), functions=[dictionary()], limits=Limits(value=4_000), sandbox="monty")
    assert rlm.invoke("q")["answer"].startswith("lookup ran, but its result is over 4,000 bytes")


class Watched(dict[str, Any]):
    """Notes where it is compared with what was read back: on an event loop, or in a thread without one."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            ran.append("in a thread")
        else:
            ran.append("on the loop")
        return super().__eq__(other)


async def awatched(n: int) -> Any:
    return Watched(text="x" * n)


@pytest.mark.parametrize("function", [awatched, lambda n: Watched(text="x" * n)])
def test_a_result_is_read_beside_the_event_loop_and_only_when_it_is_short_enough(function: Any) -> None:
    code = "try:\n    FINAL(len(lookup(9_000)['text']))\nexcept Exception:\n    FINAL(len(lookup(9)['text']))"
    functions = [dictionary(function, signature="n")]
    rlm = create_rlm(script(code), functions=functions, limits=Limits(value=4_000), sandbox="monty")
    assert rlm.invoke("q")["answer"] == 9
    assert ran == ["in a thread"]


@pytest.mark.parametrize("name", ["json", "list", "class", "answer"])
def test_a_name_that_python_or_the_repl_uses_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="Rename it"):
        create_rlm(script("FINAL(1)"), functions=[dictionary(name=name)])


def test_the_model_is_told_name_signature_and_guidance() -> None:
    text = create_rlm(script("FINAL(1)"), functions=[dictionary()]).invoke("q")["trajectory"][0]["text"]
    assert "- `lookup(word: str, most: int = 2)` is run outside the REPL: Senses of a word, as a dict." in text


def test_a_call_is_in_the_trajectory_as_a_function() -> None:
    [call] = calls(create_rlm(script("FINAL(lookup('sea', 1))"), functions=[dictionary()]).invoke("q"))
    assert (call["kind"], call["preview"]) == ("function", '["lookup", ["sea", 1], {}]')
    assert call["value"] == '{"word": "sea", "senses": ["sea 0"]}'


def test_child_runs_have_functions_too() -> None:
    model = script("FINAL(rlm_query('KID'))", children={"KID": ["FINAL(lookup('sea')['word'])"]})
    assert create_rlm(model, functions=[dictionary()], budget=Budget(depth=2)).invoke("q")["answer"] == "sea"


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_calls_are_counted_together_with_those_of_tools(sandbox: str) -> None:
    def double(n: int) -> int:
        """Twice a number."""
        return 2 * n

    code = """
done = 0
try:
    for i in range(9):
        lookup('a')
        double(i)
        done += 1
except Exception as e:
    FINAL([done, str(e)])
"""
    options: dict[str, Any] = {"tools": [double], "functions": [dictionary()], "sandbox": sandbox}
    output = create_rlm(script(code), budget=Budget(tool_calls=5), **options).invoke("q")
    assert output["answer"] == [2, "not run: no tool calls are left"]
    assert len(ran) == 3
    assert (output["status"], output["stop_reason"]) == ("partial", "tool_calls")
    assert output["degraded"] == {"refused": 1}


def priced(**budget: Any) -> dict[str, Any]:
    return {"prices": {"function": Price(input=0.0, output=0.0)}, "budget": Budget(**budget)}


def test_a_price_is_booked_and_bounded_also_when_the_function_fails() -> None:
    code = """
said = []
for word in ('a', 'raised', 'b', 'c'):
    try:
        said.append(lookup(word)['word'])
    except Exception as e:
        said.append(str(e))
FINAL(said)
"""
    output = create_rlm(script(code), functions=[dictionary(usd=0.25)], **priced(usd=0.80)).invoke("q")
    first, failed, second, refused = output["answer"]
    assert (first, failed, second) == ("a", "lookup failed: RuntimeError", "b")
    assert refused.startswith("not run: 1 usd do not fit into 0.8")
    assert output["cost_usd"] == 0.75
    assert [call["usage"]["cost"] for call in calls(output)] == [0.25, 0.25, 0.25, 0.0]
    assert (output["sub_calls"], ran) == (0, ["a", "raised", "b"])


def test_a_person_is_asked_before_functions_go_past_what_was_agreed() -> None:
    rlm = create_rlm(
        script("FINAL([lookup('a')['word'], lookup('b')['word']])"),
        functions=[dictionary(usd=0.25)],
        checkpointer=InMemorySaver(),
        **priced(approve_above_usd=0.30),
    )
    thread: Any = {"configurable": {"thread_id": "t"}}
    paused: Any = rlm.invoke("q", thread)
    assert ran == ["a"]
    assert paused["__interrupt__"][0].value["estimated_usd"] == 0.25
    about = {"kind": "function", "name": "lookup", "arguments": '[["b"], {}]'}
    assert paused["__interrupt__"][0].value["about"] == [about]
    assert rlm.invoke(Command(resume=True), thread)["answer"] == ["a", "b"]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_resumed_run_calls_and_pays_no_function_again(sandbox: str, tmp_path: Path) -> None:
    """The first process ends in the middle of a cell's calls, by a fault of the host."""
    code = "w = [lookup(w)['word'] for w in ('a', 'b')]\nt = llm_query('c')\nFINAL([w, t, lookup('a')['word']])"
    play, is_down = script(code).function, [True]

    def model(messages: list[Any]) -> Any:
        if messages[0].type == "system" and any(message.type == "ai" for message in messages):
            raise AssertionError("one turn is enough")
        return play(messages)

    def flaky(word: str, most: int = 2) -> Any:
        if word == "b" and is_down:
            is_down.clear()
            raise JournalError("the disk is full")
        return lookup(word, most)

    def rlm(connection: sqlite3.Connection) -> Any:
        saver = SqliteSaver(connection)
        function = dictionary(flaky, usd=0.25)
        options = priced(usd=5.0)
        return create_rlm(
            FunctionModel(function=model), functions=[function], checkpointer=saver, sandbox=sandbox, **options
        )

    thread: Any = {"configurable": {"thread_id": "t"}}
    with closing(sqlite3.connect(tmp_path / "runs.db", check_same_thread=False)) as connection:
        with pytest.raises(JournalError, match="full"):
            rlm(connection).invoke("q", thread)
        output = rlm(connection).invoke(None, thread)
    assert output["answer"] == [["a", "b"], "<c>", "a"]
    assert ran == ["a", "b", "a"]
    assert output["cost_usd"] == 0.25 * 4, "the call that was broken off may have been charged"


def test_a_model_that_is_down_makes_no_function_run_again() -> None:
    turns: list[Any] = ["w = lookup('Oslo')\nprint(w)", ValueError("down"), "FINAL(w['word'])"]

    def play(_: Any) -> str:
        turn = turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return f"```repl\n{turn}\n```"

    options = priced(usd=1.0)
    rlm = create_rlm(
        FunctionModel(function=play), functions=[dictionary(usd=0.25)], checkpointer=InMemorySaver(), **options
    )
    thread: Any = {"configurable": {"thread_id": "t"}}
    with pytest.raises(ModelError):
        rlm.invoke("q", thread)
    output = rlm.invoke(None, thread)
    assert (output["answer"], ran, output["cost_usd"]) == ("Oslo", ["Oslo"], 0.25)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([dictionary(name="llm_query")], "the REPL has a function of that name"),
        ([dictionary(name="no name")], "not a valid name in Python"),
        ([dictionary(), dictionary()], "two of that name"),
        ([dictionary(guidance=" ")], "no guidance"),
        ([dictionary(usd=-1)], "usd=-1"),
        ([dictionary(usd=float("nan"))], "usd=nan"),
        ([dictionary(signature="word")], "its signature has word, its function word, most"),
        ([dictionary(signature="word, most): pass\ndef g(")], "no valid parameter list"),
        ([dictionary(signature="word most")], "no valid parameter list"),
        ([dictionary(function="lookup")], "cannot be read"),
        ([lookup], "it is a function, not a HostFunction"),
        (["no_such_plugin"], "no_such_plugin"),
        ("lookup", r"give a list, \['lookup'\]"),
    ],
)
def test_a_function_that_could_not_be_called_is_refused_at_once(given: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        create_rlm(script("FINAL(1)"), functions=given)


def test_a_tool_and_a_function_cannot_share_a_name() -> None:
    def lookup(word: str) -> str:
        """A word."""
        return word

    with pytest.raises(ConfigurationError, match="two functions of the REPL called 'lookup'"):
        _ = create_rlm(script("FINAL(1)"), tools=[lookup], functions=[dictionary()]).graph
    with pytest.raises(ConfigurationError, match="two functions of the REPL called 'search'"):
        _ = create_rlm(script("FINAL(1)"), retriever="bm25", functions=[dictionary(name="search")]).graph


def test_every_kind_of_call_has_a_handler_and_facts() -> None:
    assert HANDLERS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", ["budget", "history"])
def test_threads_of_a_cell_may_ask_what_is_free_beside_what_is_not(kind: str) -> None:
    code = f"""
from concurrent.futures import ThreadPoolExecutor
def ask(n):
    return llm_query(str(n)) if n else _host_call({kind!r}, "")
with ThreadPoolExecutor(3) as pool:
    first, *others = pool.map(ask, [0, 1, 2])
FINAL([bool(first), others])
"""
    output = create_rlm(script(code), sandbox="cpython").invoke("q")
    assert output["answer"] == [True, ["<1>", "<2>"]]
    assert sorted((call["kind"], call["error"]) for call in calls(output)) == [
        (kind, None) if kind < "llm" else ("llm", None),
        *[("llm", None)] * 2,
    ]
