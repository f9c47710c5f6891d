"""Typed answers: checked in the host, mended by the model, given as an instance."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from rlm_langchain import Budget, ConfigurationError, create_rlm
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


@pytest.mark.parametrize("schema", [int, "text", {"type": "nothing"}])
def test_what_is_no_schema_is_refused_at_the_start(schema):
    with pytest.raises(ConfigurationError, match="output_schema"):
        _ = create_rlm(script("FINAL(1)"), output_schema=schema).graph
