"""Typed answers: checked in the host, mended by the model, given as an instance."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import decimal
import enum
import json
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal
from unittest.mock import ANY

import pydantic
import pytest
import typing_extensions
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import is_typeddict

from rlm_langchain import Budget, ChatRLM, ConfigurationError, NoAnswer, create_rlm
from rlm_langchain.answers.schema import AnswerSchema
from rlm_langchain.answers.words import answer_in_words
from rlm_langchain.testing.models import FunctionModel, script


class Person(BaseModel):
    name: str
    born: int = Field(ge=1500)
    kind: Literal["painter", "poet"] = "poet"


class People(BaseModel):
    people: list[Person]


ADA = "{'name': 'Ada', 'born': 1815}"
JSON = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_the_answer_is_an_instance():
    output = create_rlm(script(f"FINAL({{'people': [{ADA}]}})"), output_schema=People).invoke("q")
    assert output["answer"] == People(people=[Person(name="Ada", born=1815)])


async def test_the_same_when_awaited():
    output = await create_rlm(script(f"FINAL({ADA})"), output_schema=Person).ainvoke("q")
    assert output["answer"] == Person(name="Ada", born=1815)


@dataclasses.dataclass
class Stay:
    since: datetime.date
    nights: set[int]


class Day(enum.Enum):
    SUNDAY = "sunday"


class Trip(typing_extensions.TypedDict):
    at: datetime.datetime
    price: decimal.Decimal


class Span(typing.NamedTuple):
    first: datetime.date
    length: datetime.timedelta


LIVE: list[tuple[Any, str, Any]] = [
    (datetime.date, "date(2024, 1, 2)", datetime.date(2024, 1, 2)),
    (datetime.datetime, "datetime(2024, 1, 2, 3)", datetime.datetime(2024, 1, 2, 3)),
    (datetime.time, "time(3, 4)", datetime.time(3, 4)),
    (datetime.timedelta, "timedelta(days=1, seconds=2)", datetime.timedelta(days=1, seconds=2)),
    (decimal.Decimal, "Decimal('0.1')", decimal.Decimal("0.1")),
    (decimal.Decimal, "Decimal('0.12345678901234567890')", decimal.Decimal("0.12345678901234567890")),
    (set[int], "{2, 1}", {1, 2}),
    (frozenset[datetime.date], "frozenset([date(2024, 1, 2)])", frozenset([datetime.date(2024, 1, 2)])),
    (tuple[int, str], "(1, 'a')", (1, "a")),
    (bytes, "b'ab'", b"ab"),
    (list[int], "range(2)", [0, 1]),
    (list[str], "{'a': 1}.keys()", ["a"]),
    (dict[str, int], "Counter('aab')", {"a": 2, "b": 1}),
    (dict[datetime.date, int], "{date(2024, 1, 2): 1}", {datetime.date(2024, 1, 2): 1}),
    (Stay, "Item(date(2024, 1, 2), {3})", Stay(datetime.date(2024, 1, 2), {3})),
    (list[Stay], "[Item(date(2024, 1, 2), {3})]", [Stay(datetime.date(2024, 1, 2), {3})]),
    (
        Trip,
        "{'at': datetime(2024, 1, 2), 'price': Decimal('1.5')}",
        {"at": datetime.datetime(2024, 1, 2), "price": decimal.Decimal("1.5")},
    ),
    (Span, "Pair(date(2024, 1, 2), timedelta(1))", Span(datetime.date(2024, 1, 2), datetime.timedelta(1))),
]
DEFINED = """from collections import Counter, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
Pair = namedtuple('Pair', 'first length')
@dataclass
class Item:
    since: object
    nights: object
"""


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize("give", ["FINAL({})", "answer = {{'content': {}, 'ready': True}}"])
def test_a_value_of_the_type_that_is_wanted_is_the_answer_as_it_is(sandbox, give):
    names = [f"v{n}" for n in range(len(LIVE))]
    wanted = pydantic.create_model(
        "Wanted", **{n: (kind, ...) for n, (kind, _, _) in zip(names, LIVE, strict=True)}
    )
    given = ", ".join(f"{n!r}: {code}" for n, (_, code, _) in zip(names, LIVE, strict=True))
    rlm = create_rlm(script(DEFINED + give.format(f"{{{given}}}")), output_schema=wanted, sandbox=sandbox)
    answer = rlm.invoke("q")["answer"]
    assert [getattr(answer, name) for name in names] == [value for _, _, value in LIVE]


CPYTHON_ONLY = {
    "enum.Enum('Day', 'SUNDAY')['SUNDAY']": 1,
    "fractions.Fraction(1, 3)": "1/3",
    "uuid.UUID(int=1)": "00000000-0000-0000-0000-000000000001",
}


def test_so_is_one_of_the_standard_library_that_only_one_sandbox_has():
    code = f"import enum, fractions, uuid\nFINAL([{', '.join(CPYTHON_ONLY)}])"
    assert create_rlm(script(code), sandbox="cpython").invoke("q")["answer"] == [*CPYTHON_ONLY.values()]
    day = "import enum\nclass Day(enum.Enum):\n    SUNDAY = 'sunday'\nFINAL(Day.SUNDAY)"
    assert create_rlm(script(day), output_schema=Day, sandbox="cpython").invoke("q")["answer"] is Day.SUNDAY


def test_what_does_not_fit_goes_back_to_the_model_with_place_and_reason():
    seen: list[str] = []

    def play(messages):
        seen.append(messages[-1].content)
        return f"```repl\nFINAL({ADA if len(seen) > 1 else {'name': 'Ada', 'born': 3}})\n```"

    assert create_rlm(FunctionModel(function=play), output_schema=Person).invoke("q")["answer"].born == 1815
    assert "born" in seen[1]
    assert "1500" in seen[1]


def test_the_schema_is_told_with_the_question_and_not_in_the_system_prompt():
    output = create_rlm(script(f"FINAL({ADA})"), output_schema=Person).invoke("q")
    assert '"painter"' in output["trajectory"][0]["text"]


def test_a_json_schema_gives_a_plain_value():
    assert create_rlm(script("FINAL({'n': 'x'})", "FINAL({'n': 7})"), output_schema=JSON).invoke("q")["answer"] == {
        "n": 7
    }


def test_words_are_an_answer_only_when_they_fit():
    rlm = create_rlm(script("prose:seven", "prose:seven", 'prose:```json\n{"n": 7}\n```'), output_schema=JSON)
    output = rlm.invoke("q")
    assert (output["answer"], output["stop_reason"]) == ({"n": 7}, "prose")


@pytest.mark.parametrize(
    "words",
    [
        '{"n": 7}',
        '```\n{"n": 7}\n```',
        'It is this:\n```json\n{"n": 7}\n```\nOr {so}.',
        'Not {"n": 1} or [2] but {"n": 7}',
    ],
)
def test_a_value_that_fits_is_found_in_last_words(words):
    rlm = create_rlm(script("print(1)", f"prose:{words}"), output_schema=JSON, budget=Budget(iterations=1))
    assert rlm.invoke("q")["answer"] == {"n": 7}


@pytest.mark.parametrize("words", ["{1: 'a', 'b': [(2, 3)]}", "```python\n{1: 'a', 'b': [(2, 3)]}\n```"])
def test_a_value_as_python_writes_it_is_what_json_can_hold(words):
    rlm = create_rlm(script("print(1)", f"prose:{words}"), output_schema={"type": "object"})
    assert rlm.invoke("q")["answer"] == {"1": "a", "b": [[2, 3]]}


@pytest.mark.parametrize(
    "words",
    [
        '{"a": ' + " " * 100_000,
        '{"a": ' + " \n" * 50_000,
        '```json\n{"a": ' + "\n" * 100_000,
        "```\n" * 50_000,
        "".join("`" * length + "\n" for length in range(700, 2, -1)),
        "`" * 100_000 + "\n" * 100_000,
        "[" * 900 + "1," * 200_000,
    ],
    ids=range(7),
)
def test_a_model_that_repeats_itself_is_read_at_once(words):
    """A minute or more each, where all that may be a fence or JSON is read to the end of the reply."""
    assert answer_in_words(words, AnswerSchema(JSON), cites=True) is None
    assert AnswerSchema(JSON).problem(words)


@pytest.mark.parametrize(
    "text",
    [
        '~~~~~~\nIt is\n```json\n{"n": 7}\n```\n',
        '````md\n```\n{"n": 1}\n```\n````\n1. So:\n     ```json\n     {"n": 7}\n     ```\n',
        '```json\r\n{"n": 7}\r\n```\r\n',
        ' ~~~\n{"n": 7}\n~~~ ',
        '```json\n{"n": 7}\n``` That is it.',
    ],
)
def test_fences_are_read_as_markdown_writes_them(text):
    assert answer_in_words(text, AnswerSchema(JSON), cites=False) == {"n": 7}
    assert AnswerSchema(JSON).instance(text) == {"n": 7}


@pytest.mark.parametrize("more", ['{"id": 7}', "[1]", "7", '"seven"', "no JSON"])
def test_of_several_fences_the_last_that_fits_is_the_answer(more):
    text = f'```json\n{{"n": 1}}\n```\n```json\n{{"n": 7}}\n```\nThe row was:\n```json\n{more}\n```\n'
    schema = AnswerSchema(JSON)
    assert (schema.problem(text), schema.instance(text)) == (None, {"n": 7})
    assert answer_in_words(text, schema, cites=False) == {"n": 7}


def test_when_no_fence_fits_the_faults_are_those_of_the_last():
    problem = AnswerSchema(JSON).problem('```\n{"n": "a"}\n```\n```\n{"n": "b"}\n```\n')
    assert problem is not None
    assert "'b'" in problem
    assert "'a'" not in problem


def test_words_that_fit_are_taken_before_what_stands_in_them():
    text = 'It says {"n": 7}.'
    rlm = create_rlm(
        script("print(1)", f"prose:{text}"), output_schema={"type": "string"}, budget=Budget(iterations=1)
    )
    assert rlm.invoke("q")["answer"] == text


def test_a_run_that_never_fits_is_failed_and_not_a_wrong_type():
    rlm = create_rlm(script("FINAL('no')"), output_schema=Person, budget=Budget(iterations=2))
    assert rlm.invoke("q")["status"] == "failed"


def test_child_runs_answer_in_their_own_way():
    model = script("FINAL({'n': int(rlm_query('KID'))})", children={"KID": ["FINAL('41')"]})
    assert create_rlm(model, output_schema=JSON, budget=Budget(depth=2)).invoke("q")["answer"] == {"n": 41}


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Color(enum.Enum):
    RED = "red"


class Row(typing.TypedDict):
    at: datetime.date
    note: typing.NotRequired[str]


class Rows(typing_extensions.TypedDict):
    rows: list[Row]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime.date
    color: Color
    pair: tuple[int, str]
    tags: set[str]
    price: decimal.Decimal
    key: uuid.UUID
    inner: Person


KEY = "12345678-1234-5678-1234-567812345678"
FULL = (
    "{'at': '2024-01-02', 'color': 'red', 'pair': [1, 'a'], 'tags': ['a', 'b'], 'price': '1.50', 'key': '"
    + KEY
    + "',"
    f" 'inner': {ADA}}}"
)
TYPES: list[tuple[Any, str, Any]] = [
    (list[int], "[1, 2]", [1, 2]),
    (list[Person], f"[{ADA}]", [Person(name="Ada", born=1815)]),
    (dict[str, int], "{'a': 1}", {"a": 1}),
    (dict[int, str], "{'1': 'a'}", {1: "a"}),
    (int, "7", 7),
    (str, "'seven'", "seven"),
    (bool, "True", True),
    (float, "1.5", 1.5),
    (int | None, "None", None),
    (Literal["a", "b"], "'b'", "b"),
    (Point | Person, "{'x': 1}", Point(1)),
    (Point, "{'x': 1, 'y': 2}", Point(1, 2)),
    (Row, "{'at': '2024-01-02'}", {"at": datetime.date(2024, 1, 2)}),
    (
        Rows,
        "{'rows': [{'at': '2024-01-02', 'note': 'n'}]}",
        {"rows": [{"at": datetime.date(2024, 1, 2), "note": "n"}]},
    ),
    (list[Row], "[{'at': '2024-01-02'}]", [{"at": datetime.date(2024, 1, 2)}]),
    (datetime.date, "'2024-01-02'", datetime.date(2024, 1, 2)),
    (datetime.timedelta, "'PT1M'", datetime.timedelta(minutes=1)),
    (Color, "'red'", Color.RED),
    (tuple[int, str], "(1, 'a')", (1, "a")),
    (set[str], "['a', 'a']", {"a"}),
    (decimal.Decimal, "'1.50'", decimal.Decimal("1.50")),
    (uuid.UUID, f"'{KEY}'", uuid.UUID(KEY)),
    (Annotated[int, Field(ge=3)], "3", 3),
    (
        Strict,
        FULL,
        Strict(
            at=datetime.date(2024, 1, 2),
            color=Color.RED,
            pair=(1, "a"),
            tags={"a", "b"},
            price=decimal.Decimal("1.50"),
            key=uuid.UUID(KEY),
            inner=Person(name="Ada", born=1815),
        ),
    ),
    (JSON, "{'n': 7}", {"n": 7}),
]


@pytest.mark.parametrize(("schema", "cell", "answer"), TYPES, ids=lambda value: str(value)[:40])
def test_any_type_is_read_from_a_value_from_json_in_a_text_and_from_last_words(
    schema: Any, cell: str, answer: Any
) -> None:
    checked, value = AnswerSchema(schema), json.loads(json.dumps(ast.literal_eval(cell)))
    told = json.dumps(value)
    for given in (value, told, f"```json\n{told}\n```"):
        assert schema is str or (checked.problem(given), checked.instance(given)) == (None, answer)
    for words in (told, f"```json\n{told}\n```", f"So this is it:\n\n```json\n{told}\n```\nThat is all."):
        assert answer is None or checked.instance(answer_in_words(words, checked, cites=False)) == answer
    assert json.loads(checked.json) is not None


@pytest.mark.parametrize(("schema", "cell", "answer"), TYPES[::6], ids=lambda value: str(value)[:40])
async def test_a_type_is_the_same_through_every_way_to_ask(schema: Any, cell: str, answer: Any) -> None:
    rlm = create_rlm(script(f"FINAL({cell})"), output_schema=schema, sandbox="monty")
    chat = ChatRLM(rlm=create_rlm(script(f"FINAL({cell})"), sandbox="monty"))
    asked = [rlm.invoke("q"), await rlm.ainvoke("q"), *rlm.stream("q"), rlm.completion("q")]
    assert [output["answer"] for output in asked] == [answer] * 4
    assert chat.with_structured_output(schema).invoke("q") == (answer if not is_typeddict(schema) else ANY)
    assert rlm.get_output_schema().model_json_schema()


def test_why_an_answer_never_fits_is_told_to_the_model_each_time_and_to_the_caller() -> None:
    seen: list[str] = []

    def play(messages: list[BaseMessage]) -> str:
        seen.append(str(messages[-1].content))
        return ("```repl\nFINAL({'name': 'Ada', 'born': 3})\n```", "Ada, in the year 3", "Ada, as I said")[
            min(len(seen), 3) - 1
        ]

    rlm = create_rlm(
        FunctionModel(function=play), output_schema=Person, budget=Budget(iterations=4), sandbox="monty"
    )
    output = rlm.invoke("q")
    assert output["status"] == "failed"
    assert "born" in seen[1]
    assert "do not match" in seen[3]
    assert "Input should be" in str(output["misfit"])
    with pytest.raises(NoAnswer, match="does not fit the schema"):
        rlm.model_copy(update={"on_failure": "raise"}).invoke("q")


@pytest.mark.parametrize("schema", ["text", 7, print, lambda: 1, Person(name="A", born=1800), object(), Callable])
def test_what_is_no_type_is_refused_with_a_sentence(schema: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a pydantic model, another type such as"):
        create_rlm(script("FINAL(1)"), output_schema=schema)


def test_a_json_schema_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="output_schema"):
        create_rlm(script("FINAL(1)"), output_schema={"type": "nothing"})


ASKED: list[Callable[[ChatRLM], Any]] = [
    lambda chat: create_agent(chat, tools=[], response_format=ToolStrategy(Person)).invoke({"messages": "who?"}),
    lambda chat: create_agent(chat, tools=[], response_format=ProviderStrategy(Person)).invoke(
        {"messages": "who?"}
    ),
    lambda chat: chat.with_structured_output(Person).invoke("who?"),
    lambda chat: [*chat.with_structured_output(list[int]).stream("who?")],
]


@pytest.mark.parametrize("ask", ASKED)
def test_a_chat_model_whose_answer_never_fits_raises_and_is_not_asked_for_ever(
    ask: Callable[[ChatRLM], Any],
) -> None:
    asked: list[Any] = []

    def play(messages: list[BaseMessage]) -> str:
        asked.append(messages)
        return "```repl\nFINAL('no')\n```"

    chat = ChatRLM(rlm=create_rlm(FunctionModel(function=play), budget=Budget(iterations=3), sandbox="monty"))
    with pytest.raises(NoAnswer, match="does not fit the schema"):
        ask(chat)
    assert len(asked) == 4  # the last turn, too
