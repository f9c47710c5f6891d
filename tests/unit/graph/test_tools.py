"""Custom tools: called by code in the sandbox, run in the host, journaled and bounded."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import FakeEmbeddings
from langchain_core.messages import ToolMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolArg, InjectedToolCallId, StructuredTool, Tool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from langgraph.types import Command
from mcp.types import TextContent
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from rlm_langchain import (
    Budget,
    ConfigurationError,
    HostFunction,
    Limits,
    ModelError,
    create_rlm,
)
from rlm_langchain.graph.calls.tools import tools_by_name
from rlm_langchain.testing.models import FunctionModel, script

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget():
    ran.clear()


def weather(town: str, days: int = 1) -> dict[str, Any]:
    """The weather in a town."""
    ran.append((town, days))
    return {"town": town, "days": [20 + n for n in range(days)]}


@tool
async def double(n: int) -> int:
    """Twice a number."""
    return n * 2


@tool
def fails(why: str) -> str:
    """Fails."""
    if why == "said":
        raise ToolException("the archive is closed today")
    raise RuntimeError("sk-secret")


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_tools_are_functions_of_the_repl_with_plain_results(sandbox):
    code = "w = weather('Paris', days=2)\nFINAL([w['days'], weather('Rome')['days'], double(21)])"
    rlm = create_rlm(script(code), tools=[weather, double], sandbox=sandbox)
    assert rlm.invoke("q")["answer"] == [[20, 21], [20], 42]
    assert asyncio.run(rlm.ainvoke("q"))["answer"] == [[20, 21], [20], 42]
    assert ran[:2] == [("Paris", 2), ("Rome", 1)]


def test_the_model_is_told_what_there_is():
    output = create_rlm(script("FINAL(1)"), tools=[weather]).invoke("q")
    assert "`weather(town: string, days: integer = 1)`: The weather in a town." in output["trajectory"][0]["text"]


def test_a_tool_that_fails_is_an_error_of_the_cell_without_its_secrets():
    code = """
errors = []
for call in (lambda: fails('said'), lambda: fails('x'), lambda: weather(days='many'), lambda: weather(1, 2, 3)):
    try:
        call()
    except Exception as e:
        errors.append(str(e))
FINAL(errors)
"""
    said, other, wrong, many = create_rlm(script(code), tools=[fails, weather]).invoke("q")["answer"]
    assert "the archive is closed today" in said
    assert "RuntimeError" in other
    assert "sk-secret" not in other
    assert "town" in wrong
    assert "2 arguments, not 3" in many


class Strict(BaseModel):
    names: list[int]


@tool(args_schema=Strict)
def strict(names: list[int]) -> str:
    """Has much to complain about."""
    return ""


@tool
def wordy() -> str:
    """Has much to say."""
    raise ToolException("e" * 5_000_000)


@tool(response_format="content_and_artifact")
def wordy_message() -> Any:
    """Has much to say, as a message."""
    raise ToolException("e" * 5_000_000)


wordy_message.handle_tool_error = True


@pytest.mark.parametrize(
    "call",
    [
        "wordy()",
        "wordy_message()",
        "strict(['x'] * 5_000)",
        "weather(**{'x' * 500_000: 1})",
        "asked(1, **{'x' * 500_000: 1})",
    ],
)
def test_an_error_that_says_much_is_clipped_and_its_length_told(call):
    def asked(word: str) -> str:
        return word

    code = f"try:\n    {call}\nexcept Exception as e:\n    FINAL(str(e))"
    given = HostFunction("asked", "word: str", "Asks.", asked)
    rlm = create_rlm(
        script(code), tools=[wordy, wordy_message, strict, weather], functions=[given], sandbox="monty"
    )
    output = rlm.invoke("q")
    assert "characters left out" in output["answer"]
    assert max(len(str(record)) for record in output["trajectory"] if record["type"] == "call") < 5_000


@tool
def letter(to: str, config: RunnableConfig, seal: Annotated[str, InjectedToolArg] = "red") -> str:
    """A letter."""
    return f"{config['configurable']['sender']} to {to}, {seal}"


def signed(to: str, config: RunnableConfig) -> str:
    """A letter."""
    return f"{config['configurable']['sender']} to {to}"


def test_what_the_host_fills_in_is_not_told_and_cannot_be_set_by_code():
    code = """
said = [letter('Ada'), signed('Bob')]
for forged in ({'seal': 'black'}, {'config': {'configurable': {'sender': 'Mallory'}}}):
    try:
        letter('Ada', **forged)
    except Exception as e:
        said.append(str(e))
FINAL(said)
"""
    rlm = create_rlm(script(code), tools=[letter, signed])
    output = rlm.invoke("q", {"configurable": {"sender": "Carl"}})
    first, second, *refused = output["answer"]
    assert (first, second) == ("Carl to Ada, red", "Carl to Bob")
    assert ["no argument 'seal'" in refused[0], "no argument 'config'" in refused[1]] == [True, True]
    assert "`letter(to: string)`" in output["trajectory"][0]["text"]


def test_calls_of_tools_are_in_the_journal_as_tasks_of_the_graph():
    rlm = create_rlm(script("FINAL([double(n) for n in range(3)])"), tools=[double])
    tasks = [chunk for chunk in rlm.stream("q", stream_mode="updates") if "subcall" in chunk]
    assert len(tasks) == 3
    [*calls] = [record for record in rlm.invoke("q")["trajectory"] if record["type"] == "call"]
    assert [(call["kind"], call["value"]) for call in calls] == [("tool", "0"), ("tool", "2"), ("tool", "4")]


def test_child_runs_have_tools_of_their_own():
    model = script("FINAL(rlm_query('KID'))", children={"KID": ["FINAL(str(double(2)) + str('weather' in dir()))"]})
    rlm = create_rlm(model, tools=[weather], sub_tools=[double], budget=Budget(depth=2))
    assert rlm.invoke("q")["answer"] == "4False"


def test_calls_of_tools_are_bounded():
    code = """
done = 0
try:
    for i in range(9):
        double(i)
        done += 1
except Exception as e:
    FINAL([done, str(e)])
"""
    answer = create_rlm(script(code), tools=[double], budget=Budget(tool_calls=3)).invoke("q")["answer"]
    assert answer[0] == 3
    assert "no tool calls" in answer[1]


def test_a_resumed_run_does_not_run_a_tool_again():
    turns = iter(
        ["```repl\nw = weather('Oslo')\nprint(w)\n```", RuntimeError("down"), "```repl\nFINAL(w['town'])\n```"]
    )

    def play(messages):
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    rlm = create_rlm(FunctionModel(function=play), tools=[weather], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    with pytest.raises(Exception, match="does not answer"):
        rlm.invoke("q", config)
    assert rlm.invoke(None, config)["answer"] == "Oslo"
    assert ran == [("Oslo", 1)]


def test_a_call_of_an_unknown_kind_is_answered_by_nobody():
    code = "try:\n    _host_call('shell', 'ls')\nexcept Exception as e:\n    FINAL(str(e))"
    assert "nothing here that answers" in create_rlm(script(code)).invoke("q")["answer"]


@pytest.mark.parametrize("name", ["llm_query", "context", "FINAL"])
def test_a_name_that_the_repl_has_is_refused(name):
    renamed = tool(name)(weather)
    with pytest.raises(ConfigurationError, match=f"{name}.*Rename it"):
        create_rlm(script("FINAL(1)"), tools=[renamed])


def named(name: str) -> StructuredTool:
    return StructuredTool.from_function(lambda n=0: [name, n], name=name, description="Says its name.")


NAMES = {
    "get-sum": "get_sum",
    "files.read": "files_read",
    "look up": "look_up",
    "a/b::c": "a_b_c",
    "größe": "größe",
    "\ufb01le": "file",
    "天气": "天气",
    "🙂": "tool",
    "3d": "tool_3d",
    "class": "tool_class",
    "None": "tool_None",
    "list": "tool_list",
    "print": "tool_print",
    "json": "tool_json",
    "_host_call-2": "host_call_2",
    "__import__": "import_",
    "answer": "tool_answer",
    "llm-query": "tool_llm_query",
    "match": "match",
    "x" * 300: "x" * 119,
}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_any_name_of_a_tool_has_a_name_in_python_that_takes_no_others_place(sandbox):
    tools = [named(name) for name in NAMES]
    called = list(tools_by_name(tools))
    assert called == [{"import_": "tool_import"}.get(name, name) for name in NAMES.values()]
    code = (
        f"import json\nlist = print = 0\nFINAL([{', '.join(f'{name}(7)' for name in called)}, str(llm_query('x'))])"
    )
    output = create_rlm(script(code), tools=tools, sandbox=sandbox).invoke("q")
    assert output["answer"] == [*([name, 7] for name in NAMES), "<x>"]
    text = output["trajectory"][0]["text"]
    assert '- `get_sum(n = 0)`: (the tool "get-sum") Says its name.' in text
    assert "- `match(n = 0)`: Says its name." in text


def test_names_that_become_the_same_are_told_apart_and_two_of_one_name_refused():
    names = ["a-b", "a.b", "a_b", "a b"]
    assert list(tools_by_name([named(name) for name in names])) == ["a_b_2", "a_b_3", "a_b", "a_b_4"]
    with pytest.raises(ConfigurationError, match="two of that name"):
        tools_by_name([named("a-b"), named("a-b")])


@pytest.mark.parametrize("strategies", ["grep", "auto"])
def test_helpers_of_strategies_keep_their_names(strategies):
    code = "FINAL([tool_grep(1), tool_count(2), count('a', 'banana')])"
    code = code if strategies == "grep" else "FINAL([tool_grep(1), tool_count(2), 3])"
    rlm = create_rlm(script(code), tools=[named("grep"), named("count")], strategies=strategies, sandbox="monty")
    assert rlm.invoke("q")["answer"] == [["grep", 1], ["count", 2], 3]


class Size(Enum):
    S = "small"


@dataclass
class Point:
    x: int
    at: date


class Pair(NamedTuple):
    a: int
    b: Any


class Shop(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str
    opened: date
    prices: dict[str, Decimal] = {}
    key: SecretStr = SecretStr("sk-secret")


class Odd:
    def __str__(self) -> str:
        return "odd"


RESULTS: dict[str, tuple[Callable[[], Any], Any]] = {
    "a model": (
        lambda: Shop(name="A", opened=date(2024, 1, 2), prices={"tea": Decimal("1.50")}),
        {
            "name": "A",
            "opened": "2024-01-02",
            "prices": {"tea": 1.5},
            "key": {"not_data": "SecretStr", "text": "*" * 10},
        },
    ),
    "a dataclass": (lambda: [Point(1, date(2024, 1, 2))], [{"x": 1, "at": "2024-01-02"}]),
    "a named tuple": (lambda: Pair(1, (2, 3)), {"a": 1, "b": [2, 3]}),
    "sets": (lambda: [{3, 1, 2}, frozenset("ba"), {Pair(2, 1)}], [[1, 2, 3], ["a", "b"], [{"a": 2, "b": 1}]]),
    "moments": (
        lambda: [datetime(2024, 1, 2, 3, 4, tzinfo=UTC), time(5, 6), timedelta(minutes=2)],
        ["2024-01-02T03:04:00+00:00", "05:06:00", 120.0],
    ),
    "numbers": (
        lambda: [Decimal("0.1"), Decimal("0.12345678901234567890"), Fraction(1, 3), 2**80, 1j],
        [0.1, "0.12345678901234567890", "1/3", str(2**80), "1j"],
    ),
    "enums": (lambda: {Size.S: Size.S}, {"small": "small"}),
    "identities": (lambda: [UUID(int=1), PurePosixPath("/a/b")], ["00000000-0000-0000-0000-000000000001", "/a/b"]),
    "bytes": (lambda: [b"caf\xc3\xa9", b"\xff\x00"], ["café", {"base64": "/wA="}]),
    "keys": (
        lambda: {1: "a", None: "b", date(2024, 1, 2): "c", (1, 2): "d"},
        ["1", "null", "2024-01-02", "(1, 2)"],
    ),
    "an iterator": (lambda: (n * n for n in range(4)), [0, 1, 4, 9]),
    "scalars": (lambda: [np.int64(3), np.float32(0.5), np.bool_(True), np.str_("a")], [3, 0.5, True, "a"]),
    "arrays": (lambda: [np.array([[1, 2], [3, 4]]), np.array([])], [[[1, 2], [3, 4]], []]),
    "moments of numpy": (
        lambda: [
            np.datetime64("2024-01-02T03:04:05", "ns"),
            np.array([np.timedelta64(1500, "ms")]),
            np.datetime64("NaT", "s"),
        ],
        ["2024-01-02T03:04:05.000000000", [1.5], None],
    ),
    "records": (lambda: np.array([(1, "a")], [("n", int), ("s", "U1")]), [{"n": 1, "s": "a"}]),
    "documents": (
        lambda: [Document("text", metadata={"page": 1})],
        [{"id": None, "metadata": {"page": 1}, "page_content": "text", "type": "Document"}],
    ),
    "blocks": (lambda: [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
    "blocks with all that they may have": (
        lambda: [{"type": "text", "text": "a", "id": "1", "annotations": [], "extras": {}, "index": 0}],
        "a",
    ),
    "dicts like blocks": (
        lambda: [{"type": "text", "text": "a", "page": 3}, {"type": "text", "text": "b"}],
        [{"type": "text", "text": "a", "page": 3}, {"type": "text", "text": "b"}],
    ),
    "dicts with a type": (lambda: [{"type": "text", "id": 1}], [{"type": "text", "id": 1}]),
    "dicts with a text that is none": (lambda: [{"type": "text", "text": 3}], [{"type": "text", "text": 3}]),
    "mixed blocks": (
        lambda: [{"type": "text", "text": "a"}, {"type": "image", "base64": "eA=="}],
        [{"type": "text", "text": "a"}, {"type": "image", "base64": "eA=="}],
    ),
    "blocks of MCP": (
        lambda: [TextContent(type="text", text="a")],
        [{"type": "text", "text": "a", "annotations": None, "meta": None}],
    ),
    "what is no data": (lambda: [Odd(), int], [{"not_data": "Odd", "text": "odd"}, {"not_data": "type"}]),
    "nothing": (lambda: None, None),
}


def same(found: Any, wanted: Any) -> bool:
    """Equal, where it matters: a list stands for the keys of a dict, a dict for some of its items."""
    if isinstance(found, dict) and isinstance(wanted, list):
        return list(found) == wanted
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(same(found.get(key), value) for key, value in wanted.items())
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return type(found) is type(wanted) and bool(found == wanted)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_results_are_data_in_the_repl(sandbox):
    def result(kind: str) -> Any:
        """A result."""
        return RESULTS[kind][0]()

    code = "found = {kind: result(kind) for kind in context}\nfound['numbers'][3] = str(found['numbers'][3])\n"
    rlm = create_rlm(script(code + "FINAL(found)"), tools=[result], sandbox=sandbox)
    answer = rlm.invoke({"query": "q", "context": list(RESULTS)})["answer"]
    assert {kind for kind, (_, wanted) in RESULTS.items() if not same(answer[kind], wanted)} == set()


def test_numbers_that_are_none_stay_what_they_are():
    def result() -> Any:
        """A result."""
        return [float("nan"), np.float64("inf")]

    for sandbox in ("cpython", "monty"):
        rlm = create_rlm(script("FINAL(str(result()))"), tools=[result], sandbox=sandbox)
        assert rlm.invoke("q")["answer"] == "[nan, inf]"


def endless() -> Any:
    """Counts."""
    return itertools.count()


def huge() -> Any:
    """Much."""
    return "x" * 5_000


def wide() -> Any:
    """Much."""
    return np.zeros(5_000)


def deep() -> Any:
    """Deep."""
    found: list[Any] = []
    found.append(found)
    return found


def commands() -> Any:
    """A command."""
    return Command(update={"x": 1})


def unfinished() -> Any:
    """Not awaited."""

    async def later() -> AsyncIterator[int]:
        yield 1

    return [later()]


def double_keys() -> Any:
    """Keys."""
    return {1: "a", "1": "b"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (endless, "endless ran, but its result is over 4,000 bytes"),
        (huge, "huge ran, but its result is over 4,000 bytes"),
        (wide, "wide ran, but its result is over 4,000 bytes"),
        (deep, "deep ran, but its result is nested deeper than 100 levels, or holds itself"),
        (commands, "commands ran, but it returned a Command, which only the graph of an agent could follow"),
        (unfinished, "unfinished ran, but it returned a async_generator: let it await that"),
        (double_keys, "double_keys ran, but its result holds a dict with two keys that are '1' as text"),
    ],
)
def test_what_cannot_be_given_is_told(given, why):
    code = f"try:\n    FINAL({given.__name__}())\nexcept Exception as error:\n    FINAL(str(error))"
    rlm = create_rlm(script(code), tools=[given], limits=Limits(value=4_000), sandbox="monty")
    assert rlm.invoke("q")["answer"].startswith(why)


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_half_of_a_surrogate_pair_in_a_result_is_replaced(sandbox):
    def broken() -> Any:
        """Text of a broken file."""
        return {"a\ud800": ["\udfffb", "\x00"]}

    code = "found = broken()\nFINAL([found, len(list(found)[0])])"
    output = create_rlm(script(code), tools=[broken], sandbox=sandbox).invoke("q")
    assert output["answer"] == [{"a\ufffd": ["\ufffdb", "\x00"]}, 2]


@tool(response_format="content_and_artifact")
def found(n: int) -> Any:
    """Content and artifact."""
    return {"n": n}, object()


@tool
def numbered(n: int, call: Annotated[str, InjectedToolCallId]) -> Any:
    """Knows its call."""
    return {"n": n, "known": call.startswith("call_")}


@tool
def message(call: Annotated[str, InjectedToolCallId]) -> Any:
    """A message."""
    return ToolMessage("said", tool_call_id=call)


@tool
def cached(call: Annotated[str, InjectedToolCallId]) -> Any:
    """A message of blocks with a mark for a provider."""
    block = {"type": "text", "text": "said", "cache_control": {"type": "ephemeral"}}
    return ToolMessage([block], tool_call_id=call)


@tool(response_format="content_and_artifact")
def elements() -> Any:
    """Data, and an artifact."""
    return [{"type": "text", "text": "Hello", "page": 3}], None


class Aliased(BaseModel):
    from_date: str = Field(alias="fromDate")
    most: int = Field(3, alias="maxResults")


@tool(args_schema=Aliased)
def aliased(from_date: str, most: int) -> list[Any]:
    """Aliases."""
    return [from_date, most]


@tool
def handled() -> str:
    """Fails, and says so."""
    raise ToolException("closed")


handled.handle_tool_error = True


class Free(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


@tool(args_schema=Free)
def free(**given: int) -> Any:
    """Takes more."""
    return given


def ignores(a: int, *args: int, **kwargs: int) -> Any:
    """Takes more than a tool can."""
    return [a, args, kwargs]


open_schema = {"properties": {"a": {"type": ["integer", "null"]}}, "additionalProperties": {"type": "integer"}}
of_server = StructuredTool(name="of-server", description="M.", args_schema=open_schema, func=lambda **given: given)
single = Tool(name="single", description="S.", func=lambda text: text.upper())


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        ("weather('Paris', town='Rome')", "town"),
        ("weather('Paris', 2, days=3)", "days"),
        ("aliased('May', fromDate='June')", "fromDate"),
        ("aliased('May', from_date='June')", "fromDate"),
        ("aliased(fromDate='May', from_date='June')", "fromDate"),
        ("free(1, a=2, b=3)", "a"),
        ("single('a', tool_input='b')", "tool_input"),
    ],
)
def test_two_values_for_one_argument_are_refused_as_python_does(call, argument):
    code = f"try:\n    FINAL({call})\nexcept Exception as e:\n    FINAL(str(e))"
    output = create_rlm(script(code), tools=[weather, aliased, free, single], sandbox="monty").invoke("q")
    assert output["answer"].endswith(f"got multiple values for argument {argument!r}")
    assert ran == []


def test_ways_to_give_a_result_and_to_take_arguments():
    calls = {
        "found(1)": {"n": 1},
        "numbered(2)": {"n": 2, "known": True},
        "message()": "said",
        "cached()": "said",
        "elements()": [{"type": "text", "text": "Hello", "page": 3}],
        "aliased(fromDate='May')": ["May", 3],
        "aliased('June', maxResults=5)": ["June", 5],
        "aliased(from_date='July', most=7)": ["July", 7],
        "handled()": "closed",
        "free(a=1, b=2)": {"a": 1, "b": 2},
        "of_server(1, b=2)": {"a": 1, "b": 2},
        "ignores(1)": [1, [], {}],
        "single('a')": "A",
    }
    code, wanted = f"FINAL([{', '.join(calls)}])", list(calls.values())
    tools = [found, numbered, message, cached, elements, aliased, handled, free, of_server, ignores, single]
    rlm = create_rlm(script(code), tools=tools, sandbox="monty")
    assert "`of_server(a: integer | null, **others)`: (the tool" in rlm.invoke("q")["trajectory"][0]["text"]
    assert rlm.invoke("q")["answer"] == wanted
    assert asyncio.run(rlm.ainvoke("q"))["answer"] == wanted


def only_placed(a: int, /) -> int:
    """Has no names."""
    return a


def rest(a: int, *others: int) -> int:
    """Has no names."""
    return a


def anything(**kwargs: int) -> int:
    """Has no names."""
    return len(kwargs)


def hidden(_a: int) -> int:
    """Has one that LangChain never passes."""
    return _a


UNNAMED = [
    (only_placed, "a: 'int'"),
    (rest, r"\*others: 'int'"),
    (anything, r"\*\*kwargs: 'int'"),
    (hidden, "_a: 'int'"),
]


@pytest.mark.parametrize(("given", "argument"), UNNAMED)
def test_a_function_whose_arguments_have_no_names_is_refused(given, argument):
    with pytest.raises(ConfigurationError, match=f"{given.__name__}.*{argument}.* cannot be passed by name"):
        create_rlm(script("FINAL(1)"), tools=[given])


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({}, ""),
        ({"type": "object"}, ""),
        ({"type": ["object", "null"], "title": "T", "properties": {}}, ""),
        ({"unheard": 1}, "**others"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "**others"),
        ({"anyOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": True}}]}, "a: integer, b"),
        ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"properties": {"a": {}}}}}, "a"),
    ],
)
def test_a_schema_says_what_a_tool_takes_in_any_of_its_ways_or_leaves_it_open(schema, shown):
    made = StructuredTool(name="made", description="M.", args_schema=schema, func=lambda **given: given)
    named = "made(a=1)" if shown else "made()"
    output = create_rlm(script(f"FINAL(['got', {named}])"), tools=[made], sandbox="monty").invoke("q")
    assert f"`made({shown})`" in output["trajectory"][0]["text"]
    assert output["answer"] == ["got", {"a": 1} if shown else {}]


@pytest.mark.parametrize("kind", ["string", "array", ["null", "string"]])
def test_a_schema_that_is_of_no_object_is_refused(kind):
    made = StructuredTool(name="made", description="M.", args_schema={"type": kind}, func=lambda **given: given)
    with pytest.raises(ConfigurationError, match=r"'made' cannot be read: its type is .* arguments are an object"):
        create_rlm(script("FINAL(1)"), tools=[made])


def test_what_has_no_name_cannot_be_a_tool():
    with pytest.raises(ConfigurationError, match=r"a partial has no name .*StructuredTool.from_function"):
        create_rlm(script("FINAL(1)"), tools=[partial(rest, 1)])


def seen(day: date, more: Any = None) -> str:
    """Says what it was given."""
    return repr((day, more))


ARGUMENTS = {
    "day=datetime.date(2024, 1, 2)": "None",
    "datetime.date(2024, 1, 2), {2, 1}": "[1, 2]",
    "datetime.datetime(2024, 1, 2), decimal.Decimal('1.5')": "1.5",
    "'2024-01-02', [(1, {'a': datetime.time(3)}), 2**70]": "[[1, {'a': '03:00:00'}], 1180591620717411303424]",
    "'2024-01-02', Item(datetime.timedelta(1))": "{'x': 86400.0}",
    r"'2024-01-02', 'a\ud800'": "'a\ufffd'",
    "'2024-01-02', float('nan')": "nan",
    "'2024-01-02', print": "an argument of a call of tool holds a value of type builtin_function_or_method",
    "'2024-01-02', [(n for n in [1])]": "Use list(...)",
    "'2024-01-02', loop": "ValueError",
}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
def test_arguments_arrive_in_the_form_that_they_have_in_json_or_are_told(sandbox):
    define = "@dataclass\nclass Item:\n    x: object\nloop = []\nloop.append(loop)\ngot = []\n"
    code = f"import datetime, decimal\nfrom dataclasses import dataclass\n{define}"
    for given in ARGUMENTS:
        code += f"try:\n    got.append(seen({given}))\n"
        code += "except Exception as e:\n    got.append(f'{type(e).__name__}: {e}')\n"
    answer = create_rlm(script(f"{code}FINAL(got)"), tools=[seen], sandbox=sandbox).invoke("q")["answer"]
    missing = [(wanted, got) for wanted, got in zip(ARGUMENTS.values(), answer, strict=True) if wanted not in got]
    assert missing == []


def with_state(n: int, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Wants state."""
    return str(state)


def with_store(n: int, store: Annotated[Any, InjectedStore()]) -> str:
    """Wants a store."""
    return str(store)


def with_runtime(n: int, runtime: ToolRuntime) -> str:
    """Wants it all."""
    return str(runtime)


def with_argument(n: int, seal: Annotated[str, InjectedToolArg]) -> str:
    """Wants a seal."""
    return seal


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (with_state, "InjectedState"),
        (with_store, "InjectedStore"),
        (with_runtime, "ToolRuntime"),
        (with_argument, "InjectedToolArg"),
    ],
)
@pytest.mark.parametrize("made", [lambda function: function, tool])
def test_what_only_an_agents_graph_fills_in_is_refused_at_once(given, kind, made):
    with pytest.raises(ConfigurationError, match=rf"'{given.__name__}' has an argument .*\({kind}\).*default"):
        create_rlm(script("FINAL(1)"), tools=[made(given)])


@pytest.mark.parametrize("wait", ["pause", "crash"])
def test_calls_of_tools_are_counted_over_all_resumes(wait):
    code = "print(weather('Rome'), weather('Paris'))\nprint(llm_query_batched(['a', 'b', 'c', 'd']))"
    more = "said = []\nfor n in range(3):\n    try:\n        said.append(weather(f'town {n}')['town'])\n"
    more += "    except LLMError as e:\n        said.append(str(e))\nFINAL(said)"
    budget = Budget(tool_calls=3, approve_above_calls=2 if wait == "pause" else None)
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    plays, heard = script(code, more).function, []

    def model(messages: list[Any]) -> Any:
        heard.append(messages)
        if wait == "crash" and len(heard) == 6:  # the second turn, after four sub-calls
            raise ValueError("gone")
        return plays(messages)

    rlm = create_rlm(
        FunctionModel(function=model), tools=[weather], budget=budget, checkpointer=saver, sandbox="monty"
    )
    if wait == "pause":
        rlm.invoke("q", thread)
        output = rlm.invoke(Command(resume=True), thread)
    else:
        with pytest.raises(ModelError):
            rlm.invoke("q", thread)
        output = rlm.invoke(None, thread)
    assert output["answer"][0] == "town 0"
    assert all("no tool calls are left" in said for said in output["answer"][1:])
    assert len(ran) == 3


def test_a_long_error_has_its_middle_left_out_and_says_so() -> None:
    """A tool that quotes what it was given, and an argument that is none, would put it into every checkpoint."""

    def quotes(text: str) -> str:
        """Cannot use it."""
        raise ToolException(f"cannot use {text} here")

    code = """
said = []
for call in (lambda: quotes(context), lambda: quotes(**{context: 1})):
    try:
        call()
    except Exception as error:
        said.append(str(error))
FINAL(said)
"""
    output = create_rlm(script(code), tools=[quotes]).completion("q", "long " * 100_000)
    errors = [record["error"] for record in output["trajectory"] if record["type"] == "call"]
    assert output["answer"] == errors
    for error in errors:
        assert len(error) < 4_100
        assert "characters left out ...]" in error
    assert errors[0].endswith("here")


class Vectors(FakeEmbeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return broken()

    embed_query = embed_documents  # type: ignore[assignment]


class Found(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> Any:
        return broken()


def broken(x: int = 0) -> Any:
    """Fail with a secret."""
    raise LookupError("no row for sk-canary-5e2f77aa90 in the table")


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("broken(x=1)", {"tools": [broken]}),
        ("broken(1)", {"functions": [HostFunction("broken", "x", "Fail.", broken)]}),
        ("search('q')", {"retriever": Vectors(size=2)}),
        ("search('q')", {"retriever": Found()}),
        ("llm_query('q')", {"recursive_model": FunctionModel(function=lambda messages: broken())}),
    ],
    ids=["tool", "function", "embeddings", "retriever", "model"],
)
def test_what_foreign_code_raised_is_logged_for_its_author_and_kept_from_models(code, options, caplog):
    caplog.set_level(logging.DEBUG, logger="rlm_langchain")
    model = script(f"try:\n    {code}\nexcept Exception as e:\n    print(e)", "FINAL(1)")
    output = create_rlm(model, sandbox="monty", **options).invoke({"query": "q", "context": "a text"})
    assert "LookupError: no row for *** in the table" in caplog.text
    assert ", in broken" in caplog.text
    assert "no row" not in str(output)
    assert "canary" not in caplog.text
