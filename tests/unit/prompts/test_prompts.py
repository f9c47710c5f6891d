"""The prompts: short, whole, and the same bytes in every run."""

from __future__ import annotations

import warnings
from importlib.resources import files

import pytest

from rlm_langchain import create_rlm
from rlm_langchain.models.model import Model
from rlm_langchain.prompts.render import few_shot_messages, render
from rlm_langchain.testing.models import FunctionModel, script


def tokens(text: str) -> int:
    with warnings.catch_warnings(action="ignore"):  # it reads its tables in an old way
        import bpe_openai

        return len(bpe_openai.get_encoding("o200k_base").encode(text))


@pytest.mark.parametrize(("profile", "most"), [("default", 900), ("compact", 350)])
def test_a_system_prompt_is_short_with_all_its_examples(profile, most):
    assert tokens(render(profile, "system")) <= most


@pytest.mark.parametrize("examples", ["examples_dict", "examples_str"])
def test_examples_for_a_type_take_the_place_of_the_others(examples):
    system, *turns = few_shot_messages("compact", examples)
    assert system == few_shot_messages("compact")[0], "the system prompt is the same bytes, whatever comes after it"
    assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2)
    assert tokens(system[1]) + tokens(render("compact", examples)) <= 350


@pytest.mark.parametrize(
    ("context", "examples"),
    [
        ("a text", "examples_str"),
        ({"a.py": "x"}, "examples_dict"),
        ("a;b\nc;d\ne;f\n", None),
        (["a"], None),
        (None, None),
    ],
)
def test_a_small_model_is_shown_examples_of_the_kind_that_is_asked_about(context, examples):
    seen = []

    def play(messages):
        seen.append(messages)
        return f"```python\n{'print(1)' if len(seen) == 1 else 'FINAL(1)'}\n```"

    create_rlm(Model("small", FunctionModel(function=play), "compact"), sandbox="monty").completion("q", context)
    begun = [message.content for message in seen[0]][:-1]
    assert begun == [text for _, text in few_shot_messages("compact", examples)]
    assert [message.content for message in seen[1]][: len(begun)] == begun, "in every turn"


@pytest.mark.parametrize("profile", ["default", "compact"])
def test_examples_are_a_conversation(profile):
    roles = [role for role, _ in few_shot_messages(profile)]
    assert roles[0] == "system"
    assert roles[1:] == ["user", "assistant"] * (len(roles) // 2)
    assert all(text and "===" not in text for _, text in few_shot_messages(profile))


def test_the_system_prompt_is_the_same_bytes_in_every_run():
    seen = []

    def first(query, context):
        model = script("FINAL(1)")
        play = model.function
        model.function = lambda messages: seen.append(messages[0].content) or play(messages)
        create_rlm(model, strategies=["grep"] if context else []).completion(query, context)

    first("one", None)
    first("another $question", "a text")
    assert seen[0] == seen[1] == few_shot_messages("default")[0][1]


def test_a_hole_in_a_prompt_is_an_error():
    with pytest.raises(KeyError, match="reason"):
        render("default", "final")


def test_every_prompt_of_a_small_profile_has_a_default_or_is_asked_for_by_type():
    folder = files("rlm_langchain.prompts")
    default = {file.name for file in folder.joinpath("default").iterdir()}
    own = {file.name for file in folder.joinpath("compact").iterdir()}
    by_type = {"examples_dict.md", "examples_str.md"} | {
        "context_dict.md",
        "context_str.md",
        "context_list.md",
        "context_table.md",
    }
    assert own - default <= by_type | {"syntax.md"}


@pytest.mark.parametrize("sandbox", ["cpython", "monty"])
@pytest.mark.parametrize(("profile", "hinted"), [("compact", True), ("default", False)])
@pytest.mark.parametrize(("cell", "misread"), [("FINAL(len([1))))", True), ("int('x')", False)])
def test_a_small_model_that_loses_a_bracket_is_told_to_write_in_steps(sandbox, profile, hinted, cell, misread):
    told = []

    def play(messages):
        told.append(messages[-1].content)
        return f"```python\n{cell}\n```" if len(told) == 1 else "```python\nFINAL(1)\n```"

    create_rlm(Model("m", FunctionModel(function=play), profile), sandbox=sandbox).completion("How many?")
    assert (render("compact", "syntax") in told[1]) is (hinted and misread)
